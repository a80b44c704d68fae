"""How many pictures a second the pipeline delivers, against what its cores could do without it.

    python benchmarks/pipeline.py [--pictures 1500] [--size 224] [--repeats 5]

The kernel is reading, decoding, resizing and augmenting one picture after the other on one core. A perfect pipeline of
n workers would deliver n times that. Kernel and pipelines are measured in turn, several times, so that a busy machine
slows all of them alike; the start of the worker processes is measured on its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

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


def measure(records: list[Record], image: ImageSettings, augmentation: str, repeats: int) -> None:
    """Run every measurement in turn and print the medians."""
    cores = usable_cores()
    tasks: dict[str, Callable[[], tuple[float, float]]] = {
        "kernel: decode": lambda: kernel(records, image, "none"),
        f"kernel: decode + {augmentation}": lambda: kernel(records, image, augmentation),
    }
    for workers in sorted({0, 1, cores}):
        tasks[f"pipeline: {workers} workers"] = lambda workers=workers: pipeline(records, image, augmentation, workers)
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            results[name].append(task())
    one = statistics.median(rate for rate, _ in results[f"kernel: decode + {augmentation}"])
    print(f"{len(records)} JPEGs of 640 x 480 to {image.width} x {image.height}; {cores} cores; {repeats} rounds;")
    print(f"load average {os.getloadavg()[0]:.1f}\n")
    print("| | pictures/s, median | least - most | of one-core kernel x cores | first batch after, s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, found in results.items():
        rates, starts = zip(*found, strict=True)
        median = statistics.median(rates)
        share = f"{median / (one * cores):.0%}" if name.startswith("pipeline") else ""
        spread = f"{min(rates):,.0f} - {max(rates):,.0f}"
        print(f"| {name} | {median:,.0f} | {spread} | {share} | {statistics.median(starts):.1f} |")


def kernel(records: list[Record], image: ImageSettings, augmentation: str) -> tuple[float, float]:
    """Return pictures per second of one core, and 0."""
    augmenter = build_augmenter(augmentation, image)
    augmenter(load_picture(records[0].path, image, max_pixels=MAX_PIXELS), seed=(0, 0, 0))
    started = time.perf_counter()
    for index, record in enumerate(records):
        augmenter(load_picture(record.path, image, max_pixels=MAX_PIXELS), seed=(SEED, 0, index))
    return len(records) / (time.perf_counter() - started), 0.0


def pipeline(records: list[Record], image: ImageSettings, augmentation: str, workers: int) -> tuple[float, float]:
    """Return pictures per second after the first batches, and the seconds until the first batch was there."""
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
        started = time.perf_counter()
        count = sum(len(batch.labels) for batch in batches)
    return count / (time.perf_counter() - started), first


if __name__ == "__main__":
    main()
