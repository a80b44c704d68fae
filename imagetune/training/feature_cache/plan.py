"""Plan of the feature cache: whether a stage caches features of frozen layers, where it splits the model, and why."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import keras
import psutil

from imagetune.core.row_store import compute_row_bytes, find_cache_root, measure_free_disk
from imagetune.core.text import format_count
from imagetune.model.build import POOLING
from imagetune.model.split_model import SplitModel, list_frozen_boundaries, split_model_at
from imagetune.recipe.sections.train import StageConfig, TrainConfig
from imagetune.recipe.unfreeze import parse_unfreeze
from imagetune.training.setup.job import (
    TrainingImages,
    TrainingJob,
    is_augmented,
    open_stage_batches,
    resolve_stage_data,
)

# Measured (docs/strategies.md): a head trained on this many augmented copies of each image is as good as with
# augmentation that never repeats; with a single copy it is worse.
AUTO_COPIES = 4
AUTO_SOLVER_COPIES = 3
FEATURE_TYPE = "<f4"
# Reading speed of a cheap solid-state disk: features are assumed to be read no faster.
_BYTES_PER_SECOND = 500e6
# The rest is for decoded images, the model and other processes.
_MEMORY_SHARE = 0.25
_SOLVER_MEMORY_SHARE = 0.5


@dataclass(frozen=True)
class FeatureSettings:
    """Feature-cache settings of a stage: its own, or those of all stages.

    Attributes:
        cut: ``auto``, ``off``, or the block whose output is cached.
        copies: Number of augmented copies of each image that take turns, one in each epoch.
        whole_backbone: Whether the whole backbone is frozen.
        solved: Whether the head is solved, on the images as they are and all their copies at once.
    """

    cut: str
    copies: int | Literal["auto"]
    whole_backbone: bool
    solved: bool = False

    @property
    def caches_backbone(self) -> bool:
        """Whether the output of the whole backbone may be cached, because only the head is trained."""
        return self.whole_backbone and self.cut != "off"

    def count_copies(self, epochs: int, *, augmented: bool) -> int:
        """Return the number of copies of each image in a stage of ``epochs`` epochs; 1 without augmentation."""
        if self.solved:
            return 1 + self.count_solver_copies(augmented=augmented)
        wanted = AUTO_COPIES if self.copies == "auto" else self.copies
        return min(epochs, wanted) if augmented else 1

    def count_solver_copies(self, *, augmented: bool) -> int:
        """Return the number of augmented copies of each image that a head is solved on, beside the image itself."""
        if not augmented:
            return 0
        return AUTO_SOLVER_COPIES if self.copies == "auto" else self.copies


def read_feature_settings(train: TrainConfig, stage: StageConfig) -> FeatureSettings:
    """Return the feature-cache settings of a stage; nothing else reads ``cache`` and ``augmented_copies``."""
    return FeatureSettings(
        stage.cache or train.cache,
        stage.augmented_copies or train.augmented_copies,
        parse_unfreeze(stage.unfreeze).nothing,
        stage.solve is True,
    )


@dataclass(frozen=True)
class FeaturePlan:
    """Plan of a stage's feature cache.

    Attributes:
        reason: Clause for the screen that gives the plan and its reason.
        halves: The split model of the stage; None where every epoch starts from the images.
        copies: Number of augmented copies of each image, one in each epoch in turn; 1 without augmentation.
        augmented: Whether the copies are augmented.
        in_memory: Whether all features of the stage fit into memory.
    """

    reason: str
    halves: SplitModel | None = None
    copies: int = 1
    augmented: bool = False
    in_memory: bool = True


def plan_features(job: TrainingJob, stage: StageConfig, model: keras.Model) -> FeaturePlan:
    """Return the plan of a stage's feature cache.

    Caching always pays where the whole backbone is frozen. Elsewhere ``auto`` caches features only of images that
    aren't augmented, at the last boundary where reading them takes less time than computing them, which is measured.

    Args:
        job: The training job.
        stage: The stage, whose ``unfreeze`` is known to fit the backbone.
        model: The model that the stage trains, from ``stage_model``.
    """
    settings = read_feature_settings(job.config, stage)
    if trouble := _find_obstacle(job, settings.cut):
        return FeaturePlan(trouble)
    boundaries = list_frozen_boundaries(model, job.backbone, stage.unfreeze)
    if not boundaries:
        return FeaturePlan("the first layers are trained")
    augmented = is_augmented(resolve_stage_data(job.images.config, stage))
    count = settings.count_copies(stage.epochs, augmented=augmented)
    if settings.cut in boundaries:
        return _plan_at(job, model, settings.cut, count, augmented=augmented)
    if boundaries[-1] == POOLING:
        return _plan_at(job, model, POOLING, count, augmented=augmented, solved=settings.solved)
    # Only for heads it was measured that a few copies are enough.
    if augmented and settings.copies == "auto":
        return FeaturePlan("images are augmented anew in each epoch; train.augmented_copies would let them take turns")
    return _plan_deepest(job, stage, model, boundaries, count, augmented=augmented)


def find_size_obstacle(stage: StageConfig, train: TrainConfig, images: TrainingImages, model: keras.Model) -> str:
    """Return why the features of a head are too many to solve it, as a clause; empty where they fit.

    Args:
        stage: A stage that leaves the backbone frozen.
        train: Settings that all stages share.
        images: The images of training and validation.
        model: A model made by ``build_model``.
    """
    augmented = is_augmented(resolve_stage_data(images.config, stage))
    copies = read_feature_settings(train, stage).count_solver_copies(augmented=augmented)
    width = math.prod(int(size) for size in model.get_layer(POOLING).output.shape[1:])
    # The features, and their standardised copy.
    needed = 2 * 4 * width * len(images.train) * (1 + copies)
    if needed <= _SOLVER_MEMORY_SHARE * psutil.virtual_memory().available:
        return ""
    return f"its features would take {needed / 2**30:.1f} GiB of memory"


def _find_obstacle(job: TrainingJob, cut: str) -> str:
    """Return why features can't be cached, whatever the model is; empty where they can."""
    if cut == "off":
        return "train.cache is off"
    if job.config.mix.name != "none":
        return f"{job.config.mix.name} blends images anew in each epoch"
    if job.config.teacher is not None:
        return "the teacher predicts the images of each epoch"
    return ""


def _plan_at(
    job: TrainingJob, model: keras.Model, boundary: str, copies: int, *, augmented: bool, solved: bool = False
) -> FeaturePlan:
    """Return the plan to cache the features at one boundary, if there is room for them."""
    halves = split_model_at(model, job.backbone, boundary)
    if halves is None:
        return FeaturePlan(f"skip connections lead around {boundary}")
    size = compute_row_bytes(halves.feature_shape, FEATURE_TYPE)
    needed = size * (len(job.images.train) * copies + len(job.images.val))
    in_memory = needed <= _MEMORY_SHARE * psutil.virtual_memory().available
    if not in_memory and needed > min(job.images.config.cache_bytes, measure_free_disk(find_cache_root()) / 2):
        return FeaturePlan(f"features of {boundary} would take {needed / 2**30:.1f} GiB, more than data.cache_gib")
    versions = f" x {copies} augmented copies" if copies > 1 else ""
    if solved and copies > 1:
        versions = f" and {format_count(copies - 1, 'augmented copy', 'augmented copies')} of each"
    what = f"features of {boundary}, {len(job.images.train)} images{versions}, computed once"
    return FeaturePlan(f"{what} ({_format_size(needed)})", halves, copies, augmented, in_memory)


def _plan_deepest(
    job: TrainingJob, stage: StageConfig, model: keras.Model, boundaries: Sequence[str], copies: int, *, augmented: bool
) -> FeaturePlan:
    """Return the plan for the last boundary where the model can be split, if caching saves time there."""
    if stage.epochs <= copies:
        return FeaturePlan("no epoch would see the same images again")
    found = FeaturePlan("skip connections lead around every frozen block")
    for boundary in reversed(boundaries):
        found = _plan_at(job, model, boundary, copies, augmented=augmented)
        if found.halves is None:
            continue
        # Every copy is computed once in any case.
        spent = _time_image(job, stage, found.halves.lower) * (stage.epochs - copies)
        # Written once a copy, read once an epoch.
        moved = (
            compute_row_bytes(found.halves.feature_shape, FEATURE_TYPE) * (stage.epochs + copies) / _BYTES_PER_SECOND
        )
        if spent > moved:
            return found
        return FeaturePlan(f"features of {boundary} would take longer to read than to compute")
    return found


def _time_image(job: TrainingJob, stage: StageConfig, lower: keras.Model) -> float:
    with open_stage_batches(job, stage, epochs=1, workers=0) as batches:
        images = next(batches).images
    lower.predict_on_batch(images)  # the first call also compiles, which happens once anyway
    began = time.perf_counter()
    lower.predict_on_batch(images)
    return (time.perf_counter() - began) / len(images)


def _format_size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{max(1, round(size / 2**20))} MiB"
