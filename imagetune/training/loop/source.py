"""Where a stage's batches and validation metrics come from: images, or features of its frozen layers."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

import keras

from imagetune.data.loading.pipeline import epoch_order
from imagetune.model.inference import predict_probabilities
from imagetune.model.split_model import Halves, cut_model
from imagetune.recipe.train import StageConfig
from imagetune.training.feature_cache.features import FeatureBatch, compute_train_features, plain_features
from imagetune.training.feature_cache.plan import FeaturePlan
from imagetune.training.setup.events import FeaturesDone
from imagetune.training.setup.job import TrainingJob, compute_draw_probabilities, stage_batches
from imagetune.training.setup.keras_feed import IndexedBatch
from imagetune.training.setup.validation import compute_metrics_of_validation, compute_validation_metrics


class StageSource(Protocol):
    """Gives a stage its batches and its validation metrics; to be closed by its ``with`` block."""

    def batches(self) -> Iterable[IndexedBatch]:
        """Return the batches of all epochs of the stage."""

    def validate(self) -> dict[str, float]:
        """Return the validation metrics of the model as it is; empty without validation images."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ImageSource:
    """Images, decoded and augmented anew in every epoch. Workers begin at once, before the model is ready.

    Args:
        job: What all stages share.
        stage: The stage.
        first_epoch: Epochs before it.
        done: Epochs of the stage that an earlier training has had.
    """

    def __init__(self, job: TrainingJob, stage: StageConfig, *, first_epoch: int, done: int = 0) -> None:
        self._job = job
        first_step = (first_epoch + done) * job.steps_per_epoch
        self._batches = stage_batches(job, stage, epochs=first_epoch + stage.epochs, start_step=first_step)

    def batches(self) -> Iterable[IndexedBatch]:
        """Return the batches of all epochs of the stage."""
        return self._batches

    def validate(self) -> dict[str, float]:
        """Return the validation metrics of the model as it is; empty without validation images."""
        return compute_validation_metrics(self._job.model, self._job.images, batch_size=self._job.config.pass_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batches.close()


class FeatureSource:
    """Features of frozen layers, computed when the batches are asked for.

    Args:
        job: What all stages share.
        stage: The stage.
        plan: From ``plan_features``.
        halves: Of the plan.
        final: The model for images of the final size, cut at the same place.
        first_epoch: Epochs before the stage.
        done: Epochs of the stage that an earlier training has had.
    """

    def __init__(
        self,
        job: TrainingJob,
        stage: StageConfig,
        plan: FeaturePlan,
        halves: Halves,
        final: Halves,
        *,
        first_epoch: int,
        done: int = 0,
    ) -> None:
        self._job, self._stage, self._plan = job, stage, plan
        self._halves, self._final, self._first_epoch, self._done = halves, final, first_epoch, done
        self._val: list[FeatureBatch] = []

    def batches(self) -> Iterable[IndexedBatch]:
        """Return the batches of all epochs of the stage, after computing what isn't stored yet.

        Raises:
            StoppedError: A signal came.
            DataError: An image vanished.
        """
        job, first, count = self._job, self._first_epoch, len(self._job.images.train)
        size = job.config.pass_size

        def progress(done: int, of: int) -> None:
            job.listener.features_done(FeaturesDone(self._stage.name, done, of))

        self._val = plain_features(
            self._final, job.images.val, job.images, batch_size=size, check=job.stop.check, progress=progress
        )
        features = compute_train_features(
            job, self._stage, self._plan, self._halves, first_epoch=first, progress=progress
        )
        probabilities = compute_draw_probabilities(job)
        return features.batches(
            lambda epoch: epoch_order(count, job.seed, epoch, probabilities),
            batch_size=size,
            epochs=self._stage.epochs,
            done=self._done,
        )

    def validate(self) -> dict[str, float]:
        """Return the validation metrics of the model as it is; empty without validation images."""
        if not self._val:
            return {}
        predictions = predict_probabilities(self._final.predictions, self._val)
        return compute_metrics_of_validation(predictions, self._job.model, self._job.images)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._val = []


def open_stage_source(
    job: TrainingJob, stage: StageConfig, plan: FeaturePlan, model: keras.Model, *, first_epoch: int, done: int = 0
) -> StageSource:
    """Return what a stage learns from: images, or features where the plan keeps them.

    Args:
        job: What all stages share.
        stage: The stage.
        plan: From ``plan_features``.
        model: The model that the stage trains.
        first_epoch: Epochs before the stage.
        done: Epochs of the stage that an earlier training has had.
    """
    if plan.halves is None:
        return ImageSource(job, stage, first_epoch=first_epoch, done=done)
    # Validation sees images of the final size, whatever the stage trains on.
    final = plan.halves
    if model is not job.model:
        final = cut_model(job.model, job.backbone, plan.halves.boundary) or final
    return FeatureSource(job, stage, plan, plan.halves, final, first_epoch=first_epoch, done=done)
