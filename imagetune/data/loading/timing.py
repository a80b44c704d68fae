"""How long loading an image takes, piece by piece, on one core; and how fast a pipeline delivers."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from imagetune.data.loading.augmentation import augmentation_transforms, build_augmenter
from imagetune.data.loading.decode import load_image, read_image_file
from imagetune.data.sources.records import Record

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from imagetune.data.loading.augmentation import Augmenter
    from imagetune.data.loading.pipeline import Batches
    from imagetune.recipe.data import ImageSettings

    Image = npt.NDArray[np.uint8]

Item = TypeVar("Item")
Augmentation = str | Sequence[Mapping[str, Any]]

PASSES = 5
SAMPLE = 32
# Seconds that each piece is measured for, unless a single round takes longer.
PIECE_SECONDS = 0.6
TRANSFORM_SECONDS = 0.2


@dataclass(frozen=True)
class Timing:
    """How long a piece of work took, in each of several rounds.

    Attributes:
        rounds: Seconds for one image.
    """

    rounds: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(self.rounds)

    @property
    def min_seconds(self) -> float:
        """The fastest round."""
        return min(self.rounds)

    @property
    def max_seconds(self) -> float:
        """The slowest round."""
        return max(self.rounds)

    @property
    def rate(self) -> float:
        """Images a second."""
        return 1.0 / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class LoadingTimes:
    """What one image costs on one core before it is in a batch.

    Attributes:
        read: Reading its file, which the system may hold in memory already.
        decode: From the file's bytes to an array of the model's size.
        augment: All transforms together; None without augmentation.
        transforms: Each transform alone, by name, in the recipe's order, its chance to be left out included.
    """

    read: Timing
    decode: Timing
    augment: Timing | None
    transforms: tuple[tuple[str, Timing], ...]

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.read.seconds + self.decode.seconds + self.augment_seconds

    @property
    def augment_seconds(self) -> float:
        """Augmenting; 0 without."""
        return self.augment.seconds if self.augment else 0.0


@dataclass(frozen=True)
class PipelineTimes:
    """How fast a pipeline delivers when nobody makes it wait.

    Attributes:
        start_seconds: From its making to its first batch.
        each: Seconds an image after that.
    """

    start_seconds: float
    each: Timing


def time_loading(
    records: Sequence[Record], image: ImageSettings, augmentation: Augmentation, *, max_pixels: int
) -> LoadingTimes:
    """Time the pieces of loading on some of the images, one after the other on one core.

    Args:
        records: The images; of many, some from everywhere among them are used.
        image: The size that they are brought to.
        augmentation: As in the recipe.
        max_pixels: Larger images are refused.

    Raises:
        BadImageError: An image vanished or can't be decoded.
    """
    paths = [record.path for record in spread_sample(records, SAMPLE)]
    whole = time_each(lambda path: load_image(path, image, max_pixels=max_pixels), paths)
    read = time_each(read_image_file, paths)
    # Decoding is what loading takes beyond reading, so that the two add up to it.
    decode = Timing(tuple(max(seconds - read.seconds, 0.0) for seconds in whole.rounds))
    loaded = [load_image(path, image, max_pixels=max_pixels) for path in paths]
    return LoadingTimes(read, decode, *_time_augmentation(loaded, image, augmentation))


def thread_rate(
    records: Sequence[Record], image: ImageSettings, augmentation: Augmentation, *, max_pixels: int, threads: int
) -> float:
    """Return how many images a second the threads of one process load and augment.

    Args:
        records: Images to load, each once.
        image: The size that they are brought to.
        augmentation: As in the recipe.
        max_pixels: Larger images are refused.
        threads: How many work at a time.

    Raises:
        BadImageError: An image vanished or can't be decoded.
    """
    augmenter = build_augmenter(augmentation, image)

    def load(part: Sequence[tuple[int, Record]]) -> None:
        for index, record in part:
            augmenter(load_image(record.path, image, max_pixels=max_pixels), seed=(0, 0, index))

    numbered = list(enumerate(records))
    with ThreadPoolExecutor(threads) as pool:
        # The first image of a thread also builds its transforms.
        list(pool.map(load, [numbered[:1]] * threads))
        began = time.perf_counter()
        list(pool.map(load, [numbered[first::threads] for first in range(threads)]))
        return len(numbered) / max(time.perf_counter() - began, 1e-9)


def time_pipeline(batches: Batches, *, buffered: int, seconds: float) -> PipelineTimes:
    """Take batches as fast as they come, and close the pipeline.

    Args:
        batches: Just made, with enough batches.
        buffered: Batches after the first that don't count, because they may have been made while others started.
        seconds: How long to go on, at least until two more batches have come.

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
    return PipelineTimes(start, Timing(_grouped(each)))


def time_each(work: Callable[[Item], object], items: Sequence[Item], *, seconds: float = PIECE_SECONDS) -> Timing:
    """Time ``work`` on one item, in several passes over the items after a first call that doesn't count.

    Args:
        work: What is timed.
        items: At least one; a pass that would take too long is shortened to the first of them.
        seconds: For all passes together.
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


def spread_sample(records: Sequence[Record], count: int) -> list[Record]:
    """Return at most ``count`` records from everywhere among ``records``."""
    return [records[index * len(records) // count] for index in range(count)] if len(records) > count else list(records)


def format_transform_name(entry: Mapping[str, Any]) -> str:
    """Return a transform's name as a reader would say it; of a choice, the names to choose from."""
    ((name, arguments),) = entry.items()
    inner = (arguments or {}).get("transforms")
    if not inner:
        return str(name)
    return f"{name} ({', '.join(dict.fromkeys(format_transform_name(one) for one in inner))})"


def _time_augmentation(
    images: Sequence[Image], image: ImageSettings, augmentation: Augmentation
) -> tuple[Timing | None, tuple[tuple[str, Timing], ...]]:
    spec = augmentation_transforms(augmentation, (image.height, image.width))
    if not spec:
        return None, ()
    whole = _time_augmenter(build_augmenter(spec, image), images, PIECE_SECONDS)
    each = ((entry, build_augmenter((entry,), image)) for entry in spec)
    named = [(format_transform_name(entry), _time_augmenter(alone, images, TRANSFORM_SECONDS)) for entry, alone in each]
    return whole, tuple(named)


def _time_augmenter(augmenter: Augmenter, images: Sequence[Image], seconds: float) -> Timing:
    # Every call has a seed of its own: what is drawn decides how long it takes.
    seeds = itertools.count()
    return time_each(lambda image: augmenter(image, seed=(0, 0, next(seeds))), images, seconds=seconds)


def _grouped(each: Iterable[float]) -> tuple[float, ...]:
    """Return the means of up to PASSES groups: single batches of a pipeline come in bursts."""
    values = list(each)
    count = min(PASSES, len(values))
    parts = [values[len(values) * part // count : len(values) * (part + 1) // count] for part in range(count)]
    return tuple(statistics.fmean(part) for part in parts)
