"""Growth of time and memory: a million rows, many epochs, many trials, many images.

    python -m benchmarks.scale [--rows 1000000] [--epochs 200] [--trials 100] [--records 100000] [--out METRICS.json]

Each part is left out with 0. Every measurement is a process of its own.

- Rows: a CSV of path and label with 1,000 classes; `read_catalog`, `split_catalog` and the positions of the labels. The
  images aren't there: the audit between catalog and split is given image statistics made from the paths; the seconds
  leave their making out, the peak memory includes them.
- Epochs: `imagetune fit` of a head on 48 images of 32 pixels, watched from outside: the memory of the process and its
  workers after epoch 10 and after the last one, with the caches and without.
- Trials: `imagetune search` over the learning rate of a head, one epoch a trial: the memory of its main process after
  trial 5 and after the last one. Trials' own processes end with them.
- Images: batches of 64-pixel images from 1,000 files, listed once and listed so often that there are 100,000
  records. Both deliver equally many batches; the seconds until the first one are apart.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from benchmarks.side_by_side import machine_line, run_process, save_json, show
from imagetune.data.audit.audit import Audit, ImageStatistics
from imagetune.data.sources.read import read_catalog
from imagetune.data.sources.records import Record
from imagetune.data.splits.splits import split_catalog
from imagetune.recipe.sections.data import DataConfig, ImageSettings

COMMAND = [sys.executable, "-m", "imagetune"]
MIB = 2**20
RECIPE = """\
name: scale
seed: 7
data: {source: images, image_size: 32, workers: 0}
model: {backbone: mobilenet_v3_small, weights: random}
train:
  batch_size: 32
  early_stopping: {patience: null}
  stages:
    - {name: head, unfreeze: none, epochs: 1, learning_rate: 1e-3}
evaluate: {bootstrap_samples: 100}
tracking: {enabled: false}
"""
_FIRST_EPOCH, _FIRST_TRIAL = 10, 5
_BATCH, _BATCHES = 32, 120
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class RowsMetrics:
    """Seconds of catalog, split and label map; the most memory of the process, that of Python with imports."""

    rows: int
    catalog_seconds: float
    split_seconds: float
    labels_seconds: float
    peak_mib: float
    start_mib: float


@dataclass(frozen=True)
class GrowthMetrics:
    """Memory at an early and at the last mark."""

    name: str
    first: int
    last: int
    first_mib: float
    last_mib: float
    seconds: float


@dataclass(frozen=True)
class RecordsMetrics:
    """Images a second, and seconds to the first batch."""

    records: int
    rate: float
    first_seconds: float


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the images part")
    parser.add_argument("--out", type=Path, help="also write the measurements to this file")
    parser.add_argument("--part", choices=("rows", "records"), help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part == "rows":
        print(json.dumps(asdict(measure_rows(arguments.place, arguments.rows))))
    elif arguments.part == "records":
        print(json.dumps(asdict(measure_records(arguments.place, arguments.records))))
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), arguments)


def measure(place: Path, arguments: argparse.Namespace) -> None:
    """Run the parts that are wanted."""
    from benchmarks.sets import write_jpegs

    print(machine_line())
    metrics: dict[str, object] = {}
    if arguments.rows:
        rows = RowsMetrics(**_part("rows", place, rows=arguments.rows))
        print(f"\n{rows_table(rows)}")
        metrics["rows"] = asdict(rows)
    growths = []
    if arguments.epochs or arguments.trials:
        write_jpegs(place / "images", classes=3, count=48, size=(48, 64))
    if arguments.epochs:
        growths += [watch_fit(place, arguments.epochs, caches=caches) for caches in (True, False)]
    if arguments.trials:
        growths.append(watch_search(place, arguments.trials))
    if growths:
        print(f"\n{growth_table(growths)}")
        metrics["growth"] = [asdict(one) for one in growths]
    if arguments.records:
        write_jpegs(place / "many", classes=10, count=1000, size=(240, 320))
        found = [
            RecordsMetrics(**_part("records", place, records=count))
            for _ in range(arguments.rounds)
            for count in (1000, arguments.records)
        ]
        print(f"\n{records_table(found)}")
        metrics["records"] = [asdict(one) for one in found]
    save_json(arguments.out, metrics)


def measure_rows(place: Path, count: int) -> RowsMetrics:
    """Read, split and number a table of so many rows."""
    table = place / "rows.csv"
    with table.open("w", encoding="utf-8") as file:
        file.write("path,label\n")
        file.writelines(f"{row % 997:03}/image_{row:07}.jpg,class_{row * 7919 % 1000:04}\n" for row in range(count))
    config = DataConfig(source=str(table))
    start = _peak_mib()
    began = time.perf_counter()
    catalog = read_catalog(config)
    catalog_seconds = time.perf_counter() - began
    digests = (hashlib.sha256(record.path.encode()).hexdigest() for record in catalog.records)
    statistics = tuple(
        ImageStatistics(record.path, digest, 1, 1, 1, None, None)
        for record, digest in zip(catalog.records, digests, strict=True)
    )
    audit = Audit(statistics, (), tuple(range(len(statistics))))
    began = time.perf_counter()
    splits = split_catalog(catalog, audit, config, seed=7)
    split_seconds = time.perf_counter() - began
    began = time.perf_counter()
    place_of = {name: index for index, name in enumerate(splits.class_names)}
    labels = [place_of[record.label] for side in (splits.train, splits.val) for record in side]
    labels_seconds = time.perf_counter() - began
    if len(labels) + splits.test_count != count:
        raise SystemExit("rows were lost")
    return RowsMetrics(count, catalog_seconds, split_seconds, labels_seconds, _peak_mib(), start)


def measure_records(place: Path, count: int) -> RecordsMetrics:
    """Take so many batches from ``count`` records as fast as they come."""
    # Imported here, so that it doesn't count among the memory of a million rows.
    from imagetune.data.loading.pipeline import load_training_batches

    files = sorted((place / "many").rglob("*.jpg"))
    records = [Record(str(files[at % len(files)]), files[at % len(files)].parent.name) for at in range(count)]
    names = sorted({record.label for record in records})
    began = time.perf_counter()
    epochs = -(-_BATCHES * _BATCH // count) + 1
    with load_training_batches(
        records,
        names,
        image=ImageSettings(height=64, width=64),
        augmentation="light",
        batch_size=_BATCH,
        seed=7,
        epochs=epochs,
        workers=0,
        max_pixels=10**8,
    ) as batches:
        next(batches)
        first = time.perf_counter() - began
        for _ in islice(batches, 8):  # what was made in advance
            pass
        began = time.perf_counter()
        images = sum(len(batch.images) for batch in islice(batches, _BATCHES - 9))
        return RecordsMetrics(count, images / (time.perf_counter() - began), first)


def watch_fit(place: Path, epochs: int, *, caches: bool) -> GrowthMetrics:
    """Fit for so many epochs and note the memory of the process."""
    name = f"fit, caches {'as by default' if caches else 'off'}: epochs"
    recipe = RECIPE.replace("epochs: 1,", f"epochs: {epochs},")
    if not caches:
        recipe = recipe.replace("workers: 0}", "workers: 0, cache: off}").replace("train:\n", "train:\n  cache: off\n")
    (place / "fit.yaml").write_text(recipe, encoding="utf-8")
    run = place / f"fit-{caches}"
    return watch(
        name, [*COMMAND, "fit", "fit.yaml", "--run-dir", str(run)], place, run / "metrics.jsonl", _FIRST_EPOCH, epochs
    )


def watch_search(place: Path, trials: int) -> GrowthMetrics:
    """Search with so many trials and note the memory of the main process."""
    space = "{search: log_uniform, low: 1e-4, high: 1e-2}"
    recipe = RECIPE.replace("learning_rate: 1e-3", f"learning_rate: {space}")
    recipe += f"search: {{algorithm: random, trials: {trials}, finalists: 0}}\n"
    (place / "search.yaml").write_text(recipe, encoding="utf-8")
    run = place / "search"
    command = [*COMMAND, "search", "search.yaml", "--run-dir", str(run)]
    table, first = run / "search.csv", min(_FIRST_TRIAL, trials)
    return watch("search, main process: trials", command, place, table, first, trials, headings=1, alone=True)


def watch(
    name: str,
    command: list[str],
    place: Path,
    lines_of: Path,
    first: int,
    last: int,
    *,
    headings: int = 0,
    alone: bool = False,
) -> GrowthMetrics:
    """Run a command and note its memory when a file that it writes has ``first`` and ``last`` lines.

    Args:
        name: What is watched.
        command: To run.
        place: Its working folder, in which it also has its cache.
        lines_of: The file.
        first: Lines at the early mark.
        last: Lines at the late mark.
        headings: Lines of the file that don't count.
        alone: Leave out the processes that it starts.

    Raises:
        SystemExit: The command failed.
    """
    env = {**os.environ, "IMAGETUNE_CACHE": str(place / "cache")}
    began = time.perf_counter()
    marks: dict[int, float] = {}
    with (place / "said.txt").open("w+", encoding="utf-8") as said:
        process = subprocess.Popen(command, cwd=place, env=env, stdout=said, stderr=said)
        while process.poll() is None:
            done = _lines(lines_of) - headings
            for mark in (first, last):
                if done >= mark and mark not in marks:
                    marks[mark] = _memory_mib(process.pid, alone=alone)
            time.sleep(_LOOK_SECONDS)
        if process.returncode or set(marks) != {first, last}:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{said.read()[-2000:]}")
    return GrowthMetrics(name, first, last, marks[first], marks[last], time.perf_counter() - began)


def rows_table(rows: RowsMetrics) -> str:
    """Return the table of the million rows."""
    total = rows.catalog_seconds + rows.split_seconds + rows.labels_seconds
    return "\n".join(
        [
            "| rows | catalog, s | split, s | label map, s | together, s | peak memory, MiB | at the start, MiB |",
            "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            f"| {rows.rows:,} | {show(rows.catalog_seconds)} | {show(rows.split_seconds)} | "
            f"{show(rows.labels_seconds)} | {show(total)} | {show(rows.peak_mib)} | {show(rows.start_mib)} |",
        ]
    )


def growth_table(growths: list[GrowthMetrics]) -> str:
    """Return the table of the memory."""
    lines = [
        "| what | early | MiB | late | MiB | MiB more each | s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in growths:
        slope = (one.last_mib - one.first_mib) / max(one.last - one.first, 1)
        cells = [
            one.name,
            one.first,
            show(one.first_mib),
            one.last,
            show(one.last_mib),
            f"{slope:+.2f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} | {show(one.seconds)} |")
    return "\n".join(lines)


def records_table(found: list[RecordsMetrics]) -> str:
    """Return the table of the loading rates, a row a number of records."""
    lines = ["| records | images/s, best | all rounds | first batch, s |", "| ---: | ---: | --- | ---: |"]
    for count in dict.fromkeys(one.records for one in found):
        rates = [one.rate for one in found if one.records == count]
        first = min(one.first_seconds for one in found if one.records == count)
        lines.append(f"| {count:,} | {show(max(rates))} | {', '.join(map(show, rates))} | {show(first)} |")
    return "\n".join(lines)


def _part(part: str, place: Path, **numbers: int) -> dict[str, Any]:
    words = [word for name, number in numbers.items() for word in (f"--{name}", str(number))]
    command = [sys.executable, "-m", "benchmarks.scale", "--part", part, "--place", str(place), *words]
    found: dict[str, Any] = json.loads(run_process(command).output)
    return found


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _memory_mib(pid: int, *, alone: bool) -> float:
    process = psutil.Process(pid)
    processes = [process] if alone else [process, *process.children(recursive=True)]
    return float(sum(one.memory_info().rss for one in processes) / MIB)


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


if __name__ == "__main__":
    main()
