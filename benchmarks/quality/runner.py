"""Runs: each a process of its own, timed from its start to its end, and scored from the predictions that it wrote."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.quality.results import Outcome, Task, imagetune_digest, peers_digest
from benchmarks.quality.rows import Row, find_row
from benchmarks.quality.scoring import read_peer, read_run, score
from benchmarks.quality.splits import provide_folders, provide_split
from imagetune.core.files import write_text
from imagetune.core.run_files import BEST, EVALUATION, PREDICTIONS

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Usage:
    """What a process took: its exit status, and seconds of the clock and of the processor."""

    status: int
    seconds: float
    cpu_seconds: float


# Processor seconds of the plain script in a second of the clock, with the two cores for itself.
SCRIPT_CORES = 1.2


def run_task(task: Task, work: Path, baseline: Outcome | None = None) -> Outcome:
    """Make a run and return its outcome; one that fails is an outcome, too, and its output stays in ``logs``.

    Args:
        task: The run.
        work: Folder of packages, images and logs.
        baseline: The plain script's outcome on the same split, from which `imagetune auto` has its time.

    Raises:
        SetMissingError: A package that carries the set can't be had.
    """
    row = find_row(task.row)
    # Before the run, which may take minutes in which a file is edited.
    code = code_of(row)
    table = provide_split(task.set_name, task.split, work)
    name = f"{task.set_name}-{task.split}-{_plain(task.row)}-{task.repeat}"
    folder, log = work / "runs" / name, work / "logs" / f"{name}.txt"
    shutil.rmtree(folder, ignore_errors=True)
    for path in (folder, log.parent):
        path.mkdir(parents=True, exist_ok=True)
    try:
        if row.kind == "fit":
            usage, metrics = _fit(row, task, table, folder, log)
        elif row.kind == "auto":
            if baseline is None:
                raise ValueError("the time of this row is a multiple of the plain script's")
            usage, metrics = _search(row, task, table, folder, log, seconds=baseline.cpu_seconds / SCRIPT_CORES)
        else:
            usage, metrics = _run_peer(row, task, table, folder, log)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    error = "" if usage.status == 0 else f"exit status {usage.status}: {_last_line(log)}"
    origin: dict[str, Any] = {
        "seconds": round(usage.seconds, 1),
        "cpu_seconds": round(usage.cpu_seconds, 1),
        "error": error,
        "code": code,
        **_origin(),
    }
    return Outcome(task.set_name, task.split, task.row, task.repeat, **metrics, **origin)


def code_of(row: Row) -> str:
    """Return the digest of the source files that a row runs."""
    return imagetune_digest() if row.kind in ("fit", "auto") else peers_digest()


def _fit(row: Row, task: Task, table: Path, folder: Path, log: Path) -> tuple[Usage, dict[str, Any]]:
    # The seed of the training is that of the split, so that repeats differ from it.
    base = {
        "name": folder.name,
        "seed": 100 * (task.repeat - 1) + task.split,
        # The splits part no group of near-duplicates; a pair that only the check across given splits finds is the same
        # for all rows.
        "data": {"source": str(table.absolute()), "audit": {"on_leak": "warn"}},
        "tracking": {"enabled": False},
    }
    recipe, run = folder / "recipe.yaml", folder / "run"
    write_text(recipe, yaml.safe_dump(row.recipe(base), sort_keys=False))
    command = [sys.executable, "-m", "imagetune", "fit", str(recipe), "--run-dir", str(run)]
    # An empty cache: a run pays for all that it uses.
    usage = run_process(command, log, {"IMAGETUNE_CACHE": str(folder / "cache")})
    if usage.status:
        return usage, {}
    found = score(*read_run(run / PREDICTIONS / "test.csv"))
    document = json.loads((run / EVALUATION).read_text(encoding="utf-8"))
    return usage, {**found, "baselines": _read_baselines(document)}


def _search(
    row: Row, task: Task, table: Path, folder: Path, log: Path, *, seconds: float
) -> tuple[Usage, dict[str, Any]]:
    run = folder / "run"
    keys = ("data.audit.on_leak=warn", "tracking.enabled=false", f"seed={100 * (task.repeat - 1) + task.split}")
    command = [sys.executable, "-m", "imagetune", "auto", str(table.absolute()), "--run-dir", str(run)]
    command += ["--time", f"{row.times * seconds:.0f}s", *(f"-o{key}" for key in keys)]
    usage = run_process(command, log, {"IMAGETUNE_CACHE": str(folder / "cache")})
    return usage, {} if usage.status else score(*read_run(run / BEST / PREDICTIONS / "test.csv"))


def _run_peer(row: Row, task: Task, table: Path, folder: Path, log: Path) -> tuple[Usage, dict[str, Any]]:
    predictions = folder / "predictions.npz"
    seed = 100 * (task.repeat - 1) + task.split
    shared = [str(provide_folders(table)), "--backbone", row.backbone, "--size", str(row.image_size)]
    shared += ["--seed", str(seed), "--predictions", str(predictions)]
    if row.kind == "plain":
        head, everything = map(str, row.epochs)
        options = ["--epochs", head, "--phase2-epochs", everything, "--augment", "--cache"]
        command = [str(ROOT / "benchmarks" / "peers" / "keras_guide.py"), *shared, *options]
    else:
        command = ["-m", f"benchmarks.quality.peers.{row.kind}", *shared]
    usage = run_process([sys.executable, *command], log)
    if usage.status:
        return usage, {}
    found: dict[str, Any] = score(*read_peer(predictions))
    return usage, {**found, "log_loss": None} if row.kind == "neighbours" else found


def run_process(command: list[str], log: Path, extra: dict[str, str] | None = None) -> Usage:
    """Run a command with its output in a file, and return what it took."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "PYTHONPATH": path, **(extra or {})}
    started = time.perf_counter()
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            _, status, resources = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return Usage(process.returncode, time.perf_counter() - started, resources.ru_utime + resources.ru_stime)


def _read_baselines(document: dict[str, Any]) -> dict[str, float]:
    models = (document.get("baselines") or {}).get("models", [])
    # The key was renamed; runs of both states of the code are compared.
    figures = {model["name"]: model.get("metrics") or model.get("figures") for model in models}
    return {name: found["accuracy"]["value"] for name, found in figures.items() if found}


def _origin() -> dict[str, str]:
    memory = psutil.virtual_memory().total / 2**30
    return {
        "versions": f"Keras {version('keras')}, tensorflow {version('tensorflow')}",
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB",
        "when": time.strftime("%Y-%m-%d"),
    }


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)
