"""Cached features of frozen layers: computed once, stored for later runs, and read in every epoch."""

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

from imagetune.core.row_store import MemoryRows, Rows, StoredRows, compute_row_key, open_rows
from imagetune.data.loading.augmentation import resolve_augmentation
from imagetune.data.loading.image_cache import DECODER_VERSION
from imagetune.data.loading.pipeline import Batches, compute_steps_per_epoch, load_evaluation_batches
from imagetune.data.sources.records import Record
from imagetune.errors import ResourceError
from imagetune.model.fold_batch_norm import fold_batch_norm_layers
from imagetune.model.inference import predict_batches
from imagetune.model.split_model import SplitModel, hash_weights
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.train import StageConfig, TrainConfig
from imagetune.training.feature_cache.plan import FEATURE_TYPE, FeaturePlan, read_feature_settings
from imagetune.training.setup.events import FeaturesDone
from imagetune.training.setup.job import TrainingImages, TrainingJob, open_stage_batches, resolve_stage_data

Progress = Callable[[int, int], None]
# Raise this whenever the same key and description would mean other features.
_VERSION = 1
# Features in a batch of validation. A head is quick; features of an early block are large, and more would take memory.
_BATCH_FEATURES = 256
_FASTER = "_imagetune_faster"


@dataclass(frozen=True)
class _Faster:
    """A faster model with the output of a lower half, and the digest of the weights that it is made from."""

    digest: str
    model: keras.Model


@dataclass(frozen=True)
class FeatureBatch:
    """A batch of features.

    Attributes:
        images: (b, ...) float32 features, which the trainable part of the model takes in the place of images.
        indices: (b,) int64 index into the records.
    """

    images: NDArray[np.float32]
    indices: NDArray[np.int64]


@dataclass(frozen=True)
class TrainFeatures:
    """Features of the training images of a cached stage, one augmented copy of all images after the other.

    Attributes:
        rows: Table of the features, one copy of all images after the other.
        count: Number of images.
        copies: Number of augmented copies, of which an epoch sees one.
        first_epoch: Epoch that sees the first copy, counted from 0 over all stages.
    """

    rows: Rows
    count: int
    copies: int
    first_epoch: int

    def batches(
        self, order: Callable[[int], NDArray[np.int64]], *, batch_size: int, epochs: int, done_steps: int = 0
    ) -> Iterator[FeatureBatch]:
        """Yield the batches of all epochs, in the order in which the image pipeline would.

        Args:
            order: Returns the image positions (n,) of an epoch in their order.
            batch_size: Number of images in a batch; the last of an epoch may have fewer.
            epochs: Number of epochs, from the first on.
            done_steps: Number of batches to leave out at the beginning.

        Raises:
            ResourceError: The table of features was deleted.
        """
        done, begun = divmod(done_steps, compute_steps_per_epoch(self.count, batch_size))
        for number in range(done, epochs):
            positions = order(self.first_epoch + number)
            copy = number % self.copies
            for first in range(begun * batch_size if number == done else 0, self.count, batch_size):
                indices = positions[first : first + batch_size]
                yield FeatureBatch(_take_rows(self.rows, copy * self.count + indices), indices)


@dataclass(frozen=True)
class _Version:
    """A version of some images, plain or augmented: their keys (None without a known hash), and how to load them."""

    keys: Sequence[bytes | None]
    load: Callable[[], Batches]


def caches_features(train: TrainConfig) -> bool:
    """Return whether all stages keep the backbone frozen and cached, so that its features serve other runs too."""
    return all(read_feature_settings(train, stage).caches_backbone for stage in train.stages)


def compute_train_features(
    job: TrainingJob, stage: StageConfig, plan: FeaturePlan, halves: SplitModel, *, first_epoch: int, progress: Progress
) -> TrainFeatures:
    """Return the features of the training images, computing those that aren't stored yet.

    Copy c is what epoch ``first_epoch + c`` would see without a cache, so that as many copies as epochs give the same
    training.

    Args:
        job: The training job.
        stage: The stage.
        plan: Plan from ``plan_features``.
        halves: The split model of the plan.
        first_epoch: Number of epochs before this stage.
        progress: Called with the number of finished images and of all images.

    Raises:
        StoppedError: A signal was received.
        DataError: An image vanished.
    """
    images, data = job.images, resolve_stage_data(job.images.config, stage)
    if plan.augmented:
        versions = [_describe_augmented(job, stage, data, first_epoch + copy) for copy in range(plan.copies)]
    else:
        versions = [_describe_plain(images.train, images, data, job.config.pass_size)]
    rows = _load_or_compute(
        halves.lower, versions, data, check=job.stop.check, progress=progress, in_memory=plan.in_memory
    )
    return TrainFeatures(rows, len(images.train), len(versions), first_epoch)


def build_feature_progress(job: TrainingJob, stage: StageConfig) -> Progress:
    """Return a function that tells the job's listener how many of a stage's features are there."""
    return lambda done, count: job.listener.features_done(FeaturesDone(stage.name, done, count))


def compute_solver_features(
    job: TrainingJob, stage: StageConfig, plan: FeaturePlan, halves: SplitModel, *, first_epoch: int
) -> NDArray[np.float32]:
    """Return the features (1 + copies, n, d) of the training images as they are, then of their augmented copies.

    Args:
        job: The training job.
        stage: The stage whose head is solved.
        plan: Plan from ``plan_features``.
        halves: The split model of the plan.
        first_epoch: Number of epochs before this stage; copy c is what epoch ``first_epoch + c`` would see.

    Raises:
        StoppedError: A signal was received.
        DataError: An image vanished.
    """
    images, data = job.images, resolve_stage_data(job.images.config, stage)
    versions = [_describe_plain(images.train, images, data, job.config.pass_size)]
    versions += [_describe_augmented(job, stage, data, first_epoch + copy) for copy in range(plan.copies - 1)]
    progress = build_feature_progress(job, stage)
    rows = _load_or_compute(halves.lower, versions, data, check=job.stop.check, progress=progress, in_memory=True)
    count = len(images.train)
    return _take_rows(rows, np.arange(len(versions) * count)).reshape(len(versions), count, -1)


def compute_plain_features(
    halves: SplitModel,
    records: Sequence[Record],
    images: TrainingImages,
    *,
    batch_size: int,
    check: Callable[[], None] | None = None,
    progress: Progress | None = None,
) -> list[FeatureBatch]:
    """Return the features of images without augmentation, computing those that aren't stored yet.

    Args:
        halves: The split model for images of the final size.
        records: Records of any images.
        images: How images are read, and their hashes.
        batch_size: Number of images in a forward pass; the returned batches of features are larger.
        check: Called after every batch of images; may raise.
        progress: Called with the number of finished images and of all images.
    """
    data = images.config
    # In memory: validation reads all of them after every epoch.
    versions = [_describe_plain(records, images, data, batch_size)]
    rows = _load_or_compute(
        halves.lower,
        versions,
        data,
        check=check or _check_nothing,
        progress=progress or _report_nothing,
        in_memory=True,
    )
    return split_into_batches(_take_rows(rows, np.arange(len(records))))


def split_into_batches(features: NDArray[np.float32]) -> list[FeatureBatch]:
    """Return features (n, ...) in batches, in their order."""
    starts = range(0, len(features), _BATCH_FEATURES)
    parts = (np.arange(first, min(first + _BATCH_FEATURES, len(features))) for first in starts)
    return [FeatureBatch(features[part], part) for part in parts]


def _describe_augmented(job: TrainingJob, stage: StageConfig, data: DataConfig, epoch: int) -> _Version:
    """Return the version of the training images that an epoch would see, with its augmentation."""
    own, records, hashes, steps = data.augmentation, job.images.train, job.images.hashes, job.steps_per_epoch
    transforms = resolve_augmentation(own, (data.image.height, data.image.width))
    # Another version of albumentations may give other pixels for the same seed.
    how = compute_row_key(_list_decoding_settings(data), transforms, version("albumentations")).hex()
    # What augmentation draws follows from seed, epoch and index, so these name it; the content hash names the image.
    keys = [
        compute_row_key(hashes[record.path], how, job.seed, epoch, index) if record.path in hashes else None
        for index, record in enumerate(records)
    ]
    return _Version(
        keys, lambda: open_stage_batches(job, stage, epochs=epoch + 1, start_step=epoch * steps, natural=True)
    )


def _describe_plain(records: Sequence[Record], images: TrainingImages, data: DataConfig, batch_size: int) -> _Version:
    """Return the version of images without augmentation."""
    how, hashes = compute_row_key(_list_decoding_settings(data)).hex(), images.hashes
    keys = [compute_row_key(hashes[record.path], how) if record.path in hashes else None for record in records]
    return _Version(
        keys,
        lambda: load_evaluation_batches(
            records,
            images.class_names,
            image=data.image,
            batch_size=batch_size,
            workers=data.workers,
            max_pixels=data.max_pixels,
            cache=images.caches.open_cache(data, reads=1),
        ),
    )


def _list_decoding_settings(data: DataConfig) -> list[Any]:
    """Return all settings that a decoded image's pixels depend on beside its file."""
    return [DECODER_VERSION, data.image.model_dump()]


def _load_or_compute(
    lower: keras.Model,
    versions: Sequence[_Version],
    data: DataConfig,
    *,
    check: Callable[[], None],
    progress: Progress,
    in_memory: bool,
) -> Rows:
    """Return the features of all versions in a row; those that aren't stored yet are computed and stored."""
    keys = [key for one in versions for key in one.keys]
    shape = tuple(int(size) for size in lower.output_shape[1:])
    digest = hash_weights(lower)
    stored = _open_stored(digest, keys, shape, data.cache_bytes)
    # Rows in memory are filled from the stored table as far as it goes, and new ones are written to both.
    if in_memory or stored is None:
        rows: Rows = MemoryRows(len(keys), shape, FEATURE_TYPE)
    else:
        # The disk may become full meanwhile; the training needs every row.
        stored.keep_overflow()
        rows = stored
    first = 0
    for one in versions:
        _fill(
            partial(_get_fast_model, lower, digest),
            one,
            (rows, stored),
            first,
            check,
            lambda done: progress(done, len(keys)),
        )
        first += len(one.keys)
    return rows


def _open_stored(digest: str, keys: Sequence[bytes | None], shape: tuple[int, ...], budget: int) -> StoredRows | None:
    # A table has a row for every key: an image without one would have no place in it.
    known = [key for key in keys if key is not None]
    if len(known) < len(keys):
        return None
    # Backends round differently, so that their features are not interchangeable.
    about = {"kind": "features", "version": _VERSION, "lower": digest, "backend": keras.backend.backend()}
    return open_rows(about, known, shape, FEATURE_TYPE, budget_bytes=budget)


def _get_fast_model(lower: keras.Model, digest: str) -> keras.Model:
    """Return the fastest model of the same features: one object, compiled once, as long as the weights stay."""
    known = getattr(lower, _FASTER, None)
    if not isinstance(known, _Faster) or known.digest != digest:
        # Kept on the model itself, which it is where nothing is folded: a weak dictionary would hold it for ever.
        known = _Faster(digest, fold_batch_norm_layers(lower))
        setattr(lower, _FASTER, known)
    return known.model


def _fill(
    forward: Callable[[], keras.Model],
    images: _Version,
    tables: tuple[Rows, StoredRows | None],
    first: int,
    check: Callable[[], None],
    progress: Callable[[int], None],
) -> None:
    """Fill both tables with the rows of a version, which begin at ``first``."""
    rows, stored = tables
    missing = _find_missing(range(first, first + len(images.keys)), rows, stored)
    progress(first + len(images.keys) - len(missing))
    if not missing:
        return
    # Parallel trials need the same features: one computes them, and the others wait.
    with stored.making(images.keys, check) if stored is not None else nullcontext():
        # Once more: another process may have stored them while this one waited.
        missing = _find_missing(missing, rows, stored)
        if missing:
            _compute_missing(forward, images, tables, first, missing, check, progress)


def _find_missing(positions: Iterable[int], rows: Rows, stored: Rows | None) -> set[int]:
    """Return the positions that aren't stored yet, and copy the stored ones into ``rows``."""
    missing = set()
    for position in positions:
        row = None if stored is None else stored.get(position)
        if row is None:
            missing.add(position)
        elif rows is not stored:
            rows.put(position, row)
    return missing


def _compute_missing(
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
        # Batches whose features are all stored need not go through the model.
        wanted = (batch for batch in batches if missing.intersection((batch.indices + first).tolist()))
        for batch, features in predict_batches(forward(), wanted):
            positions = (batch.indices + first).tolist()
            for position, feature in zip(positions, features, strict=True):
                for table in kept_in:
                    table.put(position, feature)
            missing.difference_update(positions)
            progress(first + len(images.keys) - len(missing))
            check()


def _take_rows(rows: Rows, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    try:
        taken: NDArray[np.float32] = rows.take(positions)
    except LookupError as error:
        hint = "is the disk full? raise data.cache_gib, or set train.cache: off"
        raise ResourceError("cached features were deleted during the run", hint=hint) from error
    return taken


def _check_nothing() -> None:
    """Check nothing, where the caller needs no stop."""


def _report_nothing(_done: int, _count: int) -> None:
    """Report no progress."""
