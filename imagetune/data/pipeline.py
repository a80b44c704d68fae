"""Batches for training and evaluation: Grain runs the workers, each element of its dataset is a whole batch.

Element ``step`` belongs to epoch ``step // steps_per_epoch``; the order of an epoch comes from (seed, epoch), the
augmentation of a picture from (seed, epoch, index). So pixels and order don't depend on the number of workers, any
step can be the first, and the last batch of an epoch may be smaller.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import absl.flags
import grain
import numpy as np
from grain.experimental import DatasetOptions, WithOptionsIterDataset

from imagetune.data.augmentation import Augmenter, build_augmenter
from imagetune.data.catalog import Record
from imagetune.data.decode import load_picture
from imagetune.data.processes import prepare_worker, usable_cores
from imagetune.errors import BadPictureError, ResourceError

if TYPE_CHECKING:
    import numpy.typing as npt

    from imagetune.recipe.data import ImageSettings

Workers = int | Literal["auto"]

# Starting processes takes about three seconds, in which the main process could load this many pictures itself.
_ALONE_PICTURES = 4000
_MOST_WORKERS = 32
_BUFFERED_BATCHES = 2
# Batches come back through pipes. Shared memory is a little faster, but a container has 64 MB of it, and a batch too
# many there is a bus error.
_NO_SHARED_MEMORY = DatasetOptions(min_shm_size=1 << 62)


@dataclass(frozen=True)
class Batch:
    """Some pictures with their labels.

    Attributes:
        images: ``(b, height, width, 3)`` uint8 RGB.
        labels: ``(b,)`` int32, index into the class names, -1 for an unknown label.
        indices: ``(b,)`` int64, index into the records.
        errors: ``(index, message)`` of pictures that could not be loaded and are not in the batch; only where the
            caller asked to go on without them.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    indices: npt.NDArray[np.int64]
    errors: tuple[tuple[int, str], ...] = ()


class Batches:
    """An iterator of batches that closes its workers at the end, at an error, and when its ``with`` block ends."""

    def __init__(self, dataset: grain.IterDataset[Any], count: int, *, keep_going: bool) -> None:
        self._iterator: Any = iter(dataset)
        self._count = count
        self._keep_going = keep_going

    def __len__(self) -> int:
        """Return how many batches there are from the first step on."""
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
            BadPictureError: A picture can't be loaded any more; ``where`` is its path.
            ResourceError: A worker process died.
        """
        if self._iterator is None:
            raise StopIteration
        try:
            loaded = next(self._iterator)
        except StopIteration:
            self.close()
            raise
        except RuntimeError as error:
            self.close()
            if "terminated unexpectedly" not in str(error):
                raise
            hint = "memory is the usual cause: lower data.workers or train.batch_size"
            raise ResourceError("a process that loads pictures died", hint=hint) from error
        if loaded["errors"] and not self._keep_going:
            self.close()
            _, where, what, hint = loaded["errors"][0]
            raise BadPictureError(what, where=where, hint=hint)
        errors = tuple((index, what) for index, _, what, _ in loaded["errors"])
        return Batch(loaded["images"], loaded["labels"], loaded["indices"], errors)

    def close(self) -> None:
        """Stop the workers; a second call does nothing."""
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator.close()


def training_batches(  # noqa: PLR0913 - the values of a recipe, each by its name
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
) -> Batches:
    """Return the shuffled, augmented batches of ``epochs`` epochs, one after the other.

    Args:
        records: The training split.
        class_names: In the order of the model's outputs.
        image: Size, resizing and background.
        augmentation: As in the recipe; see `augmentation_problems`.
        batch_size: Pictures a batch; the last of each epoch may have fewer.
        seed: Not negative; sets the order and every augmentation.
        epochs: How many times each picture comes.
        workers: Processes; 0 loads in threads of this one; ``auto`` decides by the amount of work.
        max_pixels: Larger pictures are refused.
        start_step: The first step, counted from 0 over all epochs: resuming there gives the batches of a whole run.
        chances: ``(n,)`` share of an epoch's draws that each picture gets, summing to 1: a picture may then come
            several times, differently augmented, or not at all. By default each comes once.
    """
    augmenter = build_augmenter(augmentation, image)
    loader = _BatchLoader(records, class_names, image, batch_size, max_pixels, seed, augmenter, chances)
    steps = steps_per_epoch(len(records), batch_size) * epochs
    return _batches(loader, range(start_step, steps), _worker_count(workers, len(records) * epochs), keep_going=False)


def evaluation_batches(
    records: Sequence[Record],
    class_names: Sequence[str],
    *,
    image: ImageSettings,
    batch_size: int,
    workers: Workers,
    max_pixels: int,
    keep_going: bool = False,
) -> Batches:
    """Return the pictures once, in the order of the records, not augmented.

    Args:
        records: Any split; a label that is not among the class names becomes -1.
        class_names: In the order of the model's outputs.
        image: Size, resizing and background.
        batch_size: Pictures a batch.
        workers: As for `training_batches`.
        max_pixels: Larger pictures are refused.
        keep_going: Leave pictures that can't be loaded out of their batch and list them in ``errors``; a batch may then
            be empty.
    """
    loader = _BatchLoader(records, class_names, image, batch_size, max_pixels, 0, None)
    steps = steps_per_epoch(len(records), batch_size)
    return _batches(loader, range(steps), _worker_count(workers, len(records)), keep_going=keep_going)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return how many batches hold ``count`` pictures, the last perhaps smaller."""
    return -(-count // batch_size)


class _BatchLoader:
    """Makes the batch of one step. It is sent to the workers, so it holds no more than they need."""

    def __init__(
        self,
        records: Sequence[Record],
        class_names: Sequence[str],
        image: ImageSettings,
        batch_size: int,
        max_pixels: int,
        seed: int,
        augmenter: Augmenter | None,
        chances: npt.NDArray[np.float64] | None = None,
    ) -> None:
        positions = {name: position for position, name in enumerate(class_names)}
        self._paths = tuple(record.path for record in records)
        self._labels = np.array([positions.get(record.label, -1) for record in records], np.int32)
        self._image = image
        self._batch_size = batch_size
        self._max_pixels = max_pixels
        self._seed = seed
        self._augmenter = augmenter
        self._chances = chances
        self._last_draw: tuple[int, npt.NDArray[np.int64]] | None = None

    def __call__(self, step: int) -> dict[str, Any]:
        epoch, batch = divmod(int(step), steps_per_epoch(len(self._paths), self._batch_size))
        part = slice(batch * self._batch_size, (batch + 1) * self._batch_size)
        order = self._order(epoch)
        wanted = order[part]
        images = np.empty((len(wanted), self._image.height, self._image.width, 3), np.uint8)
        # An error would not survive the way back from a worker whole, so it travels as text.
        errors: list[tuple[int, str, str, str]] = []
        kept: list[int] = []
        for place, index in enumerate(wanted.tolist(), start=part.start):
            # A picture that is drawn twice is augmented in two ways.
            view = index if self._chances is None else len(order) + place
            try:
                images[len(kept)] = self._load(index, epoch, view)
            except BadPictureError as error:
                errors.append((index, error.where, error.what, error.hint))
            else:
                kept.append(index)
        indices = np.array(kept, np.int64)
        return {"images": images[: len(kept)], "labels": self._labels[indices], "indices": indices, "errors": errors}

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        if self._augmenter is None:
            return np.arange(len(self._paths), dtype=np.int64)
        if self._chances is not None:
            if self._last_draw is None or self._last_draw[0] != epoch:
                self._last_draw = (epoch, _drawn(self._chances, self._seed, epoch))
            return self._last_draw[1]
        return _shuffled(len(self._paths), self._seed, epoch)

    def _load(self, index: int, epoch: int, view: int) -> npt.NDArray[np.uint8]:
        picture = load_picture(self._paths[index], self._image, max_pixels=self._max_pixels)
        return picture if self._augmenter is None else self._augmenter(picture, seed=(self._seed, epoch, view))


@functools.lru_cache(maxsize=4)
def _shuffled(count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the shuffled positions of one epoch."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch)))).permutation(count)


def _drawn(chances: npt.NDArray[np.float64], seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the drawn positions of one epoch: systematic sampling, so that shares hold as nearly as they can."""
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch))))
    count = len(chances)
    points = (random.random() + np.arange(count)) / count
    drawn = np.minimum(np.searchsorted(np.cumsum(chances), points, side="right"), count - 1)
    return random.permutation(drawn.astype(np.int64))


def _batches(loader: _BatchLoader, steps: range, workers: int, *, keep_going: bool) -> Batches:
    workers = min(workers, len(steps))
    threads = 1 if workers else min(usable_cores(), 8, max(1, len(steps)))
    # Grain's own defaults would hold 500 batches in memory.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads if workers else threads + 1)
    dataset = grain.MapDataset.range(steps.start, max(steps.stop, steps.start)).map(loader).to_iter_dataset(options)
    if workers:
        _let_grain_read_its_flags()
        processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=_BUFFERED_BATCHES)
        dataset = WithOptionsIterDataset(dataset, _NO_SHARED_MEMORY)
        dataset = dataset.mp_prefetch(processes, worker_init_fn=prepare_worker)
    return Batches(dataset, len(steps), keep_going=keep_going)


def _let_grain_read_its_flags() -> None:
    """With JAX installed, Grain asks for a command-line flag, which fails where no absl program has parsed any."""
    if not absl.flags.FLAGS.is_parsed():
        absl.flags.FLAGS.mark_as_parsed()


def _worker_count(workers: Workers, pictures: int) -> int:
    """Decide ``auto``: no processes where starting them takes longer than the work, else one a core."""
    if workers != "auto":
        return workers
    cores = usable_cores()
    return 0 if cores == 1 or pictures < _ALONE_PICTURES else min(cores, _MOST_WORKERS)
