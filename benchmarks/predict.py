"""Predictions at scale: memory of `imagetune predict` by the number of rows, and its rate against the evaluator's.

    python -m benchmarks.predict [--rows 1000000] [--few 10000] [--table csv|parquet] [--images 2000] [--rounds 3]
                                 [--out METRICS.json]

- Memory: the most that the process and its workers take together while a table of so many paths is predicted into each
  format. The rows repeat 300 small JPEGs, which are decoded again for each row; the model is MobileNetV3Small at 32
  pixels with random weights. The requirement: at most a tenth more for a million rows than for ten thousand.
- Rate: EfficientNet-Lite0 at 160 pixels (random weights, which cost the same time) on JPEGs of 320x240, in turn: the
  evaluator's forward pass (`predict_records`, what `imagetune evaluate` spends its time on) and predictions into a CSV
  file with all its columns. Both read the model and the images themselves. The requirement: at least 0.95.

A part is left out with 0 rows or images.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.side_by_side import (
    Comparison,
    Measure,
    machine_line,
    measure_in_turn,
    run_process,
    save_json,
    show,
    timed,
)

COMMAND = [sys.executable, "-m", "imagetune"]
MIB = 2**20
RECIPE = """\
name: predict
seed: 7
data: {{source: {source}, image_size: {size}, workers: 0, audit: {{near_duplicates: false}}}}
model: {{backbone: {backbone}, weights: random}}
train:
  batch_size: 32
  stages:
    - {{name: head, unfreeze: none, epochs: 1, learning_rate: 1e-3}}
evaluate: {{bootstrap_samples: 100}}
tracking: {{enabled: false}}
"""
MAX_GROWTH, MIN_RATE = 1.10, 0.95
_SMALL_IMAGES, _LOOK_SECONDS = 300, 0.2


@dataclass(frozen=True)
class MemoryMetrics:
    """The most memory of the process with its workers, and the time, for a number of rows in a format."""

    format: str
    rows: int
    peak_mib: float
    seconds: float


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--table", choices=("csv", "parquet"), default="csv", help="format of the table of paths")
    parser.add_argument("--formats", nargs="+", default=["csv", "parquet"], help="csv, jsonl, parquet")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3, help="pairs of the rate")
    parser.add_argument("--out", type=Path, help="also write the measurements to this file")
    arguments = parser.parse_args()
    print(machine_line(), flush=True)
    metrics: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if arguments.rows:
            fit(place, backbone="mobilenet_v3_small", size=32, count=_SMALL_IMAGES, pixels=(32, 32))
            found = [
                measure_memory(place, kind, rows, arguments.table)
                for kind in arguments.formats
                for rows in (arguments.few, arguments.rows)
            ]
            print(f"\n{memory_table(found)}", flush=True)
            metrics["memory"] = [asdict(one) for one in found]
        if arguments.images:
            fit(place, backbone="efficientnet_lite0", size=160, count=arguments.images, pixels=(240, 320))
            rates = measure_rates(place, arguments.rounds)
            print(f"\n{rate_table(rates)}")
            metrics["rate"] = rates.metrics
    save_json(arguments.out, metrics)


def fit(place: Path, *, backbone: str, size: int, count: int, pixels: tuple[int, int]) -> None:
    """Make images and a run in the folders ``images`` and ``run``."""
    from benchmarks.sets import write_jpegs

    run_process(["rm", "-rf", str(place / "images"), str(place / "run")])
    write_jpegs(place / "images", classes=3, count=count, size=pixels)
    recipe = RECIPE.format(source=place / "images", size=size, backbone=backbone)
    (place / "recipe.yaml").write_text(recipe, encoding="utf-8")
    env = {"IMAGETUNE_CACHE": str(place / "cache")}
    run_process([*COMMAND, "fit", "recipe.yaml", "--run-dir", "run"], cwd=place, env=env)


def measure_memory(place: Path, kind: str, rows: int, table_format: str = "csv") -> MemoryMetrics:
    """Predict a table of so many rows and note the most memory of the process and what it starts.

    Raises:
        SystemExit: The command failed, or rows are missing.
    """
    table, out = write_table(place, rows, table_format), place / f"out.{kind}"
    began, peak = time.perf_counter(), 0.0
    command = [*COMMAND, "predict", "run", str(table), f"--{kind}", str(out)]
    with (place / "said.txt").open("w+", encoding="utf-8") as said:
        process = subprocess.Popen(command, cwd=place, stdout=said, stderr=said)
        while process.poll() is None:
            peak = max(peak, measure_tree(process.pid))
            time.sleep(_LOOK_SECONDS)
        said.seek(0)
        if process.returncode or f"{rows:,} images" not in said.read():
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{said.read()[-2000:]}")
    out.unlink()
    return MemoryMetrics(kind, rows, peak / MIB, time.perf_counter() - began)


def write_table(place: Path, rows: int, table_format: str) -> Path:
    """Write a table of so many paths, of the images in turn, as CSV or Parquet, and return its file."""
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    files, table = sorted(map(str, (place / "images").rglob("*.jpg"))), place / f"rows.{table_format}"
    paths = pyarrow.table({"path": [files[row % len(files)] for row in range(rows)]})
    write = pyarrow.csv.write_csv if table_format == "csv" else pyarrow.parquet.write_table
    write(paths, str(table))
    return table


def measure_tree(pid: int) -> float:
    """Return the bytes that a process and those that it started take, shared pages counted once for each."""
    try:
        process = psutil.Process(pid)
        return float(sum(one.memory_info().rss for one in (process, *process.children(recursive=True))))
    except psutil.Error:
        return 0.0


def measure_rates(place: Path, rounds: int) -> Comparison:
    """Return the images a second of the evaluator and of predictions into a table, in turn."""
    os.chdir(place)
    from imagetune.commands.predict_table import TableRequest, predict_to_table
    from imagetune.data.sources.read import find_images
    from imagetune.data.sources.records import Record
    from imagetune.evaluation.predictions import predict_records
    from imagetune.runs.open import open_run

    paths = find_images(["images"])
    records = [Record(path, Path(path).parent.name) for path in paths]

    def evaluate() -> object:
        _, loaded = open_run("run")
        return predict_records(
            loaded.model,
            records,
            loaded.class_names,
            image=loaded.image,
            batch_size=32,
            workers="auto",
            max_pixels=loaded.max_pixels,
        )

    def predict() -> None:
        predict_to_table("run", ["images"], TableRequest(place / "out.csv", "csv"))

    def measure_rate(work: Callable[[], object]) -> Measure:
        return lambda: len(paths) / timed(work)()

    sides = {"evaluator": measure_rate(evaluate), "predict": measure_rate(predict)}
    return measure_in_turn(sides, rounds=rounds, warmups=1, unit="images/s", lower_is_better=False)


def memory_table(found: list[MemoryMetrics]) -> str:
    """Return the table of the memory, a row a format."""
    lines = [
        f"| format | rows | MiB | rows | MiB | ratio (at most {MAX_GROWTH}) | rows a second |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for few, many in zip(found[::2], found[1::2], strict=True):
        ratio = many.peak_mib / few.peak_mib
        verdict = "" if ratio <= MAX_GROWTH else ", **missed**"
        cells = [few.format, f"{few.rows:,}", show(few.peak_mib), f"{many.rows:,}", show(many.peak_mib)]
        lines.append(f"| {' | '.join(cells)} | {ratio:.3f}{verdict} | {show(many.rows / many.seconds)} |")
    return "\n".join(lines)


def rate_table(rates: Comparison) -> str:
    """Return the table of the rates, a row a pair."""
    lines = [
        f"| evaluator, images/s | predict into CSV, images/s | ratio (at least {MIN_RATE}) |",
        "| ---: | ---: | ---: |",
    ]
    for evaluator, predict in zip(rates.metrics["evaluator"], rates.metrics["predict"], strict=True):
        verdict = "" if predict / evaluator >= MIN_RATE else ", **missed**"
        lines.append(f"| {show(evaluator)} | {show(predict)} | {predict / evaluator:.3f}{verdict} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
