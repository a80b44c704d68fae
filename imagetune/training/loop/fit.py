"""The training loop: stages in their order, each starting from the best weights of the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import keras
import numpy as np

from imagetune.data.loading.pipeline import Batch
from imagetune.errors import CheckpointError, ImagetuneError, StoppedError
from imagetune.model.split_model import SplitModel
from imagetune.model.traces import free_graphs
from imagetune.model.trainable import find_trainable_positions
from imagetune.recipe.sections.train import StageConfig
from imagetune.training.feature_cache.plan import FeaturePlan, plan_features
from imagetune.training.loop.batch_norm import reestimate_statistics
from imagetune.training.loop.callback import StageCallback, StopCondition
from imagetune.training.loop.checkpoint_writer import CheckpointWriter
from imagetune.training.loop.checkpoints import (
    InitialWeights,
    ResumePoint,
    commit_checkpoint,
    link_initial_weights,
    load_checkpoint,
)
from imagetune.training.loop.judge_stage import judge_stage
from imagetune.training.loop.resume import reopen_training, restore_optimizer, restore_weights
from imagetune.training.loop.solve_stage import solve_stage
from imagetune.training.loop.source import open_stage_source
from imagetune.training.loop.state import BestEpoch, StageState, TrainingState
from imagetune.training.loop.weight_averaging import KeptWeights
from imagetune.training.measure.lr_find import find_stage_learning_rate
from imagetune.training.optimization.optimizer import Slots, find_trainable_variables, read_slots
from imagetune.training.setup.events import EpochRecord, StageStarted
from imagetune.training.setup.faults import convert_memory_errors
from imagetune.training.setup.job import (
    TrainingJob,
    build_objective,
    build_stage_model,
    build_targets,
    open_stage_batches,
)
from imagetune.training.setup.keras_feed import Feed, IndexedBatch, TrainingTargets
from imagetune.training.setup.stages import Objective, StageSetup, prepare_stage


@dataclass(frozen=True)
class _Training:
    """A job with what is computed from it once for all stages, before the first of them changes the model.

    Attributes:
        job: The training job.
        objective: Training objective.
        targets: Targets of the training images.
        initial: Weights that training started with.
        stop_when: Called after every epoch; true ends the training there.
    """

    job: TrainingJob
    objective: Objective
    targets: TrainingTargets
    initial: InitialWeights
    stop_when: StopCondition


def train(
    job: TrainingJob,
    *,
    start_from: ResumePoint | None = None,
    until_epoch: int | None = None,
    stop_when: StopCondition | None = None,
) -> EpochRecord:
    """Train the model in place through all stages and return the epoch whose weights it has then: the best of all.

    A stage starts from the best weights so far, so one that brings no improvement leaves the model as it was. Training
    that resumes from a checkpoint of an earlier one gives the same result as that would have, with the same recipe and
    images.

    Args:
        job: The training job.
        start_from: Where an earlier training is resumed; its folder may be the job's own.
        until_epoch: Last epoch, counted over all stages; schedules stay those of the whole recipe.
        stop_when: Called after every epoch; true ends the training there.

    Raises:
        DivergedError: The loss is not finite. The best weights so far are in a checkpoint.
        StoppedError: A signal was received; the weights of the last step are in a checkpoint.
        ResourceError: Memory or disk ran out.
        DataError: An image vanished.
        CheckpointError: The checkpoint to resume from is corrupted, or of another training.
    """
    # First of all: L2-SP needs the pretrained weights, which a checkpoint would replace.
    objective, targets = build_objective(job), build_targets(job)
    state, initial = _begin(job) if start_from is None else reopen_training(start_from, job.folder, job.model)
    first = _find_first_stage(job, state, start_from)
    training = _Training(job, objective, targets, initial, lambda record: _ends(record, until_epoch, stop_when))
    if state.best is not None and until_epoch is not None and state.epoch >= until_epoch:
        return _load_best(job, state)
    for stage in job.config.stages[first:]:
        # TensorFlow would keep the graphs of every stage: 190 MB a training of EfficientNet-Lite0.
        with free_graphs():
            state, stopped = _train_stage(training, stage, state)
        if stopped:
            break
    return _require_best(state).record


def _begin(job: TrainingJob) -> tuple[TrainingState, InitialWeights]:
    """Commit the weights that training starts with, and return the first state."""
    if job.config.batch_norm_statistics == "reestimate":
        _reestimate(job, job.config.stages[0], job.model)
    state = TrainingState()
    # Even a run that diverges in its first epoch leaves finite weights behind.
    return state, link_initial_weights(commit_checkpoint(job.folder, job.model, state), job.model)


def _find_first_stage(job: TrainingJob, state: TrainingState, start_from: ResumePoint | None) -> int:
    """Return the index of the first stage to train: that of the state, or 0."""
    if state.stage is None:
        return 0
    names = [stage.name for stage in job.config.stages]
    if state.stage.name not in names:
        what = f"training stopped in stage {state.stage.name!r}, which the recipe doesn't have"
        raise CheckpointError(what, where="" if start_from is None else str(start_from.checkpoint.parent))
    return names.index(state.stage.name)


def _ends(record: EpochRecord, until_epoch: int | None, stop_when: StopCondition | None) -> bool:
    reached = until_epoch is not None and record.epoch >= until_epoch
    # Called in any case: it may count the epochs.
    return (stop_when is not None and stop_when(record)) or reached


def _train_stage(training: _Training, stage: StageConfig, state: TrainingState) -> tuple[TrainingState, bool]:
    """Train a stage, or the rest of it, and put the best weights so far into the model.

    Args:
        training: What all stages share.
        stage: The stage as in the recipe.
        state: State between two stages, or within this one where it is resumed.

    Returns:
        The state after the stage, and whether training ends here, whatever stages are left.
    """
    if state.stage is not None and state.stage.finished:
        return _skip_stage(training, stage, state), False
    if stage.solve is True:
        return _solve_stage(training, stage, state)
    job, model = training.job, build_stage_model(training.job, stage)
    resolved, plan = _settle_stage(training, stage, model, state)
    begun = state.stage or _begin_stage(resolved, plan, state)
    state, done_steps = replace(state, stage=begun), state.step - begun.steps_before
    source = open_stage_source(job, resolved, plan, model, first_epoch=begun.epochs_before, done_steps=done_steps)
    writer = CheckpointWriter(job.folder, training.initial)
    # The innermost: its last checkpoint is complete before anything else ends or is read.
    with convert_memory_errors(job.config.pass_size), job.stop.deferred(), source, writer:
        setup = _prepare(training, resolved, model, state.slots, plan.halves)
        state = replace(state, learned=state.learned | find_trainable_positions(model))
        weights = _build_kept_weights(job, resolved, model, setup, state.learned)
        resumed, state = state.arrays, _restore(state, setup, weights)
        job.listener.stage_started(_build_announcement(job, stage, begun, setup))
        callback = StageCallback(
            job,
            state,
            setup,
            weights,
            validate=source.validate,
            writer=writer,
            stop_when=training.stop_when,
            resumed=resumed,
        )
        _fit(callback, training.targets, iter(source.batches()))
    state = judge_stage(job, stage, callback.state)
    state = replace(state, stage=None, slots=_read_slots(setup, model))
    if not _has_best_weights(job, model, state):
        _load_best(job, state)
    return state, callback.stopped


def _solve_stage(training: _Training, stage: StageConfig, state: TrainingState) -> tuple[TrainingState, bool]:
    """Solve the head, put the best weights so far into the model, and return as `_train_stage` does."""
    job = training.job
    with convert_memory_errors(job.config.pass_size), job.stop.deferred():
        state, record = solve_stage(
            job, stage, state, objective=training.objective, targets=training.targets, initial=training.initial
        )
    if not _has_best_weights(job, job.model, state):
        _load_best(job, state)
    return state, training.stop_when(record)


def _skip_stage(training: _Training, stage: StageConfig, state: TrainingState) -> TrainingState:
    """Load the best weights after a stage that an earlier training has finished, and return the state."""
    job = training.job
    if stage.solve is True:
        _load_best(job, state)
        return replace(state, stage=None, arrays={})
    state = judge_stage(job, stage, state)
    # The optimizer is built only for its slots, which the next stage starts from.
    setup = _prepare(training, _with_learning_rate(stage, state), job.model, state.slots)
    restore_optimizer(state, setup.learner)
    _load_best(job, state)
    return replace(state, stage=None, slots=_read_slots(setup, job.model), arrays={})


def _prepare(
    training: _Training, stage: StageConfig, model: keras.Model, slots: Slots, halves: SplitModel | None = None
) -> StageSetup:
    job = training.job
    return prepare_stage(
        model,
        job.backbone,
        stage,
        job.config,
        steps_per_epoch=job.steps_per_epoch,
        objective=training.objective,
        slots=slots,
        halves=halves,
    )


def _settle_stage(
    training: _Training, stage: StageConfig, model: keras.Model, state: TrainingState
) -> tuple[StageConfig, FeaturePlan]:
    """Return the stage with a number for its learning rate, and its feature plan; measured once, at its start."""
    job = training.job
    if state.stage is not None:
        stage = _with_learning_rate(stage, state)
        fixed = stage.model_copy(update={"cache": state.stage.features_cut})
        return stage, replace(plan_features(job, fixed, model), reason=state.stage.features_reason)
    if stage.learning_rate == "auto":
        found = find_stage_learning_rate(job, model, stage, objective=training.objective, slots=state.slots)
        stage = stage.model_copy(update={"learning_rate": found.suggestion})
    return stage, plan_features(job, stage, model)


def _with_learning_rate(stage: StageConfig, state: TrainingState) -> StageConfig:
    """Return a stage with the learning rate that it began with, which may have been found by a range test."""
    return stage if state.stage is None else stage.model_copy(update={"learning_rate": state.stage.learning_rate})


def _begin_stage(stage: StageConfig, plan: FeaturePlan, state: TrainingState) -> StageState:
    """Return the state of a stage at its beginning."""
    return StageState(
        name=stage.name,
        epochs_before=state.epoch,
        steps_before=state.step,
        learning_rate=stage.peak_rate,
        features_cut="off" if plan.halves is None else plan.halves.boundary,
        features_reason=plan.reason,
        baseline="" if stage.min_gain_standard_errors is None or state.best is None else state.best.checkpoint.name,
    )


def _restore(state: TrainingState, setup: StageSetup, weights: KeptWeights) -> TrainingState:
    """Restore the arrays of a checkpoint in a stage, and return the state without them."""
    if state.arrays:
        restore_weights(state, weights)
        restore_optimizer(state, setup.learner)
    # They belong to that checkpoint: later ones must not contain them.
    return replace(state, arrays={})


def _load_best(job: TrainingJob, state: TrainingState) -> EpochRecord:
    """Load the best weights so far into the model, and return the record of their epoch."""
    best = _require_best(state)
    load_checkpoint(best.checkpoint, job.model, state.learned)
    return best.record


def _require_best(state: TrainingState) -> BestEpoch:
    if state.best is None:
        raise ImagetuneError("training ended before its first epoch")
    return state.best


def _has_best_weights(job: TrainingJob, model: keras.Model, state: TrainingState) -> bool:
    """Return whether the model already has the best epoch's weights: those of the last epoch, trained in place."""
    # Averages are only in the checkpoint: the learner has its own weights again.
    in_place = model is job.model and job.config.average.name == "none"
    return state.best is None or (in_place and state.best.record.epoch == state.epoch)


def _read_slots(setup: StageSetup, model: keras.Model) -> Slots:
    return read_slots(setup.learner.optimizer, find_trainable_variables(model))


def _fit(callback: StageCallback, targets: TrainingTargets, batches: Iterator[IndexedBatch]) -> None:
    """Run the remaining epochs of a stage.

    Args:
        callback: Callback of the stage.
        targets: Targets of the training images.
        batches: Batches of the remaining epochs, the first of which may have begun in an earlier training.
    """
    if callback.steps_of_epoch:
        _finish_epoch(callback, targets, batches)
    if not callback.ended:
        steps = callback.job.steps_per_epoch
        _fit_epochs(callback, targets, batches, steps=steps, epochs=callback.setup.stage.epochs)


def _finish_epoch(callback: StageCallback, targets: TrainingTargets, batches: Iterator[IndexedBatch]) -> None:
    """Run the rest of an epoch: a training of its own for Keras, which can't begin in the middle of one."""
    left = callback.job.steps_per_epoch - callback.steps_of_epoch
    trained, learned = callback.weights.trained, list[list[np.ndarray]]()
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: learned.append(trained.get_weights()))
    _fit_epochs(callback, targets, islice(batches, left), steps=left, epochs=callback.epochs_of_stage + 1, more=keep)
    # Keras ends a training with the averages of EMA in the place of the weights.
    trained.set_weights(*learned)


def _fit_epochs(
    callback: StageCallback,
    targets: TrainingTargets,
    batches: Iterator[IndexedBatch],
    *,
    steps: int,
    epochs: int,
    more: keras.callbacks.Callback | None = None,
) -> None:
    """Run epochs of a stage, from its state on.

    Args:
        callback: Callback of the stage.
        targets: Targets of the training images.
        batches: Batches of these epochs.
        steps: Number of passes in an epoch.
        epochs: Number of the stage's epochs to end with.
        more: Another callback, called after the first.
    """
    job, setup = callback.job, callback.setup
    first_step = callback.state.epoch * job.steps_per_epoch + callback.steps_of_epoch
    feed = Feed(batches, targets, first_step=first_step)
    try:
        setup.learner.fit(
            iter(feed),
            initial_epoch=callback.epochs_of_stage,
            epochs=epochs,
            # The feed has no length, so Keras can't know where an epoch ends.
            steps_per_epoch=steps,
            callbacks=[callback] if more is None else [callback, more],
            shuffle=False,
            verbose=0,
        )
    except Exception as error:
        # Ctrl-C also kills workers that are still starting: their error isn't the cause.
        if job.stop.signal_number is not None or isinstance(error, StoppedError):
            callback.commit()
            callback.writer.wait()
            job.stop.check()
        if feed.failure is not None:
            raise feed.failure from None
        raise


def _build_kept_weights(
    job: TrainingJob, stage: StageConfig, model: keras.Model, setup: StageSetup, learned: frozenset[int]
) -> KeptWeights:
    refresh = stage.batch_norm == "train" and job.config.average.name == "swa"
    return KeptWeights(
        setup.learner,
        kept=job.model,
        trained=model,
        config=job.config.average,
        epochs=stage.epochs,
        learned=learned,
        refresh=(lambda averaged: _reestimate(job, stage, averaged)) if refresh else None,
    )


def _reestimate(job: TrainingJob, stage: StageConfig, model: keras.Model) -> None:
    """Re-estimate BatchNorm's statistics on training images without augmentation, in random order."""
    with open_stage_batches(job, stage, epochs=1, augmentation="none", workers=0) as batches:
        reestimate_statistics(model, _images(batches))


def _images(batches: Iterable[Batch]) -> Iterator[np.ndarray]:
    for batch in batches:
        yield batch.images


def _build_announcement(job: TrainingJob, stage: StageConfig, begun: StageState, setup: StageSetup) -> StageStarted:
    return StageStarted(
        name=stage.name,
        index=job.config.stages.index(stage),
        stages=len(job.config.stages),
        epochs=stage.epochs,
        first_epoch=begun.epochs_before + 1,
        steps_per_epoch=job.steps_per_epoch,
        learning_rates=setup.learning_rates,
        trainable_parameters=setup.trainable_parameters,
        parameters=setup.parameters,
        found_learning_rate=begun.learning_rate if stage.learning_rate == "auto" else None,
        features=begun.features_reason,
    )
