"""Training: stages in order, each from the best weights of the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import keras
import numpy as np

from imagetune.data.pipeline import Batch, steps_per_epoch
from imagetune.errors import CheckpointError, ImagetuneError
from imagetune.model.traces import graphs_freed
from imagetune.model.trainable import learning_places
from imagetune.recipe.train import StageConfig
from imagetune.training.averaging import KeptWeights
from imagetune.training.batch_norm import reestimate_statistics
from imagetune.training.callback import Enough, StageCallback, StageContext
from imagetune.training.checkpoints import Start, TrainingState, commit_checkpoint, load_checkpoint, start_of
from imagetune.training.events import EpochRecord, StageStarted
from imagetune.training.faults import memory_errors
from imagetune.training.feature_plan import FeaturePlan, plan_features
from imagetune.training.feed import Answers, Feed, IndexedBatch
from imagetune.training.job import TrainingJob, answers_of, objective_of, stage_batches, stage_model
from imagetune.training.lr_find import find_rate
from imagetune.training.optimizer import Slots, slots_of, trainable_by_place
from imagetune.training.source import stage_source
from imagetune.training.stages import Objective, StageSetup, prepare_stage
from imagetune.training.standing import Best, Position, StageFacts, Standing, put_back, put_back_weights, reopen


@dataclass(frozen=True)
class Progress:
    """What one stage hands to the next.

    Attributes:
        position: Where training stands.
        best: The best epoch so far.
        slots: What the optimizer remembers.
        learned: Places of the weights that stages have trained.
        enough: Whether training ends here, whatever stages are left.
    """

    position: Position = field(default_factory=Position)
    best: Best | None = None
    slots: Slots = field(default_factory=Slots)
    learned: frozenset[int] = frozenset()
    enough: bool = False


def train(
    job: TrainingJob, *, start_from: Path | None = None, until_epoch: int | None = None, enough: Enough | None = None
) -> EpochRecord:
    """Train the model in place through all stages; it ends with the best weights of all of them.

    A stage starts from the best weights so far, so one that can't beat its start leaves the model as it was.

    Training that goes on from the end of an epoch of an earlier training gives what that would have given had it gone
    on itself, as long as recipe and pictures are the same.

    Args:
        job: What all stages share.
        start_from: Folder of the earlier training's checkpoints.
        until_epoch: Where training ends, in epochs of all stages; schedules stay those of the whole recipe.
        enough: Asked after every epoch whether training ends there.

    Returns:
        The record of the epoch that the weights are from.

    Raises:
        DivergedError: The loss is not finite. The best weights so far are in a checkpoint.
        StoppedError: A signal came; the weights of the last step are in a checkpoint.
        ResourceError: Memory or disk ran out.
        DataError: A picture vanished.
        CheckpointError: There is nothing to go on from, or it is damaged.
    """
    objective, answers = objective_of(job), answers_of(job)
    first, standing, progress = 0, None, Progress()
    if start_from is None:
        start = _begin(job)
    else:
        standing, start = reopen(start_from, job.folder, job.model)
        first, progress = _stage_of(job, standing, start_from), _before_stage(standing)
    course = _Course(objective, answers, start, lambda record: _ends(record, until_epoch, enough))
    if standing is not None and until_epoch is not None and standing.position.epoch >= until_epoch:
        load_checkpoint(standing.best.checkpoint, job.model, standing.learned)
        return standing.best.record
    for index in range(first, len(job.config.stages)):
        with graphs_freed():
            progress = _run_stage(job, index, progress, course, standing if index == first else None)
        if progress.enough:
            break
    if progress.best is None:
        raise ImagetuneError("training ended without an epoch")
    return progress.best.record


@dataclass(frozen=True)
class _Course:
    """What all stages share beside the job: what is learned, the weights at the start, and when it is enough."""

    objective: Objective
    answers: Answers
    start: Start
    enough: Enough


def _begin(job: TrainingJob) -> Start:
    """Commit the weights that training starts with."""
    first = job.config.stages[0]
    if job.config.batch_norm_statistics == "reestimate":
        _reestimate(job, first, job.model)
    # Even a run that diverges in its first epoch leaves finite weights behind.
    return start_of(commit_checkpoint(job.folder, job.model, TrainingState(first.name, 0, 0, None)), job.model)


def _stage_of(job: TrainingJob, standing: Standing, where: Path) -> int:
    names = [stage.name for stage in job.config.stages]
    if standing.stage not in names:
        raise CheckpointError(f"stopped in stage {standing.stage!r}, which the recipe doesn't have", where=str(where))
    return names.index(standing.stage)


def _before_stage(standing: Standing) -> Progress:
    """Return what the stage began with that training goes on in, as far as anything still depends on it."""
    return Progress(standing.began, standing.best, Slots(steps=standing.facts.ages), standing.learned)


def _ends(record: EpochRecord, until_epoch: int | None, enough: Enough | None) -> bool:
    reached = until_epoch is not None and record.epoch >= until_epoch
    return (enough is not None and enough(record)) or reached


def _run_stage(job: TrainingJob, index: int, before: Progress, course: _Course, standing: Standing | None) -> Progress:
    """Train a stage, put the best weights so far into the model, and return where it ended and what is best.

    Args:
        job: What all stages share.
        index: Of the stage.
        before: What it begins with.
        course: What all stages share, too.
        standing: Where an earlier training of this stage stood.
    """
    stage = job.config.stages[index]
    steps = steps_per_epoch(len(job.pictures.train), job.config.pass_size)
    if standing is not None and standing.over:
        return _ended_stage(job, stage, before, course, standing)
    model = stage_model(job, stage)
    stage, found = _with_rate(job, stage, model, before, course, standing)
    plan = _feature_plan(job, stage, model, standing)
    done = 0 if standing is None else standing.position.epoch - standing.began.epoch
    source = stage_source(job, stage, plan, model, first_epoch=before.position.epoch, done=done)
    with memory_errors(job.config.pass_size), job.stop.deferred(), source:
        setup = prepare_stage(
            model,
            job.backbone,
            stage,
            job.config,
            steps_per_epoch=steps,
            objective=course.objective,
            slots=before.slots,
            halves=plan.halves,
        )
        learned = before.learned | learning_places(model)
        weights = _kept_weights(job, stage, model, setup, learned)
        if standing is not None:
            put_back_weights(standing, weights)
            put_back(standing, setup.learner, setup.learner.optimizer)
        job.listener.stage_started(_announcement(job, setup, index, before.position, steps, found, plan.reason))
        boundary = "off" if plan.halves is None else plan.halves.boundary
        facts = StageFacts(stage.peak_rate, boundary, plan.reason, before.slots.steps)
        context = _context(job, stage, before, steps, source.validate, course, learned, facts)
        callback = StageCallback(context, setup, weights, standing)
        _fit_stage(job, stage, setup, callback, course.answers, source.batches(), done)
    slots = slots_of(setup.learner.optimizer, trainable_by_place(model))
    if callback.best is not None and not _already_best(job, model, callback.position, callback.best):
        load_checkpoint(callback.best.checkpoint, job.model, learned)
    return Progress(callback.position, callback.best, slots, learned, callback.enough)


def _ended_stage(
    job: TrainingJob, stage: StageConfig, before: Progress, course: _Course, standing: Standing
) -> Progress:
    """Return where a stage ended that an earlier training has ended, with the best weights so far in the model."""
    stage = stage.model_copy(update={"learning_rate": standing.facts.learning_rate})
    setup = prepare_stage(
        job.model, job.backbone, stage, job.config, steps_per_epoch=1, objective=course.objective, slots=before.slots
    )
    put_back(standing, setup.learner, setup.learner.optimizer)
    slots = slots_of(setup.learner.optimizer, trainable_by_place(job.model))
    load_checkpoint(standing.best.checkpoint, job.model, standing.learned)
    return Progress(standing.position, standing.best, slots, standing.learned)


def _with_rate(
    job: TrainingJob,
    stage: StageConfig,
    model: keras.Model,
    before: Progress,
    course: _Course,
    standing: Standing | None,
) -> tuple[StageConfig, float | None]:
    """Return the stage with a number for its learning rate, and that number where it had to be found."""
    if stage.learning_rate != "auto":
        return stage, None
    if standing is not None:
        found = standing.facts.learning_rate
    else:
        found = find_rate(job, model, stage, objective=course.objective, slots=before.slots).suggestion
    return stage.model_copy(update={"learning_rate": found}), found


def _feature_plan(job: TrainingJob, stage: StageConfig, model: keras.Model, standing: Standing | None) -> FeaturePlan:
    """Plan a stage's features anew, or as it was planned when it began: part of that is a measurement."""
    if standing is None:
        return plan_features(job, stage, model)
    fixed = stage.model_copy(update={"cache": standing.facts.boundary})
    return replace(plan_features(job, fixed, model), reason=standing.facts.reason)


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
    done: int,
) -> None:
    start, steps = callback.context.start, callback.context.steps_per_epoch
    feed = Feed(batches, answers, first_step=(start.epoch + done) * steps)
    try:
        setup.learner.fit(
            iter(feed),
            initial_epoch=done,
            epochs=stage.epochs,
            steps_per_epoch=steps,
            callbacks=[callback],
            shuffle=False,
            verbose=0,
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
    course: _Course,
    learned: frozenset[int],
    facts: StageFacts,
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
        weights_at_start=course.start,
        learned=learned,
        facts=facts,
        listener=job.listener,
        stop=job.stop,
        enough=course.enough,
    )


def _kept_weights(
    job: TrainingJob, stage: StageConfig, model: keras.Model, setup: StageSetup, learned: frozenset[int]
) -> KeptWeights:
    moving = stage.batch_norm == "train" and job.config.average.name == "swa"
    return KeptWeights(
        setup.learner,
        kept=job.model,
        trained=model,
        config=job.config.average,
        epochs=stage.epochs,
        learned=learned,
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
