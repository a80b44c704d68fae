"""Timing of the work on the device: training step, frozen layers, forward pass and transfer of images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np

from imagetune.data.loading.pipeline import Batch
from imagetune.data.loading.timing import Timing
from imagetune.model.split_model import list_frozen_boundaries, split_model_at
from imagetune.recipe.sections.train import StageConfig
from imagetune.training.feature_cache.plan import FeaturePlan, plan_features
from imagetune.training.setup.faults import convert_memory_errors
from imagetune.training.setup.job import TrainingJob, build_stage_model, open_stage_batches
from imagetune.training.setup.keras_feed import Feed, TrainingTargets
from imagetune.training.setup.stages import Objective, prepare_stage

# The time of a step doesn't depend on the learning rate.
ANY_LEARNING_RATE = 1e-4
# A call is repeated until this time is over, at least and at most so many rounds; slow calls have fewer.
CALL_SECONDS = 1.2
MIN_ROUNDS, MAX_ROUNDS = 3, 7
SLOW_SECONDS = 6.0
# Smaller image size to try: this share of each side, in multiples of 32, as networks halve the image five times.
SMALLER_SHARE = 0.8
SIDE_STEP = 32


@dataclass(frozen=True)
class StageTimes:
    """Times of a stage's work on the device, measured on a batch in memory.

    Attributes:
        plan: Plan of the stage's feature cache.
        step: Time of a whole training step from images: forward, backward and update.
        compile_seconds: Additional time of the first calls.
        boundary: The last place after frozen layers alone where the model can be split; empty where there is none.
        frozen: Time of the forward pass up to the boundary; None without one.
        cached_step: Time of a training step from cached features; None where the stage caches none.
        prepare: Time of mixing and of the teacher's predictions; None where there is neither.
    """

    plan: FeaturePlan
    step: Timing
    compile_seconds: float
    boundary: str = ""
    frozen: Timing | None = None
    cached_step: Timing | None = None
    prepare: Timing | None = None


def time_stage(job: TrainingJob, stage: StageConfig, *, objective: Objective, targets: TrainingTargets) -> StageTimes:
    """Return the times of a stage's work on the device, on one of its batches; the model's weights change.

    Args:
        job: The training job, whose batch size is a number.
        stage: The stage; its learning rate has no effect.
        objective: Training objective.
        targets: Targets of the training images.

    Raises:
        ResourceError: Memory ran out.
        StoppedError: A signal was received.
        DataError: An image vanished.
    """
    stage = stage.model_copy(update={"learning_rate": ANY_LEARNING_RATE})
    batch, model = load_first_batch(job, stage), build_stage_model(job, stage)
    count, prepared = len(batch.images), next(iter(Feed([batch], targets)))
    with _guard_measurement(job):
        plan = plan_features(job, stage, model)
        prepare = partial(
            prepare_stage,
            model,
            job.backbone,
            stage,
            job.config,
            steps_per_epoch=job.steps_per_epoch,
            objective=objective,
        )
        # The whole step is timed in any case: it is the cost with `train.cache: off`.
        setup = prepare()
        step, compiling = time_calls(lambda: setup.learner.train_on_batch(*prepared), count)
        boundary, lower = _find_frozen_part(job, stage, model, plan)
        frozen, cached_step, lower_compiling = None, None, 0.0
        if lower is not None:
            frozen, lower_compiling = time_calls(lambda: lower.predict_on_batch(batch.images), count)
        if plan.halves is not None:
            features = np.asarray(plan.halves.lower.predict_on_batch(batch.images), np.float32)
            setup = prepare(halves=plan.halves)
            cached_step, compiling = time_calls(lambda: setup.learner.train_on_batch(features, *prepared[1:]), count)
            compiling += lower_compiling
    return StageTimes(plan, step, compiling, boundary, frozen, cached_step, _time_preparation(batch, targets))


def time_forward(job: TrainingJob, model: keras.Model, images: np.ndarray) -> tuple[Timing, float]:
    """Return the time per image of a forward pass, and the additional seconds of the first call.

    Args:
        job: The training job, for its batch size in messages and its stop request.
        model: A model of the images.
        images: (b, height, width, 3) uint8.

    Raises:
        ResourceError: Memory ran out.
        StoppedError: A signal was received.
    """
    with _guard_measurement(job):
        return time_calls(lambda: model.predict_on_batch(images), len(images))


def time_transfer(images: np.ndarray) -> Timing:
    """Return the time per image of copying images into a batch and the batch to the device.

    Args:
        images: (b, height, width, 3) uint8.
    """
    rows = list(images)

    def move() -> None:
        batch = keras.ops.convert_to_tensor(np.stack(rows))
        # The transfer is asynchronous; reading one number back waits for all.
        keras.ops.convert_to_numpy(batch[:1, :1, :1, :1])

    return time_calls(move, len(images))[0]


def time_calls(work: Callable[[], object], images: int) -> tuple[Timing, float]:
    """Return the time per image of a call, and the additional seconds of its first run, which compiles.

    Args:
        work: Function that processes a batch and waits for the result.
        images: Number of images in the batch.
    """
    first = _time_call(work)  # compiles, and allocates
    rounds: list[float] = []
    while len(rounds) < MAX_ROUNDS:
        rounds.append(_time_call(work))
        if sum(rounds) > (SLOW_SECONDS if len(rounds) < MIN_ROUNDS else CALL_SECONDS):
            break
    timing = Timing(tuple(seconds / images for seconds in rounds))
    return timing, max(first - timing.seconds * images, 0.0)


def load_first_batch(job: TrainingJob, stage: StageConfig) -> Batch:
    """Return the first training batch of a stage, loaded in this process."""
    with open_stage_batches(job, stage, epochs=1, workers=0) as batches:
        return next(batches)


def find_smaller_size(size: tuple[int, int], min_side: int, size_step: int = 1) -> tuple[int, int] | None:
    """Return a smaller image size to try, as (height, width); None where there is none.

    Args:
        size: Height and width in pixels.
        min_side: Smallest side in pixels that the backbone takes.
        size_step: Number that its sides must be multiples of.
    """
    step = size_step if SIDE_STEP % size_step else SIDE_STEP
    height, width = (round(SMALLER_SHARE * side / step) * step for side in size)
    return (height, width) if min_side <= min(height, width) and height < size[0] and width < size[1] else None


def _find_frozen_part(
    job: TrainingJob, stage: StageConfig, model: keras.Model, plan: FeaturePlan
) -> tuple[str, keras.Model | None]:
    if plan.halves is not None:
        return plan.halves.boundary, plan.halves.lower
    for boundary in reversed(list_frozen_boundaries(model, job.backbone, stage.unfreeze)):
        if (halves := split_model_at(model, job.backbone, boundary)) is not None:
            return boundary, halves.lower
    return "", None


def _time_preparation(batch: Batch, targets: TrainingTargets) -> Timing | None:
    if targets.teacher is None and targets.mix.name == "none":
        return None
    return time_calls(lambda: next(iter(Feed([batch], targets))), len(batch.images))[0]


@contextmanager
def _guard_measurement(job: TrainingJob) -> Iterator[None]:
    with convert_memory_errors(job.config.pass_size), job.stop.deferred():
        yield
    job.stop.check()


def _time_call(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
