"""Input pipeline: batches for training and evaluation, loaded by Grain's worker processes or by threads.

Each element of Grain's dataset is a whole batch. Element ``step`` belongs to epoch ``step // steps_per_epoch``; the
order of an epoch depends on (seed, epoch), the augmentation of an image on (seed, epoch, index). So pixels and order
don't depend on the number of workers, loading can start at any step, and the last batch of an epoch may be smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import absl.flags
import grain
import numpy as np
from grain.experimental import DatasetOptions, WithOptionsIterDataset

from imagetune.core.processes import count_usable_cores, keep_freed_memory, prepare_worker
from imagetune.data.loading.augmentation import Augmenter, build_augmenter
from imagetune.data.loading.file_loader import FileLoader, load_each
from imagetune.data.loading.image_cache import ImageCache, ImageSource, build_image_source
from imagetune.data.loading.watched_iterator import WatchedIterator
from imagetune.data.sources.records import Record
from imagetune.errors import BadImageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from imagetune.recipe.sections.data import ImageSettings

Workers = int | Literal["auto"]

# Seconds of one core to decode, augment or copy an image at 224 pixels, and the amount of work up to which the main
# process loads alone: starting processes takes about three seconds.
DECODE_SECONDS, AUGMENT_SECONDS, COPY_SECONDS = 1.2e-3, 0.8e-3, 0.05e-3
ALONE_SECONDS = 8.0
_MAX_WORKERS = 32
_BUFFERED_BATCHES = 2
# Batches are returned through pipes. Shared memory is a little faster, but a container has only 64 MB of it, and one
# batch too many there ends in a bus error.
_NO_SHARED_MEMORY = DatasetOptions(min_shm_size=1 << 62)


@dataclass(frozen=True)
class Batch:
    """A batch of images with their labels.

    Attributes:
        images: ``(b, height, width, 3)`` uint8 RGB.
        labels: ``(b,)`` int32, index into the class names, -1 for an unknown label.
        indices: ``(b,)`` int64, positions among the records.
        errors: ``(index, message)`` of images that could not be loaded and are missing from the batch; empty but for
            `load_unlabelled_batches`.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    indices: npt.NDArray[np.int64]
    errors: tuple[tuple[int, str], ...] = ()


class Batches:
    """Iterator of batches that stops its workers at the end, at an error, and when its ``with`` block ends."""

    def __init__(self, dataset: grain.IterDataset[Any], count: int, *, keep_going: bool, workers: int = 0) -> None:
        self._elements = WatchedIterator(iter(dataset), workers=workers)
        self._count = count
        self._keep_going = keep_going

    def __len__(self) -> int:
        """Return the number of batches from the start step to the end."""
        return self._count

    def __iter__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __next__(self) -> Batch:
        """Return the next batch.

        Raises:
            BadImageError: An image can't be loaded; ``where`` is its path.
            ResourceError: A worker process died.
        """
        try:
            loaded = next(self._elements)
        except Exception:
            # Not after Ctrl-C, which a caller may answer by asking again.
            self.close()
            raise
        if loaded["errors"] and not self._keep_going:
            self.close()
            _, where, what, hint = loaded["errors"][0]
            raise BadImageError(what, where=where, hint=hint)
        errors = tuple((index, what) for index, _, what, _ in loaded["errors"])
        return Batch(loaded["images"], loaded["labels"], loaded["indices"], errors)

    def close(self) -> None:
        """Stop the workers; a second call does nothing."""
        self._elements.close()


def load_training_batches(  # noqa: PLR0913 - the values of a recipe, each by its name
    records: Sequence[Record],
    class_names: Sequence[str],
    *,
    image: ImageSettings,
    augmentation: str | Sequence[Mapping[str, Any]],
    batch_size: int,
    seed: int,
    epochs: int,
    workers: Workers,
    max_pixels: int,
    start_step: int = 0,
    chances: npt.NDArray[np.float64] | None = None,
    cache: ImageCache | None = None,
) -> Batches:
    """Return the shuffled, augmented batches of consecutive epochs; loading starts at once.

    Args:
        records: The training split.
        class_names: The classes in the order of the model's outputs.
        image: Size, resize method and background.
        augmentation: Augmentation as in the recipe; see `augmentation_problems`.
        batch_size: Images in a batch; the last one of each epoch may have fewer.
        seed: Non-negative seed of the order and of every augmentation.
        epochs: Number of epochs.
        workers: Number of worker processes; 0 loads in threads; ``auto`` decides by the amount of work.
        max_pixels: Larger images are refused.
        start_step: The first step, counted from 0 over all epochs; from there on, batches equal those of a whole run.
        chances: ``(n,)`` sampling probabilities, summing to 1: an image may then occur several times in an epoch,
            differently augmented, or not at all. By default each occurs once.
        cache: Cache of decoded images of this size; missing ones are added. Pixels are the same without it.
    """
    source = build_image_source([record.path for record in records], image, max_pixels=max_pixels, cache=cache)
    steps = range(start_step, compute_steps_per_epoch(len(records), batch_size) * epochs)
    work = estimate_loading_seconds(source, len(steps) * batch_size, augmented=True)
    count = _choose_workers(workers, work_seconds=work, cores=count_usable_cores())
    augmenter = build_augmenter(augmentation, image)
    loader = _BatchLoader(
        source.for_processes() if count else source,
        find_label_positions(records, class_names),
        batch_size,
        seed,
        augmenter,
        chances,
    )
    return _build_batches(loader, steps, count, keep_going=False)


def load_evaluation_batches(
    records: Sequence[Record],
    class_names: Sequence[str],
    *,
    image: ImageSettings,
    batch_size: int,
    workers: Workers,
    max_pixels: int,
    cache: ImageCache | None = None,
) -> Batches:
    """Return the batches of one pass over the records in their order, without augmentation.

    Args:
        records: Any split; a label that is not a class name becomes -1.
        class_names: The classes in the order of the model's outputs.
        image: Size, resize method and background.
        batch_size: Images in a batch.
        workers: As for `load_training_batches`, but none are started where starting takes longer than the work.
        max_pixels: Larger images are refused.
        cache: As for `load_training_batches`.
    """
    source = build_image_source([record.path for record in records], image, max_pixels=max_pixels, cache=cache)
    work = estimate_loading_seconds(source, len(records), augmented=False)
    count = 0 if work < ALONE_SECONDS else _choose_workers(workers, work_seconds=work, cores=count_usable_cores())
    loader = _BatchLoader(
        source.for_processes() if count else source, find_label_positions(records, class_names), batch_size, 0, None
    )
    return _build_batches(loader, range(compute_steps_per_epoch(len(records), batch_size)), count, keep_going=False)


def load_unlabelled_batches(
    paths: Sequence[str], *, image: ImageSettings, batch_size: int, max_pixels: int, start_step: int = 0
) -> Batches:
    """Return the batches of one pass over files in their order; memory does not grow with their number.

    Images that can't be loaded are left out of their batch and listed in ``errors``; a batch may then be empty.

    Args:
        paths: The files; a slice of them is read at a time, and worker processes get a copy.
        image: Size, resize method and background.
        batch_size: Images in a batch.
        max_pixels: Larger images are refused.
        start_step: The first batch, counted from 0.
    """
    steps = range(start_step, compute_steps_per_epoch(len(paths), batch_size))
    work = len(steps) * batch_size * (DECODE_SECONDS + COPY_SECONDS)
    count = _choose_workers("auto", work_seconds=work, cores=count_usable_cores())
    return _build_batches(FileLoader(paths, image, max_pixels, batch_size), steps, count, keep_going=True)


def compute_steps_per_epoch(count: int, batch_size: int) -> int:
    """Return the number of batches of ``count`` images, the last of which may be smaller."""
    return -(-count // batch_size)


class _BatchLoader:
    """Loader of the batch of a step; it is pickled for the workers, so it contains only what they need."""

    def __init__(
        self,
        source: ImageSource,
        labels: npt.NDArray[np.int32],
        batch_size: int,
        seed: int,
        augmenter: Augmenter | None,
        chances: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self._source = source
        self._labels = labels
        self._batch_size = batch_size
        self._seed = seed
        self._augmenter = augmenter
        self._chances = chances
        self._last_order: tuple[int, npt.NDArray[np.int64]] | None = None

    def __call__(self, step: int) -> dict[str, Any]:
        epoch, batch = divmod(int(step), compute_steps_per_epoch(len(self._labels), self._batch_size))
        part = slice(batch * self._batch_size, (batch + 1) * self._batch_size)
        order = self._get_order(epoch)
        wanted = order[part]

        def load(place: int) -> npt.NDArray[np.uint8]:
            index = int(wanted[place])
            # Resampled images are seeded by their place, so that copies of one image are augmented differently.
            return self._load(index, epoch, index if self._chances is None else len(order) + part.start + place)

        loaded = load_each(wanted.tolist(), load, self._source.image)
        return loaded | {"labels": self._labels[loaded["indices"]]}

    def _get_order(self, epoch: int) -> npt.NDArray[np.int64]:
        if self._augmenter is None:
            return np.arange(len(self._labels), dtype=np.int64)
        last = self._last_order
        if last is None or last[0] != epoch:
            last = (epoch, compute_epoch_order(len(self._labels), self._seed, epoch, self._chances))
            self._last_order = last
        return last[1]

    def _load(self, index: int, epoch: int, number: int) -> npt.NDArray[np.uint8]:
        image = self._source.load(index)
        return image if self._augmenter is None else self._augmenter(image, seed=(self._seed, epoch, number))


def find_label_positions(records: Sequence[Record], class_names: Sequence[str]) -> npt.NDArray[np.int32]:
    """Return the class index of each record's label as ``(n,)`` int32, -1 for a label that is not a class name."""
    positions = {name: position for position, name in enumerate(class_names)}
    return np.array([positions.get(record.label, -1) for record in records], np.int32)


def compute_epoch_order(
    count: int, seed: int, epoch: int, chances: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.int64]:
    """Return the positions of an epoch's images in their order, ``(count,)`` int64.

    Args:
        count: Number of images.
        seed: Seed of the run.
        epoch: The epoch, counted from 0.
        chances: As for `load_training_batches`.
    """
    if chances is not None:
        return _draw_positions(chances, seed, epoch)
    # PCG64 by name, because NumPy may let default_rng stand for another generator, and every order would change.
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch)))).permutation(count)


def _draw_positions(chances: npt.NDArray[np.float64], seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the positions of one epoch drawn with given probabilities.

    Systematic sampling: each image occurs as often as expected, rounded up or down, unlike with independent draws.
    """
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch))))
    count = len(chances)
    points = (random.random() + np.arange(count)) / count
    # Rounding may leave the last sum below 1, and a point above it would lie behind the last image.
    drawn = np.minimum(np.searchsorted(np.cumsum(chances), points, side="right"), count - 1)
    # Systematic sampling draws the positions in ascending order.
    return random.permutation(drawn.astype(np.int64))


def _build_batches(loader: Callable[[int], dict[str, Any]], steps: range, workers: int, *, keep_going: bool) -> Batches:
    workers = min(workers, len(steps))
    threads = 1 if workers else min(count_usable_cores(), 8, max(1, len(steps)))
    # Grain's default buffer would keep 500 batches in memory.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads if workers else threads + 1)
    dataset = grain.MapDataset.range(steps.start, max(steps.stop, steps.start)).map(loader).to_iter_dataset(options)
    if workers:
        _mark_flags_as_parsed()
        keep_freed_memory()  # every batch arrives in new memory
        processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=_BUFFERED_BATCHES)
        dataset = WithOptionsIterDataset(dataset, _NO_SHARED_MEMORY)
        dataset = dataset.mp_prefetch(processes, worker_init_fn=prepare_worker)
    return Batches(dataset, len(steps), keep_going=keep_going, workers=workers)


def _mark_flags_as_parsed() -> None:
    """Mark absl's flags as parsed: with JAX installed Grain reads one, which fails outside of absl programs."""
    if not absl.flags.FLAGS.is_parsed():
        absl.flags.FLAGS.mark_as_parsed()


def estimate_loading_seconds(source: ImageSource, reads: int, *, augmented: bool) -> float:
    """Return the estimated seconds of one core for ``reads`` loads of images at 224 pixels."""
    decoded = reads if source.rows is None else min(source.count_missing(), reads)
    return decoded * DECODE_SECONDS + reads * (AUGMENT_SECONDS if augmented else COPY_SECONDS)


def _choose_workers(workers: Workers, *, work_seconds: float, cores: int) -> int:
    """Return the number of workers; ``auto`` is 0 where starting them takes longer than the work, else one a core."""
    if workers != "auto":
        return workers
    return 0 if cores == 1 or work_seconds < ALONE_SECONDS else min(cores, _MAX_WORKERS)
