"""Training: stages in order, each from the best weights of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from imagetune.data.catalog import Record
from imagetune.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from imagetune.errors import ImagetuneError
from imagetune.model.backbones import Backbone
from imagetune.model.inference import predict_probabilities
from imagetune.recipe.data import DataConfig
from imagetune.recipe.train import StageConfig, TrainConfig
from imagetune.training.callback import Best, Position, StageCallback, StageContext
from imagetune.training.checkpoints import TrainingState, commit_checkpoint, load_checkpoint
from imagetune.training.events import EpochRecord, Listener, StageStarted
from imagetune.training.faults import memory_errors
from imagetune.training.feed import Feed, class_weights
from imagetune.training.metrics import confusion_matrix, figures_of, log_loss
from imagetune.training.stages import StageSetup, prepare_stage
from imagetune.training.stopping import StopRequest


@dataclass(frozen=True)
class Pictures:
    """What the model learns from and is selected by. The test split has no place here.

    Attributes:
        train: Training records.
        val: Validation records, maybe none.
        class_names: Label map, by position.
        config: How pictures are read and augmented.
    """

    train: Sequence[Record]
    val: Sequence[Record]
    class_names: tuple[str, ...]
    config: DataConfig


@dataclass(frozen=True)
class TrainingJob:
    """What all stages share.

    Attributes:
        model: Raw RGB pictures (batch, height, width, 3) to probabilities (batch, k); trained in place.
        backbone: What the model is built on.
        config: Stages, optimizer and when to stop.
        pictures: Training and validation records.
        folder: Where checkpoints go.
        seed: Seed of order and augmentation.
        listener: Hears of progress.
        stop: Asked after every step.
    """

    model: keras.Model
    backbone: Backbone
    config: TrainConfig
    pictures: Pictures
    folder: Path
    seed: int
    listener: Listener
    stop: StopRequest


def train(job: TrainingJob) -> EpochRecord:
    """Train the model in place through all stages; it ends with the best weights of all of them.

    A stage starts from the best weights so far, so one that can't beat its start leaves the model as it was.

    Returns:
        The record of the epoch that the weights are from.

    Raises:
        DivergedError: The loss is not finite. The best weights so far are in a checkpoint.
        StoppedError: A signal came; the weights of the last step are in a checkpoint.
        ResourceError: Memory or disk ran out.
        DataError: A picture vanished.
    """
    first = job.config.stages[0]
    # Even a run that diverges in its first epoch leaves finite weights behind.
    commit_checkpoint(job.folder, job.model, TrainingState(first.name, 0, 0, None))
    position, best = Position(), None
    for index in range(len(job.config.stages)):
        position, best = _run_stage(job, index, position, best)
    if best is None:
        raise ImagetuneError("training ended without an epoch")
    return best.record


def _run_stage(job: TrainingJob, index: int, start: Position, best: Best | None) -> tuple[Position, Best | None]:
    """Train a stage, put the best weights so far into the model, and return where it ended and what is best."""
    stage = job.config.stages[index]
    steps = steps_per_epoch(len(job.pictures.train), job.config.pass_size)
    setup = prepare_stage(job.model, job.backbone, stage, job.config, steps_per_epoch=steps)
    job.listener.stage_started(_announcement(setup, stage, index, len(job.config.stages), start, steps))
    callback = StageCallback(_context(job, stage, start, best, steps), setup)
    with memory_errors(job.config.pass_size), job.stop.deferred():
        _fit_stage(job, stage, setup, callback)
    if callback.best is not None:
        load_checkpoint(callback.best.checkpoint, job.model)
    return callback.position, callback.best


def _fit_stage(job: TrainingJob, stage: StageConfig, setup: StageSetup, callback: StageCallback) -> None:
    start, steps = callback.context.start, callback.context.steps_per_epoch
    pictures, data = job.pictures, job.pictures.config
    labels = (record.label for record in pictures.train)
    weights = class_weights(job.config.class_weights, labels, pictures.class_names)
    with training_batches(
        pictures.train,
        pictures.class_names,
        image=data.image,
        augmentation=data.augmentation,
        batch_size=job.config.pass_size,
        seed=job.seed,
        epochs=start.epoch + stage.epochs,
        start_step=start.epoch * steps,
        workers=data.workers,
        max_pixels=data.max_pixels,
    ) as batches:
        feed = Feed(batches, weights, len(pictures.class_names))
        try:
            setup.learner.fit(
                iter(feed), epochs=stage.epochs, steps_per_epoch=steps, callbacks=[callback], shuffle=False, verbose=0
            )
        except Exception:
            # Ctrl-C reaches workers that are still starting, too: their death is not what went wrong.
            if job.stop.signal_number is not None:
                callback.commit(None)
                job.stop.check()
            if feed.failure is not None:
                raise feed.failure from None
            raise


def _context(job: TrainingJob, stage: StageConfig, start: Position, best: Best | None, steps: int) -> StageContext:
    return StageContext(
        model=job.model,
        stage=stage,
        early_stopping=stage.early_stopping or job.config.early_stopping,
        start=start,
        best=best,
        steps_per_epoch=steps,
        train_pictures=len(job.pictures.train),
        validate=lambda: _validation_figures(job),
        folder=job.folder,
        listener=job.listener,
        stop=job.stop,
    )


def _validation_figures(job: TrainingJob) -> dict[str, float]:
    """Return the validation figures of the model as it is; empty without validation pictures."""
    pictures, data = job.pictures, job.pictures.config
    if not pictures.val:
        return {}
    with evaluation_batches(
        pictures.val,
        pictures.class_names,
        image=data.image,
        batch_size=job.config.pass_size,
        workers=data.workers,
        max_pixels=data.max_pixels,
    ) as batches:
        probabilities = predict_probabilities(job.model, batches)
    position = {name: index for index, name in enumerate(pictures.class_names)}
    labels = np.array([position[record.label] for record in pictures.val], dtype=np.int32)
    return figures_of(confusion_matrix(labels, probabilities), log_loss(labels, probabilities))


def _announcement(
    setup: StageSetup, stage: StageConfig, index: int, stages: int, start: Position, steps: int
) -> StageStarted:
    return StageStarted(
        name=stage.name,
        index=index,
        stages=stages,
        epochs=stage.epochs,
        first_epoch=start.epoch + 1,
        steps_per_epoch=steps,
        rates=setup.rates,
        trainable_parameters=setup.trainable_parameters,
        parameters=setup.parameters,
    )
