"""Sources of a stage's batches and validation metrics: images, or cached features of frozen layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Protocol, Self

import keras

from imagetune.data.loading.pipeline import compute_epoch_order
from imagetune.model.inference import predict_probabilities
from imagetune.model.split_model import SplitModel, split_model_at
from imagetune.recipe.sections.train import StageConfig
from imagetune.training.feature_cache.features import (
    FeatureBatch,
    build_feature_progress,
    compute_plain_features,
    compute_train_features,
)
from imagetune.training.feature_cache.plan import FeaturePlan
from imagetune.training.setup.job import TrainingJob, compute_draw_probabilities, open_stage_batches
from imagetune.training.setup.keras_feed import IndexedBatch
from imagetune.training.setup.validation import compute_metrics_of_predictions, compute_validation_metrics


class StageSource(Protocol):
    """Source of a stage's batches and validation metrics; a ``with`` block closes it."""

    def batches(self) -> Iterable[IndexedBatch]:
        """Return the batches of all epochs of the stage."""

    def validate(self) -> dict[str, float]:
        """Return the validation metrics of the current model by name; empty without validation images."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ImageSource:
    """Source of images, augmented anew in every epoch; workers start at once, before the model is ready.

    Args:
        job: The training job.
        stage: The stage.
        first_epoch: Number of epochs before it.
        done_steps: Number of passes of the stage that an earlier training has made.
    """

    def __init__(self, job: TrainingJob, stage: StageConfig, *, first_epoch: int, done_steps: int = 0) -> None:
        self._job = job
        first_step = first_epoch * job.steps_per_epoch + done_steps
        self._batches = open_stage_batches(job, stage, epochs=first_epoch + stage.epochs, start_step=first_step)

    def batches(self) -> Iterable[IndexedBatch]:
        """Return the batches of all epochs of the stage."""
        return self._batches

    def validate(self) -> dict[str, float]:
        """Return the validation metrics of the current model by name; empty without validation images."""
        return compute_validation_metrics(self._job.model, self._job.images, batch_size=self._job.config.pass_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batches.close()


class FeatureSource:
    """Source of cached features of frozen layers, computed when the batches are requested.

    Args:
        job: The training job.
        stage: The stage.
        plan: Plan from ``plan_features``.
        halves: The split model of the plan.
        final: The model for images of the final size, split at the same place.
        first_epoch: Number of epochs before the stage.
        done_steps: Number of passes of the stage that an earlier training has made.
    """

    def __init__(
        self,
        job: TrainingJob,
        stage: StageConfig,
        plan: FeaturePlan,
        halves: SplitModel,
        final: SplitModel,
        *,
        first_epoch: int,
        done_steps: int = 0,
    ) -> None:
        self._job, self._stage, self._plan = job, stage, plan
        self._halves, self._final, self._first_epoch, self._done_steps = halves, final, first_epoch, done_steps
        self._val: list[FeatureBatch] = []

    def batches(self) -> Iterable[IndexedBatch]:
        """Return the batches of all epochs of the stage, after computing what isn't stored yet.

        Raises:
            StoppedError: A signal was received.
            DataError: An image vanished.
        """
        job, first, count = self._job, self._first_epoch, len(self._job.images.train)
        progress = build_feature_progress(job, self._stage)
        self._val = compute_val_features(job, self._stage, self._final)
        features = compute_train_features(
            job, self._stage, self._plan, self._halves, first_epoch=first, progress=progress
        )
        probabilities = compute_draw_probabilities(job)
        return features.batches(
            lambda epoch: compute_epoch_order(count, job.seed, epoch, probabilities),
            batch_size=job.config.pass_size,
            epochs=self._stage.epochs,
            done_steps=self._done_steps,
        )

    def validate(self) -> dict[str, float]:
        """Return the validation metrics of the current model by name; empty without validation images."""
        return validate_features(self._job, self._final, self._val)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._val = []


def compute_val_features(job: TrainingJob, stage: StageConfig, halves: SplitModel) -> list[FeatureBatch]:
    """Return the features of the validation images, in batches; the job's listener hears of the progress."""
    return compute_plain_features(
        halves,
        job.images.val,
        job.images,
        batch_size=job.config.pass_size,
        check=job.stop.check,
        progress=build_feature_progress(job, stage),
    )


def validate_features(job: TrainingJob, halves: SplitModel, val: Sequence[FeatureBatch]) -> dict[str, float]:
    """Return the validation metrics of the current model from features, by name; empty without any."""
    if not val:
        return {}
    predictions = predict_probabilities(halves.predictions, val)
    return compute_metrics_of_predictions(predictions, job.model, job.images)


def open_stage_source(
    job: TrainingJob,
    stage: StageConfig,
    plan: FeaturePlan,
    model: keras.Model,
    *,
    first_epoch: int,
    done_steps: int = 0,
) -> StageSource:
    """Return the source of a stage's batches: images, or features where the plan caches them.

    Args:
        job: The training job.
        stage: The stage.
        plan: Plan from ``plan_features``.
        model: The model that the stage trains.
        first_epoch: Number of epochs before the stage.
        done_steps: Number of passes of the stage that an earlier training has made.
    """
    if plan.halves is None:
        return ImageSource(job, stage, first_epoch=first_epoch, done_steps=done_steps)
    # Validation sees images of the final size, whatever the stage trains on.
    final = plan.halves
    if model is not job.model:
        final = split_model_at(job.model, job.backbone, plan.halves.boundary) or final
    return FeatureSource(job, stage, plan, plan.halves, final, first_epoch=first_epoch, done_steps=done_steps)
