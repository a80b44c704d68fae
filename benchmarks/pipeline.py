"""How many pictures a second the pipeline delivers, against what its cores could do without it.

    python benchmarks/pipeline.py [--pictures 1500] [--size 224] [--repeats 5]

The kernel is reading, decoding, resizing and augmenting one picture after the other on one core. A perfect pipeline of
n workers would deliver n times that. Kernel and pipelines are measured in turn, several times, in seconds of the clock
and of the processor: the latter tell what the pipeline itself costs even on a machine that others are using. The start
of the worker processes is measured on its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import psutil

from imagetune.data.augmentation import build_augmenter
from imagetune.data.catalog import Record
from imagetune.data.decode import load_picture
from imagetune.data.pipeline import training_batches
from imagetune.data.processes import usable_cores
from imagetune.recipe.data import ImageSettings

BATCH = 32
SEED = 7
EPOCHS = 3
MAX_PIXELS = 10**8


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1500, help="JPEGs of 640 x 480 pixels to generate")
    parser.add_argument("--size", type=int, default=224, help="side of the model's input in pixels")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; the median is shown")
    parser.add_argument("--augmentation", default="medium", help="a preset")
    arguments = parser.parse_args()
    image = ImageSettings(height=arguments.size, width=arguments.size)
    with tempfile.TemporaryDirectory() as folder:
        records = write_pictures(Path(folder), arguments.pictures)
        measure(records, image, arguments.augmentation, arguments.repeats)


def write_pictures(folder: Path, count: int) -> list[Record]:
    """Write smooth pictures with some noise, about 80 kB each, as a camera's would be at this size."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(count):
        coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
        smooth = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        pixels = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        path = folder / f"{number:05}.jpg"
        cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
        records.append(Record(str(path), str(number % 10)))
    return records


@dataclass(frozen=True)
class Figure:
    """Pictures a second of the clock and of the processor (all processes together), and seconds to the first batch."""

    rate: float
    cpu_rate: float
    first_seconds: float


def measure(records: list[Record], image: ImageSettings, augmentation: str, repeats: int) -> None:
    """Run every measurement in turn and print the medians."""
    cores = usable_cores()
    tasks: dict[str, Callable[[], Figure]] = {
        "kernel: decode": partial(kernel, records, image, "none"),
        f"kernel: decode + {augmentation}": partial(kernel, records, image, augmentation),
    }
    for workers in sorted({0, 1, cores}):
        tasks[f"pipeline: {workers} workers"] = partial(pipeline, records, image, augmentation, workers)
    results: dict[str, list[Figure]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            results[name].append(task())
    print(
        f"{len(records)} JPEGs of 640 x 480 to {image.width} x {image.height}; {cores} cores; {repeats} rounds; ",
        end="",
    )
    print(f"load average {os.getloadavg()[0]:.1f}\n")
    print("| | pictures/s, median | least - most | of kernel x cores | per CPU second | of kernel's | first batch, s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    whole = results[f"kernel: decode + {augmentation}"]
    for name, found in results.items():
        rate, cpu_rate = (statistics.median(getattr(one, field) for one in found) for field in ("rate", "cpu_rate"))
        row = [f"{rate:,.0f}", f"{min(one.rate for one in found):,.0f} - {max(one.rate for one in found):,.0f}"]
        ideal = statistics.median(one.rate for one in whole) * cores
        row += [f"{rate / ideal:.0%}" if name.startswith("pipeline") else "", f"{cpu_rate:,.0f}"]
        row += [f"{cpu_rate / statistics.median(one.cpu_rate for one in whole):.0%}"]
        row += [f"{statistics.median(one.first_seconds for one in found):.1f}"]
        print(f"| {name} | {' | '.join(row)} |")


def cpu_seconds() -> float:
    """Return the processor time of this process and its children so far."""
    process = psutil.Process()
    times = [process.cpu_times(), *(child.cpu_times() for child in process.children())]
    return sum(used.user + used.system for used in times)


def kernel(records: list[Record], image: ImageSettings, augmentation: str) -> Figure:
    """Load and augment on one core."""
    augmenter = build_augmenter(augmentation, image)
    augmenter(load_picture(records[0].path, image, max_pixels=MAX_PIXELS), seed=(0, 0, 0))
    started, used = time.perf_counter(), cpu_seconds()
    for index, record in enumerate(records):
        augmenter(load_picture(record.path, image, max_pixels=MAX_PIXELS), seed=(SEED, 0, index))
    return Figure(len(records) / (time.perf_counter() - started), len(records) / (cpu_seconds() - used), 0.0)


def pipeline(records: list[Record], image: ImageSettings, augmentation: str, workers: int) -> Figure:
    """Take the batches of several epochs as fast as they come."""
    names = [str(number) for number in range(10)]
    started = time.perf_counter()
    with training_batches(
        records,
        names,
        image=image,
        augmentation=augmentation,
        batch_size=BATCH,
        seed=SEED,
        epochs=EPOCHS,
        workers=workers,
        max_pixels=MAX_PIXELS,
    ) as batches:
        next(batches)
        first = time.perf_counter() - started
        # What was buffered while the others started would flatter the rate.
        for _ in range(4 * max(1, workers)):
            next(batches)
        started, used, count = time.perf_counter(), cpu_seconds(), 0
        for _ in range(len(batches) - 2 - 4 * max(1, workers)):
            count += len(next(batches).labels)
        seconds, spent = time.perf_counter() - started, cpu_seconds() - used
    return Figure(count / seconds, count / spent, first)


if __name__ == "__main__":
    main()
