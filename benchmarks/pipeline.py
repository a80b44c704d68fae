"""Speed of the loading pipeline in augmented images a second, against its own parts on one core and against tf.data.

    python -m benchmarks.pipeline [--rounds 4] [--seconds 2.5] [--size 224] [--sets 640x480 4000x3000] [--json OUT]

The kernel is reading, decoding, resizing and augmenting one image after the other on one core; from the second epoch
on, when decoded images come from the cache, it is augmenting alone. A perfect pipeline delivers cores times that.
The peer is tf.data as most would write it: `decode_jpeg`, `resize_with_pad` and albumentations through
`numpy_function`, mapped in parallel, batched and prefetched, everything that can be on AUTOTUNE. All sides make
images of the same size with the same augmentation, and work in turn; the start of processes doesn't count.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.sets import write_jpegs
from benchmarks.side_by_side import (
    Comparison,
    Spread,
    machine_line,
    markdown_table,
    measure_in_turn,
    save_json,
    show,
)
from imagetune.core.processes import count_usable_cores
from imagetune.data.loading.augmentation import PRESETS, build_augmenter
from imagetune.data.loading.decode import load_image
from imagetune.data.loading.image_cache import ImageCache, open_image_cache
from imagetune.data.loading.pipeline import Batches, load_evaluation_batches, load_training_batches
from imagetune.data.sources.records import Record
from imagetune.recipe.sections.data import DataConfig, ImageSettings

CLASSES = 10
SEED = 7
MAX_PIXELS = 10**8
ENDLESS = 10**6
EPOCHS = 10
COUNTS = {"640x480": 1000, "4000x3000": 60}
BATCHES = {"640x480": 32, "4000x3000": 8}
REQUIRED_RATIOS = {"640x480": 4.0, "4000x3000": 10.0}
START_AHEAD_SECONDS = 8.0

DECODE, AUGMENT, PEER = "kernel, one core: decode and augment", "kernel, one core: augment", "tf.data, albumentations"


@dataclass(frozen=True)
class Work:
    """What every side does: these images, of this size, with this augmentation, for so long."""

    records: tuple[Record, ...]
    image: ImageSettings
    augmentation: str
    batch: int
    seconds: float

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels."""
        return tuple(sorted({record.label for record in self.records}))


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4, help="the median is shown")
    parser.add_argument("--seconds", type=float, default=2.5, help="that each side works in a round")
    parser.add_argument("--size", type=int, default=224, help="side of the model's input in pixels")
    parser.add_argument("--augmentation", default="medium", help="a preset of plain transforms")
    parser.add_argument("--sets", nargs="+", choices=COUNTS, default=list(COUNTS), help="size of the JPEGs")
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    arguments = parser.parse_args()
    image = ImageSettings(height=arguments.size, width=arguments.size)
    found: dict[str, Any] = {}
    print(f"{machine_line()}\n")
    for name in arguments.sets:
        with tempfile.TemporaryDirectory() as folder:
            width, height = (int(side) for side in name.split("x"))
            images = Path(folder, "images")
            records = write_jpegs(images, classes=CLASSES, count=COUNTS[name], size=(height, width))
            work = Work(tuple(records), image, arguments.augmentation, BATCHES[name], arguments.seconds)
            comparison = measure_in_turn(
                build_sides(work, Path(folder, "cache")),
                rounds=arguments.rounds,
                unit="images/s",
                lower_is_better=False,
            )
            size = f"{arguments.size} x {arguments.size}, augmentation {arguments.augmentation}"
            print(f"## {COUNTS[name]} JPEGs of {name} to {size}\n\n{markdown_table(comparison, base=PEER)}\n")
            print(ratio_table(comparison, REQUIRED_RATIOS[name]))
            found[name] = comparison.as_json(PEER)
            if name == "640x480":
                print(f"\n{start_table(work, arguments.rounds)}")
    save_json(arguments.json, found)


def build_sides(work: Work, cache_root: Path) -> dict[str, Callable[[], float]]:
    """Return what is measured, each by its name."""
    cache = fill_cache(work, cache_root)
    sides: dict[str, Callable[[], float]] = {
        DECODE: partial(kernel, work),
        AUGMENT: partial(augment_kernel, work),
    }
    for workers in (0, count_usable_cores()):
        sides[name_first_epoch(workers)] = partial(pipeline, work, workers, None)
        sides[name_later_epochs(workers)] = partial(pipeline, work, workers, cache)
    sides[PEER] = partial(peer, work)
    return sides


def name_first_epoch(workers: int) -> str:
    """Return the name of the pipeline's first epoch."""
    return f"first epoch, {_feeders(workers)}"


def name_later_epochs(workers: int) -> str:
    """Return the name of the pipeline's later epochs."""
    return f"later epochs, {_feeders(workers)}"


def _feeders(workers: int) -> str:
    return f"{workers} processes" if workers else "threads"


def fill_cache(work: Work, root: Path) -> ImageCache:
    """Return a cache on disk that holds all images."""
    size = (work.image.height, work.image.width)
    config = DataConfig.model_validate({"source": "generated", "image_size": size, "cache": "disk"})
    hashes = {one.path: hashlib.sha256(Path(one.path).read_bytes()).hexdigest() for one in work.records}
    cache = open_image_cache(config, hashes, root=root)
    with load_evaluation_batches(
        work.records,
        work.class_names,
        image=work.image,
        batch_size=work.batch,
        workers=0,
        max_pixels=MAX_PIXELS,
        cache=cache,
    ) as batches:
        for _ in batches:
            pass
    if cache.rows is None or not cache.rows.there().all():
        raise SystemExit(f"the cache could not be filled: {cache.reason}")
    return cache


def kernel(work: Work) -> float:
    """Load and augment on one core."""
    augmenter = build_augmenter(work.augmentation, work.image)

    def one(index: int) -> int:
        path = work.records[index % len(work.records)].path
        augmenter(load_image(path, work.image, max_pixels=MAX_PIXELS), seed=(SEED, 0, index))
        return 1

    one(0)
    return rate(map(one, itertools.count()), work.seconds)


def augment_kernel(work: Work) -> float:
    """Augment decoded images on one core."""
    augmenter = build_augmenter(work.augmentation, work.image)
    some = [load_image(record.path, work.image, max_pixels=MAX_PIXELS) for record in work.records[:40]]

    def one(index: int) -> int:
        augmenter(some[index % len(some)], seed=(SEED, 0, index))
        return 1

    one(0)
    return rate(map(one, itertools.count()), work.seconds)


def pipeline(work: Work, workers: int, cache: ImageCache | None) -> float:
    """Take batches as fast as they come."""
    with opened(work, workers, cache) as batches:
        next(batches)
        # What was buffered while the others started would flatter the rate.
        for _ in itertools.islice(batches, 4 * max(1, workers)):
            pass
        return rate((len(batch.labels) for batch in batches), work.seconds)


def opened(work: Work, workers: int, cache: ImageCache | None) -> Batches:
    """Return the pipeline's batches of very many epochs."""
    return load_training_batches(
        work.records,
        work.class_names,
        image=work.image,
        augmentation=work.augmentation,
        batch_size=work.batch,
        seed=SEED,
        epochs=ENDLESS,
        workers=workers,
        max_pixels=MAX_PIXELS,
        cache=cache,
    )


def peer(work: Work) -> float:
    """Take tf.data's batches as fast as they come."""
    batches = peer_batches(work)
    for _ in itertools.islice(batches, 4):
        pass
    return rate((len(labels) for _, labels in batches), work.seconds)


def peer_batches(work: Work) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Return the batches of a tf.data pipeline that augments with albumentations."""
    import albumentations
    import tensorflow as tf

    def transform(entry: Any) -> Any:
        ((name, options),) = entry.items()
        fill = {"fill": work.image.background} if name == "Affine" else {}
        return getattr(albumentations, name)(**(options or {}), **fill)

    composition = albumentations.Compose([transform(entry) for entry in PRESETS[work.augmentation]])
    shape = (work.image.height, work.image.width, 3)

    def load(path: Any, label: Any) -> Any:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        image = tf.image.resize_with_pad(image, *shape[:2])
        return tf.cast(tf.round(image), tf.uint8), label

    def augment(image: Any, label: Any) -> Any:
        changed = tf.numpy_function(lambda pixels: composition(image=pixels)["image"], [image], tf.uint8)
        return tf.ensure_shape(changed, shape), label

    labels = [work.class_names.index(record.label) for record in work.records]
    dataset = tf.data.Dataset.from_tensor_slices(([record.path for record in work.records], labels))
    dataset = dataset.shuffle(len(labels), seed=SEED).repeat()
    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    found: Iterator[Any] = dataset.batch(work.batch).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()
    return found


def rate(counts: Iterable[int], seconds: float) -> float:
    """Return how many of what is counted come in a second, measured for ``seconds``."""
    started, done = time.perf_counter(), 0
    for count in counts:
        done += count
        if time.perf_counter() - started >= seconds:
            break
    return done / (time.perf_counter() - started)


def ratio_table(comparison: Comparison, required_peer: float) -> str:
    """Return the ratios with their required values, of the faster of threads and processes."""
    cores = count_usable_cores()
    feeders = max((0, cores), key=lambda workers: comparison.spread(name_later_epochs(workers)).median)
    fast = max((0, cores), key=lambda workers: comparison.spread(name_first_epoch(workers)).median)
    metrics = comparison.metrics
    overall = [
        EPOCHS / (1 / first + (EPOCHS - 1) / later)
        for first, later in zip(metrics[name_first_epoch(fast)], metrics[name_later_epochs(feeders)], strict=True)
    ]
    whole = Comparison({PEER: metrics[PEER], "ours": overall}, comparison.unit, lower_is_better=False)
    lines = [
        ("first epoch of kernel x cores", comparison.ratio(name_first_epoch(fast), DECODE), cores, 0.9),
        ("later epochs of augmenting x cores", comparison.ratio(name_later_epochs(feeders), AUGMENT), cores, 0.9),
        ("first epoch of tf.data", comparison.ratio(name_first_epoch(fast), PEER), 1, None),
        ("later epochs of tf.data", comparison.ratio(name_later_epochs(feeders), PEER), 1, None),
        (f"{EPOCHS} epochs of tf.data", whole.ratio("ours", PEER), 1, required_peer),
    ]
    rows = [_ratio_row(name, ratio, divisor, required) for name, ratio, divisor, required in lines]
    return "\n".join(["| ratio | median | in each round | required |", "| --- | ---: | ---: | ---: |", *rows])


def _ratio_row(name: str, ratio: Spread, divisor: int, required: float | None) -> str:
    each = f"{show(ratio.least / divisor)} to {show(ratio.most / divisor)}"
    return f"| {name} | {show(ratio.median / divisor)} | {each} | {'' if required is None else f'{required:g}'} |"


def start_table(work: Work, rounds: int) -> str:
    """Return how long the first batch is waited for, asked for at once and when the model was built meanwhile."""
    sides: dict[str, Callable[[], float]] = {}
    for ahead in (0.0, START_AHEAD_SECONDS):
        name = f"opened {ahead:g} s before" if ahead else "asked for at once"
        sides[name] = partial(wait_for_first, work, count_usable_cores(), ahead)
    waits = measure_in_turn(sides, rounds=min(rounds, 3), unit="s to the first batch")
    return markdown_table(waits, base="asked for at once")


def wait_for_first(work: Work, workers: int, ahead: float) -> float:
    """Return how long the first batch is waited for, if the batches were opened some seconds before."""
    with opened(work, workers, None) as batches:
        time.sleep(ahead)
        started = time.perf_counter()
        next(batches)
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
