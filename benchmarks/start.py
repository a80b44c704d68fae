"""Time of start-up: of commands, of a short fit, and of the audit of the images.

    python -m benchmarks.start [--rounds 5] [--images 100] [--audit 10000] [--out METRICS.json]

Whole processes are measured from start to end, Python and imports included, in turn. A fit of one epoch (frozen
MobileNetV3Small with random weights, 64 pixels) stands against `benchmarks/peers/bare_script.py`, which does the same
work with the same images; ours also checks the images, evaluates every split with intervals, writes the report and
sends the run to MLflow, once to a store that exists and once to one that it has to make. Nothing is taken from caches
of earlier rounds, but byte code is, as in an installed package.

The audit of the images is measured twice in this process: when nothing is known of them, beside the rate at which
one core reads, hashes and decodes them times the cores, and again when they have not changed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.sets import write_jpegs
from benchmarks.side_by_side import (
    Measure,
    machine_line,
    markdown_table,
    measure_in_turn,
    run_process,
    save_json,
    show,
)
from imagetune.core.processes import count_usable_cores
from imagetune.data.audit.audit import audit_catalog
from imagetune.data.audit.statistics_cache import SETTLED_SECONDS
from imagetune.data.loading.decode import decode_image, read_image_file
from imagetune.data.sources.read import read_catalog
from imagetune.recipe.sections.data import DataConfig

BARE = Path(__file__).parent / "peers" / "bare_script.py"
COMMAND = [sys.executable, "-m", "imagetune"]
CLASSES = 4
RECIPE = """\
name: start
seed: 7
data: {{source: images, image_size: {size}, augmentation: none}}
model: {{backbone: mobilenet_v3_small, weights: random}}
train:
  batch_size: 16
  stages:
    - {{name: head, unfreeze: none, epochs: 1, learning_rate: 1e-3}}
"""
_SHARES = {"train": 0.65, "val": 0.15, "test": 0.2}
_KERNEL_IMAGES = 500


@dataclass(frozen=True)
class AuditMetrics:
    """An audit: its seconds, how many files it opened, and images a second of the kernel times the cores."""

    name: str
    images: int
    seconds: float
    opened: int
    kernel_rate: float


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=100, help="images of the short fit; 0 leaves it out")
    parser.add_argument("--size", type=int, default=64, help="side of the model's input")
    parser.add_argument("--audit", type=int, default=10_000, help="images of the check; 0 leaves it out")
    parser.add_argument("--audit-height", type=int, default=240, help="rows of these images, which are 4:3")
    parser.add_argument("--out", type=Path, help="also write the measurements to this file")
    arguments = parser.parse_args()
    print(machine_line())
    metrics: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        env = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(place / "bytecode"), "MLFLOW_TRACKING_URI": ""}
        commands = measure_in_turn(command_sides(place, env), rounds=arguments.rounds, warmups=1)
        print(f"\n{markdown_table(commands, base='python -c pass')}")
        metrics["commands"] = commands.as_json("python -c pass")
        if arguments.images:
            sides = fit_sides(place, env, arguments.images, arguments.size)
            fits = measure_in_turn(sides, rounds=arguments.rounds, warmups=1)
            print(f"\n{markdown_table(fits, base='bare script')}")
            metrics["fit"] = fits.as_json("bare script")
        if arguments.audit:
            audits = measure_audit(place, arguments.audit, arguments.audit_height)
            print(f"\n{audit_table(audits)}")
            metrics["audit"] = [asdict(one) for one in audits]
    save_json(arguments.out, metrics)


def command_sides(place: Path, env: dict[str, str]) -> dict[str, Measure]:
    """Return commands that should answer at once, beside the start of Python alone."""
    recipe = place / "start.yaml"
    recipe.write_text(RECIPE.format(size=64), encoding="utf-8")
    script = [str(Path(sys.executable).with_name("imagetune"))]
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "imagetune --help": [*script, "--help"],
        "imagetune recipe validate": [*script, "recipe", "validate", str(recipe)],
    }
    return {name: _seconds_of(command, env, place) for name, command in commands.items()}


def fit_sides(place: Path, env: dict[str, str], images: int, size: int) -> dict[str, Measure]:
    """Return the bare script and both fits; all work in ``place``, on the images written there."""
    write_split(place / "images", images)
    (place / "start.yaml").write_text(RECIPE.format(size=size), encoding="utf-8")
    bare = [sys.executable, str(BARE), "images", "--out", "bare", "--size", str(size)]
    fit = [*COMMAND, "fit", "start.yaml"]

    def without_caches(store: Callable[[], str]) -> Measure:
        def measure() -> float:
            with tempfile.TemporaryDirectory(dir=place) as fresh:
                own = {"IMAGETUNE_CACHE": f"{fresh}/cache", "MLFLOW_TRACKING_URI": store().format(fresh=fresh)}
                return run_process(fit, env={**env, **own}, cwd=place).seconds

        return measure

    return {
        "bare script": _seconds_of(bare, env, place),
        "imagetune fit": without_caches(lambda: f"sqlite:///{place}/mlflow.db"),
        "imagetune fit, first run of all": without_caches(lambda: "sqlite:///{fresh}/mlflow.db"),
    }


def write_split(folder: Path, count: int) -> None:
    """Write small JPEGs into train, val and test, each with a folder a class."""
    for number, (side, share) in enumerate(_SHARES.items()):
        each = max(CLASSES, round(count * share))
        write_jpegs(folder / side, classes=CLASSES, count=each, size=(240, 320), seed=number)


def measure_audit(place: Path, count: int, height: int = 240) -> list[AuditMetrics]:
    """Check generated images that nothing is known of, and then again."""
    folder = place / "audit"
    records = write_jpegs(folder, classes=10, count=count, size=(height, height * 4 // 3))
    time.sleep(SETTLED_SECONDS + 0.1)
    rate = count_usable_cores() * kernel_rate([record.path for record in records[:_KERNEL_IMAGES]])
    os.environ["IMAGETUNE_CACHE"] = str(place / "cache")
    opened: list[str] = []
    sys.addaudithook(lambda event, words: opened.append(str(words[0])) if event == "open" else None)
    found = []
    for name in ("nothing known", "nothing changed"):
        opened.clear()
        config = DataConfig(source=str(folder))
        started = time.perf_counter()
        audit_catalog(read_catalog(config), config)
        seconds = time.perf_counter() - started
        # Worker processes open the images of a large first check; this process sees those that it opens itself.
        here = sum(path.startswith(f"{folder}/") for path in opened)
        found.append(AuditMetrics(name, count, seconds, here, rate))
    shutil.rmtree(folder)
    return found


def kernel_rate(paths: list[str]) -> float:
    """Return the images a second that one core reads, hashes and decodes at the scale that the check needs."""
    started = time.perf_counter()
    for path in paths:
        data = read_image_file(path, max_pixels=10**8)
        hashlib.sha256(data).hexdigest()
        decode_image(data, where=path, background=(255, 255, 255), max_pixels=10**8, at_least=(96, 96))
    return len(paths) / (time.perf_counter() - started)


def audit_table(audits: list[AuditMetrics]) -> str:
    """Return the table of the checks."""
    lines = [
        "| check of the images | images | s | images/s | of read + hash + decode x cores |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for one in audits:
        rate = one.images / one.seconds
        lines.append(
            f"| {one.name} | {one.images:,} | {show(one.seconds)} | {show(rate)} | {show(rate / one.kernel_rate)} |"
        )
    return "\n".join(lines)


def _seconds_of(command: list[str], env: dict[str, str], place: Path) -> Measure:
    return lambda: run_process(command, env=env, cwd=place).seconds


if __name__ == "__main__":
    main()
