"""Features of a stage's frozen layers: computed once, kept for later runs, and fed to what learns in every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.core.row_store import MemoryRows, Rows, StoredRows, key_of, open_rows
from imagetune.data.loading.augmentation import augmentation_transforms
from imagetune.data.loading.image_cache import DECODER_VERSION
from imagetune.data.loading.pipeline import Batches, evaluation_batches
from imagetune.data.sources.records import Record
from imagetune.errors import ResourceError
from imagetune.model.fold_batch_norm import folded
from imagetune.model.inference import outputs_of
from imagetune.model.split_model import Halves, weights_digest
from imagetune.recipe.data import DataConfig
from imagetune.recipe.train import StageConfig, TrainConfig
from imagetune.training.feature_cache.plan import FEATURE_TYPE, FeaturePlan, read_feature_settings
from imagetune.training.setup.job import TrainingImages, TrainingJob, stage_batches, stage_data

Progress = Callable[[int, int], None]
# Raised whenever the same key and description would mean other numbers.
_VERSION = 1
# A head predictions features in no time; more at once would only take memory where they are those of an early block.
_PREDICTED_AT_ONCE = 256
_QUICKER = "_imagetune_quicker"


@dataclass(frozen=True)
class _Quicker:
    """The model that is asked in the place of a lower half, and the digest of the weights that it is made from."""

    digest: str
    model: keras.Model


@dataclass(frozen=True)
class FeatureBatch:
    """A batch of features.

    Attributes:
        images: (b, ...) float32: what the part of the model that learns takes for images.
        indices: (b,) int64, index into the records.
    """

    images: NDArray[np.float32]
    indices: NDArray[np.int64]


@dataclass(frozen=True)
class TrainFeatures:
    """The features that a cached stage learns from, one copy of all images after the other.

    Attributes:
        rows: Features of n images, one copy of all of them after the other.
        count: n.
        copies: Number of augmented copies; an epoch sees one of them.
        first_epoch: Epoch that sees the first copy, counted from 0 over all stages.
    """

    rows: Rows
    count: int
    copies: int
    first_epoch: int

    def batches(
        self, order: Callable[[int], NDArray[np.int64]], *, batch_size: int, epochs: int, done: int = 0
    ) -> Iterator[FeatureBatch]:
        """Yield batches as the pipeline would.

        Args:
            order: Gives the positions (n,) of an epoch in their order.
            batch_size: Images a batch; the last of an epoch may have fewer.
            epochs: How many, from the first one on.
            done: How many of them to leave out at the beginning.

        Raises:
            ResourceError: The table of the features is gone.
        """
        for number in range(done, epochs):
            positions = order(self.first_epoch + number)
            copy = number % self.copies
            for first in range(0, self.count, batch_size):
                indices = positions[first : first + batch_size]
                yield FeatureBatch(_taken(self.rows, copy * self.count + indices), indices)


@dataclass(frozen=True)
class _Version:
    """A version of some images: their keys (None where the image's hash isn't known), and a way to load them."""

    keys: Sequence[bytes | None]
    load: Callable[[], Batches]


def keeps_features(train: TrainConfig) -> bool:
    """Tell whether a training leaves the backbone as it was, so that its features serve other runs, too."""
    return all(read_feature_settings(train, stage).caches_backbone for stage in train.stages)


def compute_train_features(
    job: TrainingJob, stage: StageConfig, plan: FeaturePlan, halves: Halves, *, first_epoch: int, progress: Progress
) -> TrainFeatures:
    """Return the features of the training images, computing those that aren't in their table yet.

    Copy c is what epoch ``first_epoch + c`` would have seen without a cache, so that as many copies as epochs give
    the same training.

    Args:
        job: What all stages share.
        stage: The stage.
        plan: From ``plan_features``.
        halves: Of the plan.
        first_epoch: Epochs before this stage.
        progress: Called with the images that are done and their number.

    Raises:
        StoppedError: A signal came.
        DataError: An image vanished.
    """
    images, data = job.images, stage_data(job.images.config, stage)
    if plan.augmented:
        versions = [_augmented(job, stage, data, first_epoch + copy) for copy in range(plan.copies)]
    else:
        versions = [_plain(images.train, images, data, job.config.pass_size)]
    rows = _computed(halves.lower, versions, data, check=job.stop.check, progress=progress, in_memory=plan.in_memory)
    return TrainFeatures(rows, len(images.train), len(versions), first_epoch)


def plain_features(
    halves: Halves,
    records: Sequence[Record],
    images: TrainingImages,
    *,
    batch_size: int,
    check: Callable[[], None] | None = None,
    progress: Progress | None = None,
) -> list[FeatureBatch]:
    """Return the features of images as they are, computing those that aren't in their table yet.

    Args:
        halves: Of a model for images of the final size.
        records: Any images.
        images: How they are read, and their hashes.
        batch_size: Images a forward pass; of features there are more in a batch that is returned.
        check: Called after every batch of images; may raise.
        progress: Called with the images that are done and their number.
    """
    data = images.config
    # In memory: validation asks for all of them after every epoch.
    versions = [_plain(records, images, data, batch_size)]
    rows = _computed(halves.lower, versions, data, check=check or _go_on, progress=progress or _quiet, in_memory=True)
    starts = range(0, len(records), _PREDICTED_AT_ONCE)
    parts = (np.arange(first, min(first + _PREDICTED_AT_ONCE, len(records))) for first in starts)
    return [FeatureBatch(_taken(rows, part), part) for part in parts]


def _augmented(job: TrainingJob, stage: StageConfig, data: DataConfig, epoch: int) -> _Version:
    """Return the training images as an epoch would see them."""
    own, records, hashes, steps = data.augmentation, job.images.train, job.images.hashes, job.steps_per_epoch
    transforms = augmentation_transforms(own, (data.image.height, data.image.width))
    how = key_of(_decoded(data), transforms, version("albumentations")).hex()
    # What augmentation draws follows from seed, epoch and index, so these name it; the content hash names the image.
    keys = [
        key_of(hashes[record.path], how, job.seed, epoch, index) if record.path in hashes else None
        for index, record in enumerate(records)
    ]
    return _Version(keys, lambda: stage_batches(job, stage, epochs=epoch + 1, start_step=epoch * steps, natural=True))


def _plain(records: Sequence[Record], images: TrainingImages, data: DataConfig, batch_size: int) -> _Version:
    """Return images as they are."""
    how, hashes = key_of(_decoded(data)).hex(), images.hashes
    keys = [key_of(hashes[record.path], how) if record.path in hashes else None for record in records]
    return _Version(
        keys,
        lambda: evaluation_batches(
            records,
            images.class_names,
            image=data.image,
            batch_size=batch_size,
            workers=data.workers,
            max_pixels=data.max_pixels,
            cache=images.caches.opened(data, reads=1),
        ),
    )


def _decoded(data: DataConfig) -> list[Any]:
    """Return what a decoded image's pixels depend on beside its file."""
    return [DECODER_VERSION, data.image.model_dump()]


def _computed(
    lower: keras.Model,
    versions: Sequence[_Version],
    data: DataConfig,
    *,
    check: Callable[[], None],
    progress: Progress,
    in_memory: bool,
) -> Rows:
    """Return the features of all versions, one after the other; what isn't stored yet is computed and stored."""
    keys = [key for one in versions for key in one.keys]
    shape = tuple(int(size) for size in lower.output_shape[1:])
    digest = weights_digest(lower)
    stored = _stored(digest, keys, shape, data.cache_bytes)
    # Rows in memory are filled from the table as far as that has them, and fill it in turn.
    if in_memory or stored is None:
        rows: Rows = MemoryRows(len(keys), shape, FEATURE_TYPE)
    else:
        rows = stored
    first = 0
    for one in versions:
        _fill(
            partial(_forward, lower, digest), one, (rows, stored), first, check, lambda done: progress(done, len(keys))
        )
        first += len(one.keys)
    return rows


def _stored(digest: str, keys: Sequence[bytes | None], shape: tuple[int, ...], budget: int) -> StoredRows | None:
    # A table has a row for every key: an image without one would have no place in it.
    known = [key for key in keys if key is not None]
    if len(known) < len(keys):
        return None
    # Backends round differently, so that their features are not interchangeable.
    about = {"kind": "features", "version": _VERSION, "lower": digest, "backend": keras.backend.backend()}
    return open_rows(about, known, shape, FEATURE_TYPE, budget_bytes=budget)


def _forward(lower: keras.Model, digest: str) -> keras.Model:
    """Return the quickest model of the same features; the same one as long as the weights are, so compiled once."""
    known = getattr(lower, _QUICKER, None)
    if not isinstance(known, _Quicker) or known.digest != digest:
        # Where nothing is folded it is the model itself, which a dictionary with weak keys would hold for ever.
        known = _Quicker(digest, folded(lower))
        setattr(lower, _QUICKER, known)
    return known.model


def _fill(
    forward: Callable[[], keras.Model],
    images: _Version,
    tables: tuple[Rows, StoredRows | None],
    first: int,
    check: Callable[[], None],
    progress: Callable[[int], None],
) -> None:
    """Put the rows of a version, which begin at ``first``, into both tables."""
    rows, stored = tables
    missing = _missing(range(first, first + len(images.keys)), rows, stored)
    progress(first + len(images.keys) - len(missing))
    if not missing:
        return
    # Trials beside each other need the same features: one computes them, the others wait.
    with stored.making(images.keys, check) if stored is not None else nullcontext():
        missing = _missing(missing, rows, stored)
        if missing:
            _compute(forward, images, tables, first, missing, check, progress)


def _missing(positions: Iterable[int], rows: Rows, stored: Rows | None) -> set[int]:
    """Return the positions that aren't stored yet; those that are get copied into ``rows``."""
    missing = set()
    for position in positions:
        row = None if stored is None else stored.get(position)
        if row is None:
            missing.add(position)
        elif rows is not stored:
            rows.put(position, row)
    return missing


def _compute(
    forward: Callable[[], keras.Model],
    images: _Version,
    tables: tuple[Rows, StoredRows | None],
    first: int,
    missing: set[int],
    check: Callable[[], None],
    progress: Callable[[int], None],
) -> None:
    rows, stored = tables
    kept_in = [rows] if stored is None or stored is rows else [rows, stored]
    with images.load() as batches:
        # Whole batches that are there already need not go through the model.
        wanted = (batch for batch in batches if missing.intersection((batch.indices + first).tolist()))
        for batch, features in outputs_of(forward(), wanted):
            positions = (batch.indices + first).tolist()
            for position, feature in zip(positions, features, strict=True):
                for table in kept_in:
                    table.put(position, feature)
            missing.difference_update(positions)
            progress(first + len(images.keys) - len(missing))
            check()


def _taken(rows: Rows, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    try:
        taken: NDArray[np.float32] = rows.take(positions)
    except LookupError as error:
        hint = "is the disk full? raise data.cache_gib, or set train.cache: off"
        raise ResourceError("cached features are gone", hint=hint) from error
    return taken


def _go_on() -> None:
    """Stop for nothing."""


def _quiet(_done: int, _count: int) -> None:
    """Tell nobody."""
