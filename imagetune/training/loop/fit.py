"""Training: stages in order, each from the best weights of the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from imagetune.data.loading.pipeline import Batch
from imagetune.errors import CheckpointError, ImagetuneError
from imagetune.model.split_model import Halves
from imagetune.model.traces import graphs_freed
from imagetune.model.trainable import learning_places
from imagetune.recipe.train import StageConfig
from imagetune.training.feature_cache.plan import FeaturePlan, plan_features
from imagetune.training.loop.batch_norm import reestimate_statistics
from imagetune.training.loop.callback import StageCallback, StopCondition
from imagetune.training.loop.checkpoints import InitialWeights, commit_checkpoint, link_initial_weights, load_checkpoint
from imagetune.training.loop.resume import reopen_training, restore_optimizer, restore_weights
from imagetune.training.loop.source import open_stage_source
from imagetune.training.loop.state import BestEpoch, StageState, TrainingState
from imagetune.training.loop.weight_averaging import KeptWeights
from imagetune.training.measure.lr_find import find_stage_learning_rate
from imagetune.training.optimization.optimizer import Slots, find_trainable_variables, read_slots
from imagetune.training.setup.events import EpochRecord, StageStarted
from imagetune.training.setup.faults import memory_errors
from imagetune.training.setup.job import TrainingJob, build_objective, build_targets, stage_batches, stage_model
from imagetune.training.setup.keras_feed import Feed, IndexedBatch, TrainingTargets
from imagetune.training.setup.stages import Objective, StageSetup, prepare_stage


@dataclass(frozen=True)
class _Training:
    """A job under way: what follows from it once, before the first stage changes the model, for all stages.

    Attributes:
        job: What to do.
        objective: What the model is to learn.
        targets: Of each training image.
        initial: The weights that training started with.
        stop_when: Asked after every epoch whether training ends there.
    """

    job: TrainingJob
    objective: Objective
    targets: TrainingTargets
    initial: InitialWeights
    stop_when: StopCondition


def train(
    job: TrainingJob,
    *,
    start_from: Path | None = None,
    until_epoch: int | None = None,
    stop_when: StopCondition | None = None,
) -> EpochRecord:
    """Train the model in place through all stages and return the epoch whose weights it has then: the best of all.

    A stage starts from the best weights so far, so one that can't beat its start leaves the model as it was. Training
    that goes on from the end of an epoch of an earlier one gives what that would have given, with the same recipe and
    images.

    Args:
        job: What all stages share.
        start_from: Folder of the earlier training's checkpoints.
        until_epoch: Where training ends, in epochs of all stages; schedules stay those of the whole recipe.
        stop_when: Asked after every epoch whether training ends there.

    Raises:
        DivergedError: The loss is not finite. The best weights so far are in a checkpoint.
        StoppedError: A signal came; the weights of the last step are in a checkpoint.
        ResourceError: Memory or disk ran out.
        DataError: An image vanished.
        CheckpointError: There is nothing to go on from, or it is corrupted.
    """
    # First of all: L2-SP holds on to the pretrained weights, whatever a checkpoint brings.
    objective, targets = build_objective(job), build_targets(job)
    state, initial = _begin(job) if start_from is None else reopen_training(start_from, job.folder, job.model)
    first = _stage_position(job, state, start_from)
    training = _Training(job, objective, targets, initial, lambda record: _ends(record, until_epoch, stop_when))
    if state.best is not None and until_epoch is not None and state.epoch >= until_epoch:
        return _load_best(job, state)
    for stage in job.config.stages[first:]:
        with graphs_freed():
            state, stopped = _train_stage(training, stage, state)
        if stopped:
            break
    return _best_of(state).record


def _begin(job: TrainingJob) -> tuple[TrainingState, InitialWeights]:
    """Commit the weights that training starts with."""
    if job.config.batch_norm_statistics == "reestimate":
        _reestimate(job, job.config.stages[0], job.model)
    state = TrainingState()
    # Even a run that diverges in its first epoch leaves finite weights behind.
    return state, link_initial_weights(commit_checkpoint(job.folder, job.model, state), job.model)


def _stage_position(job: TrainingJob, state: TrainingState, start_from: Path | None) -> int:
    """Return which stage comes first: that of the state, or the very first."""
    if state.stage is None:
        return 0
    names = [stage.name for stage in job.config.stages]
    if state.stage.name not in names:
        what = f"stopped in stage {state.stage.name!r}, which the recipe doesn't have"
        raise CheckpointError(what, where=str(start_from))
    return names.index(state.stage.name)


def _ends(record: EpochRecord, until_epoch: int | None, stop_when: StopCondition | None) -> bool:
    reached = until_epoch is not None and record.epoch >= until_epoch
    # Asked in any case: it may keep count of the epochs.
    return (stop_when is not None and stop_when(record)) or reached


def _train_stage(training: _Training, stage: StageConfig, state: TrainingState) -> tuple[TrainingState, bool]:
    """Train a stage, or what is left of it, and put the best weights so far into the model.

    Args:
        training: What all stages share.
        stage: The stage as the recipe has it.
        state: Between two stages, or in this one where an earlier training of it stood.

    Returns:
        The state after the stage, and whether training ends here, whatever stages are left.
    """
    if state.stage is not None and state.stage.finished:
        return _skip_stage(training, stage, state), False
    job, model = training.job, stage_model(training.job, stage)
    resolved, plan = _settle_stage(training, stage, model, state)
    begun = state.stage or _stage_state(resolved, plan, state)
    state, done = replace(state, stage=begun), state.epoch - begun.epochs_before
    source = open_stage_source(job, resolved, plan, model, first_epoch=begun.epochs_before, done=done)
    with memory_errors(job.config.pass_size), job.stop.deferred(), source:
        setup = _prepare(training, resolved, model, state.slots, plan.halves)
        state = replace(state, learned=state.learned | learning_places(model))
        weights = _kept_weights(job, resolved, model, setup, state.learned)
        state = _restore(state, setup, weights)
        job.listener.stage_started(_announcement(job, stage, begun, setup))
        callback = StageCallback(
            job,
            state,
            setup,
            weights,
            validate=source.validate,
            initial=training.initial,
            stop_when=training.stop_when,
        )
        _fit(callback, training.targets, source.batches(), done)
    state = replace(callback.state, stage=None, slots=_slots_after(setup, model))
    if not _has_best_weights(job, model, state):
        _load_best(job, state)
    return state, callback.stopped


def _skip_stage(training: _Training, stage: StageConfig, state: TrainingState) -> TrainingState:
    """Return the state after a stage that an earlier training has finished, with the best weights in the model."""
    job = training.job
    # The optimizer is built for its slots alone, which the next stage goes on with.
    setup = _prepare(training, _with_learning_rate(stage, state), job.model, state.slots)
    restore_optimizer(state, setup.learner)
    _load_best(job, state)
    return replace(state, stage=None, slots=_slots_after(setup, job.model), arrays={})


def _prepare(
    training: _Training, stage: StageConfig, model: keras.Model, slots: Slots, halves: Halves | None = None
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
    """Return the stage with a number for its learning rate, and its plan for features; measured once, at its start."""
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
    """Return a stage with the learning rate that it began with, which may have been measured then."""
    return stage if state.stage is None else stage.model_copy(update={"learning_rate": state.stage.learning_rate})


def _stage_state(stage: StageConfig, plan: FeaturePlan, state: TrainingState) -> StageState:
    """Return the state of a stage that begins now."""
    return StageState(
        name=stage.name,
        epochs_before=state.epoch,
        steps_before=state.step,
        learning_rate=stage.peak_rate,
        features_cut="off" if plan.halves is None else plan.halves.boundary,
        features_reason=plan.reason,
    )


def _restore(state: TrainingState, setup: StageSetup, weights: KeptWeights) -> TrainingState:
    """Give a stage what its checkpoint holds beside the weights, and return the state without that."""
    if state.arrays:
        restore_weights(state, weights)
        restore_optimizer(state, setup.learner)
    # They are of the end of an epoch: a checkpoint in the middle of the next must not pass for it.
    return replace(state, arrays={})


def _load_best(job: TrainingJob, state: TrainingState) -> EpochRecord:
    """Put the best weights so far into the model and return the record of their epoch."""
    best = _best_of(state)
    load_checkpoint(best.checkpoint, job.model, state.learned)
    return best.record


def _best_of(state: TrainingState) -> BestEpoch:
    if state.best is None:
        raise ImagetuneError("training ended without an epoch")
    return state.best


def _has_best_weights(job: TrainingJob, model: keras.Model, state: TrainingState) -> bool:
    """Tell whether the model has the weights of the best epoch as it is: the last one, learned in place."""
    # Averages are in the checkpoint only: the learner has got its own weights back.
    in_place = model is job.model and job.config.average.name == "none"
    return state.best is None or (in_place and state.best.record.epoch == state.epoch)


def _slots_after(setup: StageSetup, model: keras.Model) -> Slots:
    return read_slots(setup.learner.optimizer, find_trainable_variables(model))


def _fit(callback: StageCallback, targets: TrainingTargets, batches: Iterable[IndexedBatch], done: int) -> None:
    """Run the epochs of a stage that are left.

    Args:
        callback: Of the stage.
        targets: Of each training image.
        batches: Of the epochs that are left.
        done: Epochs of the stage that an earlier training has had.
    """
    job, setup = callback.job, callback.setup
    feed = Feed(batches, targets, first_step=callback.state.epoch * job.steps_per_epoch)
    try:
        setup.learner.fit(
            iter(feed),
            initial_epoch=done,
            epochs=setup.stage.epochs,
            steps_per_epoch=job.steps_per_epoch,
            callbacks=[callback],
            shuffle=False,
            verbose=0,
        )
    except Exception:
        # Ctrl-C reaches workers that are still starting, too: their death is not what went wrong.
        if job.stop.signal_number is not None:
            callback.commit()
            job.stop.check()
        if feed.failure is not None:
            raise feed.failure from None
        raise


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
    """Take BatchNorm's statistics anew from training images as they are, in random order."""
    with stage_batches(job, stage, epochs=1, augmentation="none", workers=0) as batches:
        reestimate_statistics(model, _images(batches))


def _images(batches: Iterable[Batch]) -> Iterator[np.ndarray]:
    for batch in batches:
        yield batch.images


def _announcement(job: TrainingJob, stage: StageConfig, begun: StageState, setup: StageSetup) -> StageStarted:
    return StageStarted(
        name=stage.name,
        index=job.config.stages.index(stage),
        stages=len(job.config.stages),
        epochs=stage.epochs,
        first_epoch=begun.epochs_before + 1,
        steps_per_epoch=job.steps_per_epoch,
        rates=setup.learning_rates,
        trainable_parameters=setup.trainable_parameters,
        parameters=setup.parameters,
        found_rate=begun.learning_rate if stage.learning_rate == "auto" else None,
        features=begun.features_reason,
    )
