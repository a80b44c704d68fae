"""Timing of image loading: reading, decoding and each augmentation on one core, and the pipeline's throughput."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from imagetune.data.loading.augmentation import build_augmenter, resolve_augmentation
from imagetune.data.loading.decode import load_image, read_image_file
from imagetune.data.sources.records import Record

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from imagetune.data.loading.augmentation import Augmenter
    from imagetune.data.loading.pipeline import Batches
    from imagetune.recipe.sections.data import ImageSettings

    Image = npt.NDArray[np.uint8]

Item = TypeVar("Item")
Augmentation = str | Sequence[Mapping[str, Any]]

PASSES = 5
SAMPLE = 32
# Seconds to measure each step and each transform for, unless a single round takes longer.
PIECE_SECONDS = 0.6
TRANSFORM_SECONDS = 0.2


@dataclass(frozen=True)
class Timing:
    """Duration of a step in each of several rounds.

    Attributes:
        rounds: Seconds for one image, by round.
    """

    rounds: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """Median seconds for one image."""
        return statistics.median(self.rounds)

    @property
    def min_seconds(self) -> float:
        """Seconds for one image in the fastest round."""
        return min(self.rounds)

    @property
    def max_seconds(self) -> float:
        """Seconds for one image in the slowest round."""
        return max(self.rounds)

    @property
    def images_per_second(self) -> float:
        """Throughput in images per second, by the median."""
        return 1.0 / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class LoadingTimes:
    """Times of the steps of loading one image on one core.

    Attributes:
        read: Reading the file, which the operating system may have in memory already.
        decode: Decoding and resizing the file's bytes to an array of the model's input size.
        augment: All transforms together; None without augmentation.
        transforms: Name and time of each transform alone, in the recipe's order, with its probability of being skipped.
    """

    read: Timing
    decode: Timing
    augment: Timing | None
    transforms: tuple[tuple[str, Timing], ...]

    @property
    def seconds(self) -> float:
        """Seconds of all steps together."""
        return self.read.seconds + self.decode.seconds + self.augment_seconds

    @property
    def augment_seconds(self) -> float:
        """Seconds of augmentation; 0 without it."""
        return self.augment.seconds if self.augment else 0.0


@dataclass(frozen=True)
class PipelineTimes:
    """Start-up time and throughput of a pipeline whose consumer never makes it wait.

    Attributes:
        start_seconds: Seconds from its construction to the first batch.
        each: Time for one image after that.
    """

    start_seconds: float
    each: Timing


def time_loading(
    records: Sequence[Record], image: ImageSettings, augmentation: Augmentation, *, max_pixels: int
) -> LoadingTimes:
    """Return the times of reading, decoding and augmenting a sample of the images on one core.

    Args:
        records: The images, of which an evenly spaced sample is used.
        image: Size, resize method and background.
        augmentation: Augmentation as in the recipe.
        max_pixels: Larger images are refused.

    Raises:
        BadImageError: An image vanished or can't be decoded.
    """
    paths = [record.path for record in sample_evenly(records, SAMPLE)]
    whole = time_each(lambda path: load_image(path, image, max_pixels=max_pixels), paths)
    read = time_each(lambda path: read_image_file(path, max_pixels=max_pixels), paths)
    # Decoding is loading minus reading, so that the two add up to the whole.
    decode = Timing(tuple(max(seconds - read.seconds, 0.0) for seconds in whole.rounds))
    loaded = [load_image(path, image, max_pixels=max_pixels) for path in paths]
    return LoadingTimes(read, decode, *_time_augmentation(loaded, image, augmentation))


def measure_thread_throughput(
    records: Sequence[Record], image: ImageSettings, augmentation: Augmentation, *, max_pixels: int, threads: int
) -> float:
    """Return the throughput of loading and augmenting by threads of one process, in images per second.

    Args:
        records: Images to load, each once.
        image: Size, resize method and background.
        augmentation: Augmentation as in the recipe.
        max_pixels: Larger images are refused.
        threads: Number of threads.

    Raises:
        BadImageError: An image vanished or can't be decoded.
    """
    augmenter = build_augmenter(augmentation, image)

    def load(part: Sequence[tuple[int, Record]]) -> None:
        for index, record in part:
            augmenter(load_image(record.path, image, max_pixels=max_pixels), seed=(0, 0, index))

    numbered = list(enumerate(records))
    with ThreadPoolExecutor(threads) as pool:
        # The first image of each thread also builds its transforms, which would distort the measurement.
        list(pool.map(load, [numbered[:1]] * threads))
        began = time.perf_counter()
        list(pool.map(load, [numbered[first::threads] for first in range(threads)]))
        return len(numbered) / max(time.perf_counter() - began, 1e-9)


def time_pipeline(batches: Batches, *, buffered: int, seconds: float) -> PipelineTimes:
    """Return start-up time and throughput of a pipeline, by taking batches as fast as they come, and close it.

    Args:
        batches: A new pipeline with enough batches.
        buffered: Number of batches after the first that don't count, because they may be prefetched ones.
        seconds: How long to measure, at least until two more batches have come.

    Raises:
        BadImageError: An image vanished or can't be decoded.
        ResourceError: A worker process died.
    """
    began = time.perf_counter()
    with batches:
        next(batches)
        start = time.perf_counter() - began
        for _ in itertools.islice(batches, buffered):
            pass
        each: list[float] = []
        began = before = time.perf_counter()
        for batch in batches:
            now = time.perf_counter()
            each.append((now - before) / max(len(batch.indices), 1))
            before = now
            if now - began > seconds and len(each) > 1:
                break
    return PipelineTimes(start, Timing(_average_groups(each)))


def time_each(work: Callable[[Item], object], items: Sequence[Item], *, seconds: float = PIECE_SECONDS) -> Timing:
    """Return the time of ``work`` for one item, over several passes after a first call that doesn't count.

    Args:
        work: The function to time.
        items: At least one item; a pass that would take too long is shortened to the first ones.
        seconds: Time limit of all passes together.
    """
    work(items[0])
    means: list[float] = []
    used = list(items)
    for number in range(PASSES):
        began = time.perf_counter()
        done = 0
        for item in used:
            work(item)
            done += 1
            if number == 0 and time.perf_counter() - began > seconds / PASSES:
                break
        used = used[:done]
        means.append((time.perf_counter() - began) / done)
    return Timing(tuple(means))


def sample_evenly(records: Sequence[Record], count: int) -> list[Record]:
    """Return at most ``count`` evenly spaced records."""
    return [records[index * len(records) // count] for index in range(count)] if len(records) > count else list(records)


def format_transform_name(entry: Mapping[str, Any]) -> str:
    """Return a transform's name for display, with those of the inner transforms in parentheses."""
    ((name, arguments),) = entry.items()
    inner = (arguments or {}).get("transforms")
    if not inner:
        return str(name)
    return f"{name} ({', '.join(dict.fromkeys(format_transform_name(one) for one in inner))})"


def _time_augmentation(
    images: Sequence[Image], image: ImageSettings, augmentation: Augmentation
) -> tuple[Timing | None, tuple[tuple[str, Timing], ...]]:
    spec = resolve_augmentation(augmentation, (image.height, image.width))
    if not spec:
        return None, ()
    whole = _time_augmenter(build_augmenter(spec, image), images, PIECE_SECONDS)
    each = ((entry, build_augmenter((entry,), image)) for entry in spec)
    named = [(format_transform_name(entry), _time_augmenter(alone, images, TRANSFORM_SECONDS)) for entry, alone in each]
    return whole, tuple(named)


def _time_augmenter(augmenter: Augmenter, images: Sequence[Image], seconds: float) -> Timing:
    # Every call has a seed of its own, because the random parameters determine the time.
    seeds = itertools.count()
    return time_each(lambda image: augmenter(image, seed=(0, 0, next(seeds))), images, seconds=seconds)


def _average_groups(each: Iterable[float]) -> tuple[float, ...]:
    """Return the means of up to PASSES groups of batches, because single batches come in bursts."""
    values = list(each)
    count = min(PASSES, len(values))
    parts = [values[len(values) * part // count : len(values) * (part + 1) // count] for part in range(count)]
    return tuple(statistics.fmean(part) for part in parts)
