"""A stage whose head is solved instead of trained: one epoch, from the features of the frozen backbone."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.core.processes import limit_blas_threads
from imagetune.errors import ImagetuneError
from imagetune.model.build import LOGITS, find_value_scale
from imagetune.model.inference import predict_probabilities
from imagetune.model.split_model import SplitModel
from imagetune.model.trainable import TrainableSummary, find_trainable_positions, set_trainable
from imagetune.recipe.sections.train import StageConfig
from imagetune.training.feature_cache.features import compute_solver_features, split_into_batches
from imagetune.training.feature_cache.plan import FeaturePlan, plan_features
from imagetune.training.head_solver.rows import build_problem, deal_image_folds
from imagetune.training.head_solver.solve import HeadProblem, Scaler, choose_strength, solve_head
from imagetune.training.loop.checkpoints import (
    InitialWeights,
    commit_checkpoint,
    get_checkpoint_path,
    prune_checkpoints,
)
from imagetune.training.loop.resume import collect_solved_arrays
from imagetune.training.loop.source import compute_val_features, validate_features
from imagetune.training.loop.state import BestEpoch, StageState, TrainingState, improves
from imagetune.training.objectives.metrics import compute_prediction_metrics
from imagetune.training.setup.events import EpochRecord, StageStarted
from imagetune.training.setup.job import TrainingJob
from imagetune.training.setup.keras_feed import TrainingTargets
from imagetune.training.setup.stages import Objective

_MAX_CHOOSING_IMAGES = 4000


def solve_stage(
    job: TrainingJob,
    stage: StageConfig,
    state: TrainingState,
    *,
    objective: Objective,
    targets: TrainingTargets,
    initial: InitialWeights,
) -> tuple[TrainingState, EpochRecord]:
    """Solve the head of the job's model, commit a checkpoint, and return the state after the stage and its record.

    Args:
        job: The training job.
        stage: The stage, with ``solve: true``.
        state: State between two stages.
        objective: Training objective.
        targets: Targets of the training images.
        initial: Weights that training started with.

    Raises:
        StoppedError: A signal was received.
        DataError: An image vanished.
        ResourceError: The disk is full.
    """
    plan = plan_features(job, stage, job.model)
    summary = set_trainable(job.model, job.backbone, "none", batch_norm="frozen")
    job.listener.stage_started(_build_announcement(job, stage, state, plan, summary))
    if plan.halves is None:
        raise ImagetuneError(f"the head of stage {stage.name!r} can't be solved: {plan.reason}")
    val = compute_val_features(job, stage, plan.halves)
    train = compute_solver_features(job, stage, plan, plan.halves, first_epoch=state.epoch)
    began = time.perf_counter()
    problem, scaler = build_problem(job, train, objective=objective, targets=targets)
    found = _choose_strength(job, problem, versions=len(train))
    solve_into_model(job.model, problem, scaler, strength=found["strength"])
    seconds = time.perf_counter() - began
    record = EpochRecord(
        stage=stage.name,
        epoch=state.epoch + 1,
        # A step of its own: checkpoints are named by steps.
        step=state.step + 1,
        train=_compute_train_metrics(job, plan.halves, train[0], targets),
        val=validate_features(job, plan.halves, val),
        learning_rate=None,
        images_per_second=len(job.images.train) / max(seconds, 1e-9),
        solved=found,
    )
    return _commit(job, stage, state, record, plan, initial), record


def solve_into_model(model: keras.Model, problem: HeadProblem, scaler: Scaler, *, strength: float) -> None:
    """Solve the head on all rows of a problem, and set it as the weights of the model's layer of logits.

    Args:
        model: A model made by ``build_model``; its head changes in place.
        problem: The problem of scaled features.
        scaler: The scaler, which is folded into the head.
        strength: C, the inverse of the penalty.
    """
    with limit_blas_threads(problem.features.size * problem.targets.shape[1]):
        head = scaler.fold_into(solve_head(problem, strength))
    model.get_layer(LOGITS).set_weights([head.kernel.astype(np.float32), head.bias.astype(np.float32)])


def _choose_strength(job: TrainingJob, problem: HeadProblem, *, versions: int) -> dict[str, float]:
    """Return the strength that cross-validation chooses, with its loss and the number of rows to solve on."""
    rows, count = len(problem.features), len(job.images.train)
    folds, tested = np.tile(deal_image_folds(job.images, seed=job.seed), versions), np.arange(rows) < count
    # Some thousand images are enough to choose a penalty, which then counts the images that it is used for.
    few = np.tile(_draw_images(count, job.seed), versions)
    with limit_blas_threads(problem.features.size * problem.targets.shape[1]):
        chosen = choose_strength(problem.select(few), folds[few], tested[few], check=job.stop.check)
    loss = {} if math.isnan(chosen.loss) else {"cross_validated_loss": chosen.loss}
    return {"strength": chosen.strength, **loss, "rows": float(rows)}


def _draw_images(count: int, seed: int) -> NDArray[np.bool_]:
    """Return which (n,) images the penalty is chosen on: all, or some thousands drawn at random."""
    chosen = np.ones(count, np.bool_)
    if count > _MAX_CHOOSING_IMAGES:
        chosen[np.random.default_rng(seed).permutation(count)[_MAX_CHOOSING_IMAGES:]] = False
    return chosen


def _compute_train_metrics(
    job: TrainingJob, halves: SplitModel, features: NDArray[np.float32], targets: TrainingTargets
) -> dict[str, float]:
    """Return the metrics of the head for the images that it was solved on, without augmentation."""
    shaped = features.reshape(len(features), *halves.feature_shape)
    predictions = predict_probabilities(halves.predictions, split_into_batches(shaped))
    scale, known = find_value_scale(job.model), targets.targets
    if scale is not None:
        known = known * np.float32(scale.std) + np.float32(scale.mean)
    return compute_prediction_metrics(job.images.config.task, known, predictions, scale)


def _commit(
    job: TrainingJob,
    stage: StageConfig,
    state: TrainingState,
    record: EpochRecord,
    plan: FeaturePlan,
    initial: InitialWeights,
) -> TrainingState:
    """Commit the head, report its record, and return the state with the best epoch so far."""
    path, watched = get_checkpoint_path(job.folder, record.step), stage.early_stopping or job.config.early_stopping
    best = state.best
    if best is None or watched.keep == "last" or improves(record, best.record, watched):
        best = BestEpoch(record, path)
    done = StageState(
        name=stage.name,
        epochs_before=state.epoch,
        steps_before=state.step,
        learning_rate=0.0,
        features_reason=plan.reason,
        finished=True,
    )
    state = replace(
        state,
        epoch=record.epoch,
        step=record.step,
        best=best,
        last=record,
        learned=state.learned | find_trainable_positions(job.model),
        stage=done,
    )
    # Something to resume from: a stage that is finished needs no optimizer, but its dropout's random state.
    commit_checkpoint(job.folder, job.model, replace(state, arrays=collect_solved_arrays(job.model)), initial)
    prune_checkpoints(job.folder)
    job.listener.epoch_done(record)
    job.stop.check()
    return replace(state, stage=None)


def _build_announcement(
    job: TrainingJob, stage: StageConfig, state: TrainingState, plan: FeaturePlan, summary: TrainableSummary
) -> StageStarted:
    return StageStarted(
        name=stage.name,
        index=job.config.stages.index(stage),
        stages=len(job.config.stages),
        epochs=1,
        first_epoch=state.epoch + 1,
        steps_per_epoch=job.steps_per_epoch,
        learning_rates={},
        trainable_parameters=summary.trainable_parameters,
        parameters=summary.trainable_parameters + summary.frozen_parameters,
        features=plan.reason,
        solved=True,
    )
