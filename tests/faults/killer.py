"""Kills runs at random moments, goes on with them, and compares the results bit for bit with an uninterrupted run's.

`python -m tests.faults.killer [KILLS] [--seed N]` prints a line a kill and what differed; `make test` does ten.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.attack.keeper import PROJECT, Watcher

# A solved head, a trained one, a part of the backbone with averaged weights in images of another size, perhaps folds,
# and a commit after every step, so that many kills fall into one.
RECIPE = """\
name: killed
seed: 3
data: {{source: {source}, image_size: 32, workers: 0, augmentation: light}}
model: {{backbone: tiny, weights: random, head: {{dropout: 0.2}}}}
train:
  batch_size: 4
  commit_minutes: 1e-9
  average: ema
  stages:
    - {{name: solved, unfreeze: none, epochs: 1, learning_rate: 1e-2, solve: true}}
    - {{name: head, unfreeze: none, epochs: 2, learning_rate: 1e-2, solve: false}}
    - {{name: top, unfreeze: last 1 blocks, epochs: 2, learning_rate: 1e-3, batch_norm: train, image_size: 40}}
evaluate:
  {{bootstrap_samples: 100, explain: 0, baselines: false, label_errors: false, slices: false, folds: {folds}}}
tracking: {{enabled: false}}
"""
LONGEST_SECONDS = 300.0
MAX_KILLS_OF_A_RUN = 4


@dataclass(frozen=True)
class Kill:
    """A kill and how it came out.

    Attributes:
        number: Its number, from 1.
        seconds: Time after the start of the process.
        at: Where the run was, in words.
        within_commit: Whether it waited for a checkpoint that was being written.
    """

    number: int
    seconds: float
    at: str
    within_commit: bool


class Killer:
    """Runs the same fit again and again in a folder, killed and resumed.

    Args:
        folder: An empty folder; it gets images, a recipe and the runs.
        seed: Seed of the moments.
        folds: Number of folds of the run, at least 2; None for none.
    """

    def __init__(self, folder: Path, *, seed: int, folds: int | None = 2) -> None:
        from tests.conftest import draw_images

        draw_images(folder / "images")
        (folder / "recipe.yaml").write_text(
            RECIPE.format(source=folder / "images", folds=folds or "null"), encoding="utf-8"
        )
        self._folder = folder
        self._random = random.Random(seed)
        self._watcher = Watcher.start()
        began = time.monotonic()
        self._fit("whole")
        self._whole_seconds = time.monotonic() - began
        self._expected = read_result(folder / "whole")

    def kill(self, kills: int) -> Iterator[Kill | str]:
        """Yield each kill, and after each finished run a sentence for each difference from the uninterrupted one."""
        done = 0
        while done < kills:
            for _ in range(min(self._random.randint(1, MAX_KILLS_OF_A_RUN), kills - done)):
                done += 1
                kill = self._kill_once(done)
                if kill is None:
                    break
                yield kill
            # Whatever is left goes to its end; a run that had ended already says so.
            self._fit("part", "--resume")
            yield from self._compare()
            shutil.rmtree(self._folder / "part")

    def stop(self) -> None:
        """End the process that runs the fits."""
        self._watcher.stop()

    def _kill_once(self, number: int) -> Kill | None:
        within_commit = self._random.random() < 0.5
        moment = self._random.uniform(0.1, self._whole_seconds)
        with self._killing(moment, within_commit=within_commit) as killed:
            answer = self._ask("part", "--resume")
        # It may have come to its end in the same moment.
        if not killed or answer["code"] == 0:
            return None
        assert answer["code"] == -signal.SIGKILL, answer
        return Kill(number, moment, describe_place(self._folder / "part"), within_commit)

    @contextmanager
    def _killing(self, moment: float, *, within_commit: bool) -> Iterator[list[int]]:
        """Kill the process of the run after some seconds, or at the next commit after that; yield whom it killed."""
        killed: list[int] = []
        over = threading.Event()
        run = self._folder / "part"

        def work() -> None:
            if over.wait(moment):
                return
            while within_commit and not over.is_set() and not commits(run):
                time.sleep(0.001)
            pid = self._find_process()
            if pid is not None and not over.is_set():
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                    killed.append(pid)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield killed
        finally:
            over.set()
            thread.join()

    def _find_process(self) -> int | None:
        """Return the process that the watcher has forked for the command line."""
        import psutil

        children = psutil.Process(self._watcher.process.pid).children()
        return children[0].pid if children else None

    def _fit(self, run: str, *options: str) -> None:
        answer = self._ask(run, *options)
        assert answer["code"] == 0, (answer, (self._folder / "stderr").read_text()[-3000:])

    def _ask(self, run: str, *options: str) -> dict[str, Any]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTEST_"))}
        cache = {"IMAGETUNE_CACHE": str(self._folder / "cache"), "PYTHONPATH": str(PROJECT)}
        # Half of the sessions find the caches of the one before, the others find none.
        if self._random.random() < 0.5:
            shutil.rmtree(self._folder / "cache", ignore_errors=True)
        return self._watcher.ask(
            {
                "arguments": ["fit", "recipe.yaml", "--run-dir", run, *options],
                "environment": environment | cache | {"MLFLOW_DISABLE_TELEMETRY": "true", "CUDA_VISIBLE_DEVICES": "-1"},
                "folder": str(self._folder),
                "stdout": str(self._folder / "stdout"),
                "stderr": str(self._folder / "stderr"),
                "limits": {},
                "signals": [],
                "closed": [],
                "fresh": False,
                "megabytes": math.inf,
                "wall_seconds": LONGEST_SECONDS,
            }
        )

    def _compare(self) -> Iterator[str]:
        found = read_result(self._folder / "part")
        for name in sorted(self._expected.keys() | found.keys()):
            if self._expected.get(name) != found.get(name):
                yield f"{name} differs: {str(self._expected.get(name))[:200]} and {str(found.get(name))[:200]}"


def commits(run: Path) -> bool:
    """Return whether a checkpoint of a run, or of one of its folds, is being written."""
    for folder in (run, *(run / "folds" / f"fold-{number}" for number in (1, 2))):
        with suppress(OSError):
            if any(path.name.startswith(".tmp-") for path in (folder / "checkpoints").iterdir()):
                return True
    return False


def read_result(run: Path) -> Mapping[str, Any]:
    """Return what must be equal in two runs of one recipe, by name: weights, predictions, epochs, stages, metrics."""
    found: dict[str, Any] = {}
    for folder in (run, *sorted(run.glob("folds/*"))):
        place = folder.relative_to(run)
        for path in (*folder.glob("predictions/*.csv"), folder / "splits.csv"):
            found[str(place / path.name)] = hashlib.sha256(path.read_bytes()).hexdigest()
        found[f"{place}: weights"] = json.loads((folder / "model/manifest.json").read_text())["weights_sha256"]
        epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found[f"{place}: epochs"] = [{**epoch, "images_per_second": 0} for epoch in epochs]
        stages = [json.loads(line) for line in (folder / "stages.jsonl").read_text().splitlines()]
        found[f"{place}: stages"] = [(stage["name"], "judged" in stage) for stage in stages]
        found[f"{place}: splits"] = json.loads((folder / "evaluation.json").read_text())["splits"]
        found[f"{place}: state"] = json.loads((folder / "status.json").read_text())["state"]
        found[f"{place}: leftovers"] = [path.name for path in folder.glob("**/.tmp-*")]
    return found


def describe_place(run: Path) -> str:
    """Return where a killed run was."""
    with suppress(OSError, ValueError, KeyError):
        status = json.loads((run / "status.json").read_text())
        place = f"{status['state']}, stage {status['stage']!r}, epoch {status['epoch']}, step {status['step']}"
        return place + (f", fold {len(list(run.glob('folds/*')))}" if (run / "folds").is_dir() else "")
    return "before its first record"


def main() -> int:
    """Kill as often as asked, print what came of it, and return 1 where something differed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", nargs="?", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.path.append(str(PROJECT / "tests/helpers"))
    differences = 0
    with tempfile.TemporaryDirectory() as folder:
        killer = Killer(Path(folder), seed=options.seed)
        for event in killer.kill(options.kills):
            if isinstance(event, Kill):
                how = " within a commit" if event.within_commit else ""
                print(f"{event.number:4} killed after {event.seconds:5.1f} s{how}: {event.at}", flush=True)
            else:
                differences += 1
                print(event, flush=True)
        killer.stop()
    print(f"{options.kills} kills, {differences} differences")
    return int(differences > 0)


if __name__ == "__main__":
    sys.exit(main())
