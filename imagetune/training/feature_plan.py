"""Whether a stage computes the features of its frozen layers once, where it cuts the model, and why."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import psutil

from imagetune.core.row_store import cache_root, free_disk, row_bytes
from imagetune.model.build import POOLING
from imagetune.model.halves import Halves, cut_model, frozen_boundaries
from imagetune.recipe.train import StageConfig, TrainConfig
from imagetune.training.job import TrainingJob, augments, stage_batches

# Measured (docs/strategies.md): a head learns as well from this many augmented versions of each picture as from ones
# that never repeat; from a single one it doesn't.
AUTO_VIEWS = 4
FEATURE_TYPE = "<f4"
# Features that are read as fast as a cheap disk gives them never cost more than this.
_BYTES_PER_SECOND = 500e6
_MEMORY_SHARE = 0.25


@dataclass(frozen=True)
class FeaturePlan:
    """What a stage does about the features of its frozen layers.

    Attributes:
        reason: A clause for the screen.
        halves: The model of the stage, cut; None where every epoch starts from the pictures.
        views: Augmented versions of each picture, one an epoch in turn; 1 without augmentation.
        augmented: Whether the versions differ from the picture.
        in_memory: Whether all features of the stage fit into memory.
    """

    reason: str
    halves: Halves | None = None
    views: int = 1
    augmented: bool = False
    in_memory: bool = True


def cache_setting(train: TrainConfig, stage: StageConfig) -> str:
    """Return where a stage keeps features: its own setting, or that of all stages."""
    return stage.cache or train.cache


def views_of(train: TrainConfig, stage: StageConfig, *, augmented: bool) -> int:
    """Return how many versions of each picture a stage that keeps features looks at."""
    views = stage.views or train.views
    return min(stage.epochs, AUTO_VIEWS if views == "auto" else views) if augmented else 1


def plan_features(job: TrainingJob, stage: StageConfig, model: keras.Model) -> FeaturePlan:
    """Decide for a stage.

    A backbone that is frozen as a whole is always worth it. Elsewhere ``auto`` keeps features only of pictures that
    are not augmented, at the last boundary where reading them takes less time than computing them, which is measured.

    Args:
        job: What all stages share.
        stage: Its ``unfreeze`` is known to fit the backbone.
        model: The model that the stage trains, as from ``stage_model``.
    """
    setting = cache_setting(job.config, stage)
    if trouble := _trouble(job, setting):
        return FeaturePlan(trouble)
    boundaries = frozen_boundaries(model, job.backbone, stage.unfreeze)
    if not boundaries:
        return FeaturePlan("the first layers learn")
    augmented = augments(job.pictures.config, stage)
    count = views_of(job.config, stage, augmented=augmented)
    if setting in boundaries:
        return _at(job, model, setting, count, augmented=augmented)
    if boundaries[-1] == POOLING:
        return _at(job, model, POOLING, count, augmented=augmented)
    if augmented and (stage.views or job.config.views) == "auto":
        return FeaturePlan("pictures are augmented anew in each epoch; train.views would let them take turns")
    return _deepest_that_pays(job, stage, model, boundaries, count, augmented=augmented)


def _trouble(job: TrainingJob, setting: str) -> str:
    if setting == "off":
        return "train.cache is off"
    if job.config.mix.name != "none":
        return f"{job.config.mix.name} blends pictures anew in each epoch"
    if job.config.teacher is not None:
        return "the teacher looks at the pictures of each epoch"
    return ""


def _at(job: TrainingJob, model: keras.Model, boundary: str, views: int, *, augmented: bool) -> FeaturePlan:
    halves = cut_model(model, job.backbone, boundary)
    if halves is None:
        return FeaturePlan(f"other ways through the network lead around {boundary}")
    size = row_bytes(halves.feature_shape, FEATURE_TYPE)
    needed = size * (len(job.pictures.train) * views + len(job.pictures.val))
    in_memory = needed <= _MEMORY_SHARE * psutil.virtual_memory().available
    if not in_memory and needed > min(job.pictures.config.cache_bytes, free_disk(cache_root()) / 2):
        return FeaturePlan(f"features of {boundary} would take {needed / 2**30:.1f} GiB, more than data.cache_gib")
    versions = f" x {views} views" if views > 1 else ""
    what = f"features of {boundary}, {len(job.pictures.train)} pictures{versions}, computed once"
    return FeaturePlan(f"{what} ({_amount(needed)})", halves, views, augmented, in_memory)


def _deepest_that_pays(
    job: TrainingJob, stage: StageConfig, model: keras.Model, boundaries: Sequence[str], views: int, *, augmented: bool
) -> FeaturePlan:
    if stage.epochs <= views:
        return FeaturePlan("no epoch would see the same pictures again")
    found = FeaturePlan("no frozen block is the only way through the network")
    for boundary in reversed(boundaries):
        found = _at(job, model, boundary, views, augmented=augmented)
        if found.halves is None:
            continue
        spent = _seconds_a_picture(job, stage, found.halves.lower) * (stage.epochs - views)
        moved = row_bytes(found.halves.feature_shape, FEATURE_TYPE) * (stage.epochs + views) / _BYTES_PER_SECOND
        if spent > moved:
            return found
        return FeaturePlan(f"features of {boundary} would take longer to read than to compute")
    return found


def _seconds_a_picture(job: TrainingJob, stage: StageConfig, lower: keras.Model) -> float:
    with stage_batches(job, stage, epochs=1, workers=0) as batches:
        images = next(batches).images
    lower.predict_on_batch(images)  # the first call also compiles
    began = time.perf_counter()
    lower.predict_on_batch(images)
    return (time.perf_counter() - began) / len(images)


def _amount(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{max(1, round(size / 2**20))} MiB"
