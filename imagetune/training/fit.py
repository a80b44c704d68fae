"""Training: stages in order, each from the best weights of the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import keras
import numpy as np

from imagetune.data.pipeline import Batch, steps_per_epoch
from imagetune.errors import ImagetuneError
from imagetune.model.trainable import learning_places
from imagetune.recipe.train import StageConfig
from imagetune.training.averaging import KeptWeights
from imagetune.training.batch_norm import reestimate_statistics
from imagetune.training.callback import Best, Position, StageCallback, StageContext
from imagetune.training.checkpoints import Start, TrainingState, commit_checkpoint, load_checkpoint, start_of
from imagetune.training.events import EpochRecord, StageStarted
from imagetune.training.faults import memory_errors
from imagetune.training.feature_plan import plan_features
from imagetune.training.feed import Answers, Feed, IndexedBatch
from imagetune.training.job import TrainingJob, answers_of, objective_of, stage_batches, stage_model
from imagetune.training.lr_find import find_rate
from imagetune.training.optimizer import Slots, slots_of, trainable_by_place
from imagetune.training.source import stage_source
from imagetune.training.stages import Objective, StageSetup, prepare_stage


@dataclass(frozen=True)
class Progress:
    """What one stage hands to the next.

    Attributes:
        position: Where training stands.
        best: The best epoch so far.
        slots: What the optimizer remembers.
        learned: Places of the weights that stages have trained.
    """

    position: Position = field(default_factory=Position)
    best: Best | None = None
    slots: Slots = field(default_factory=Slots)
    learned: frozenset[int] = frozenset()


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
    objective, answers = objective_of(job), answers_of(job)
    if job.config.batch_norm_statistics == "reestimate":
        _reestimate(job, first, job.model)
    # Even a run that diverges in its first epoch leaves finite weights behind.
    start = start_of(commit_checkpoint(job.folder, job.model, TrainingState(first.name, 0, 0, None)), job.model)
    progress = Progress()
    for index in range(len(job.config.stages)):
        progress = _run_stage(job, index, progress, objective, answers, start)
    if progress.best is None:
        raise ImagetuneError("training ended without an epoch")
    return progress.best.record


def _run_stage(
    job: TrainingJob, index: int, before: Progress, objective: Objective, answers: Answers, start: Start
) -> Progress:
    """Train a stage, put the best weights so far into the model, and return where it ended and what is best."""
    stage = job.config.stages[index]
    steps = steps_per_epoch(len(job.pictures.train), job.config.pass_size)
    model = stage_model(job, stage)
    found = None
    if stage.learning_rate == "auto":
        found = find_rate(job, model, stage, objective=objective, slots=before.slots).suggestion
        stage = stage.model_copy(update={"learning_rate": found})
    plan = plan_features(job, stage, model)
    source = stage_source(job, stage, plan, model, first_epoch=before.position.epoch)
    with memory_errors(job.config.pass_size), job.stop.deferred(), source:
        setup = prepare_stage(
            model,
            job.backbone,
            stage,
            job.config,
            steps_per_epoch=steps,
            objective=objective,
            slots=before.slots,
            halves=plan.halves,
        )
        job.listener.stage_started(_announcement(job, setup, index, before.position, steps, found, plan.reason))
        learned = before.learned | learning_places(model)
        context = _context(job, stage, before, steps, source.validate, start, learned)
        callback = StageCallback(context, setup, _kept_weights(job, stage, model, setup))
        _fit_stage(job, stage, setup, callback, answers, source.batches())
    slots = slots_of(setup.learner.optimizer, trainable_by_place(model))
    if callback.best is not None and not _already_best(job, model, callback.position, callback.best):
        load_checkpoint(callback.best.checkpoint, job.model)
    return Progress(callback.position, callback.best, slots, learned)


def _already_best(job: TrainingJob, model: keras.Model, position: Position, best: Best) -> bool:
    """Tell whether the model has the weights of the best epoch as it is: the last one, learned in place."""
    in_place = model is job.model and job.config.average.name == "none"
    return in_place and best.record.epoch == position.epoch


def _fit_stage(
    job: TrainingJob,
    stage: StageConfig,
    setup: StageSetup,
    callback: StageCallback,
    answers: Answers,
    batches: Iterable[IndexedBatch],
) -> None:
    start, steps = callback.context.start, callback.context.steps_per_epoch
    feed = Feed(batches, answers, first_step=start.epoch * steps)
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


def _context(
    job: TrainingJob,
    stage: StageConfig,
    before: Progress,
    steps: int,
    validate: Callable[[], dict[str, float]],
    start: Start,
    learned: frozenset[int],
) -> StageContext:
    return StageContext(
        model=job.model,
        stage=stage,
        early_stopping=stage.early_stopping or job.config.early_stopping,
        start=before.position,
        best=before.best,
        steps_per_epoch=steps,
        accumulation=job.config.accumulation,
        train_pictures=len(job.pictures.train),
        validate=validate,
        folder=job.folder,
        weights_at_start=start,
        learned=learned,
        listener=job.listener,
        stop=job.stop,
    )


def _kept_weights(job: TrainingJob, stage: StageConfig, model: keras.Model, setup: StageSetup) -> KeptWeights:
    moving = stage.batch_norm == "train" and job.config.average.name == "swa"
    return KeptWeights(
        setup.learner,
        kept=job.model,
        trained=model,
        config=job.config.average,
        epochs=stage.epochs,
        refresh=(lambda averaged: _reestimate(job, stage, averaged)) if moving else None,
    )


def _reestimate(job: TrainingJob, stage: StageConfig, model: keras.Model) -> None:
    """Take BatchNorm's statistics anew from training pictures as they are, in random order."""
    with stage_batches(job, stage, epochs=1, augmentation="none", workers=0) as batches:
        reestimate_statistics(model, _images(batches))


def _images(batches: Iterable[Batch]) -> Iterator[np.ndarray]:
    for batch in batches:
        yield batch.images


def _announcement(
    job: TrainingJob,
    setup: StageSetup,
    index: int,
    start: Position,
    steps: int,
    found_rate: float | None,
    features: str,
) -> StageStarted:
    stage = job.config.stages[index]
    return StageStarted(
        name=stage.name,
        index=index,
        stages=len(job.config.stages),
        epochs=stage.epochs,
        first_epoch=start.epoch + 1,
        steps_per_epoch=steps,
        rates=setup.rates,
        trainable_parameters=setup.trainable_parameters,
        parameters=setup.parameters,
        found_rate=found_rate,
        features=features,
    )
