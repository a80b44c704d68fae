"""How long the work on the device takes: a stage's step and its frozen part, validation, and moving images there."""

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
from imagetune.model.split_model import cut_model, frozen_boundaries
from imagetune.recipe.train import StageConfig
from imagetune.training.feature_cache.plan import FeaturePlan, plan_features
from imagetune.training.setup.faults import memory_errors
from imagetune.training.setup.job import TrainingJob, stage_batches, stage_model
from imagetune.training.setup.keras_feed import Feed, TrainingTargets
from imagetune.training.setup.stages import Objective, prepare_stage

# What a step costs doesn't depend on it.
ANY_LEARNING_RATE = 1e-4
# Rounds of a call: until the seconds are over, but at least and at most so many; slow calls are heard twice.
CALL_SECONDS = 1.2
MIN_ROUNDS, MAX_ROUNDS = 3, 7
SLOW_SECONDS = 6.0
# A smaller image that is worth a try: this share of the side, in whole blocks of what networks halve five times.
SMALLER_SHARE = 0.8
SIDE_STEP = 32


@dataclass(frozen=True)
class StageTimes:
    """What a stage costs on the device, measured on a batch in memory.

    Attributes:
        plan: What the stage does about the features of its frozen layers.
        step: The whole training step from the images on, forward, backward and update.
        compile_seconds: What the first calls of a training took beyond later ones.
        boundary: The last place behind frozen layers alone where the model can be cut; empty where there is none.
        frozen: Forward pass up to there.
        cached_step: Training step from cached features on; None where the stage caches none.
        prepare: Blending the batch and asking the teacher; None where there is neither.
    """

    plan: FeaturePlan
    step: Timing
    compile_seconds: float
    boundary: str = ""
    frozen: Timing | None = None
    cached_step: Timing | None = None
    prepare: Timing | None = None


def time_stage(job: TrainingJob, stage: StageConfig, *, objective: Objective, targets: TrainingTargets) -> StageTimes:
    """Return what a stage costs on the device, timed on one of its own batches. The model's weights change.

    Args:
        job: What all stages share; its batch size is a number.
        stage: Its learning rate doesn't matter.
        objective: What the model is to learn.
        targets: Of each training image.

    Raises:
        ResourceError: Memory ran out.
        StoppedError: A signal came.
        DataError: An image vanished.
    """
    stage = stage.model_copy(update={"learning_rate": ANY_LEARNING_RATE})
    batch, model = first_batch(job, stage), stage_model(job, stage)
    count, prepared = len(batch.images), next(iter(Feed([batch], targets)))
    with _measuring(job):
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
        # The whole step first: it is what `train.cache: off` would cost.
        setup = prepare()
        step, compiling = time_calls(lambda: setup.learner.train_on_batch(*prepared), count)
        boundary, lower = _frozen_part(job, stage, model, plan)
        frozen, cached_step, lower_compiling = None, None, 0.0
        if lower is not None:
            frozen, lower_compiling = time_calls(lambda: lower.predict_on_batch(batch.images), count)
        if plan.halves is not None:
            features = np.asarray(plan.halves.lower.predict_on_batch(batch.images), np.float32)
            setup = prepare(halves=plan.halves)
            cached_step, compiling = time_calls(lambda: setup.learner.train_on_batch(features, *prepared[1:]), count)
            compiling += lower_compiling
    return StageTimes(plan, step, compiling, boundary, frozen, cached_step, _time_preparing(batch, targets))


def time_forward(job: TrainingJob, model: keras.Model, images: np.ndarray) -> tuple[Timing, float]:
    """Return what a forward pass takes an image, and the seconds that the first call took beyond the others.

    Args:
        job: Its batch size goes into messages, its stop request is asked.
        model: Takes the images.
        images: (b, height, width, 3) uint8.

    Raises:
        ResourceError: Memory ran out.
        StoppedError: A signal came.
    """
    with _measuring(job):
        return time_calls(lambda: model.predict_on_batch(images), len(images))


def time_transfer(images: np.ndarray) -> Timing:
    """Return the time an image that copying into a batch, and the batch to the device, takes.

    Args:
        images: (b, height, width, 3) uint8.
    """
    rows = list(images)

    def move() -> None:
        batch = keras.ops.convert_to_tensor(np.stack(rows))
        # Reading one number back waits until all are there.
        keras.ops.convert_to_numpy(batch[:1, :1, :1, :1])

    return time_calls(move, len(images))[0]


def time_calls(work: Callable[[], object], images: int) -> tuple[Timing, float]:
    """Return what ``work`` takes an image, and what its first call took beyond the others, in seconds.

    Args:
        work: Works on a batch and waits for the result.
        images: How many the batch has.
    """
    first = _seconds(work)  # compiles, and allocates
    rounds: list[float] = []
    while len(rounds) < MAX_ROUNDS:
        rounds.append(_seconds(work))
        if sum(rounds) > (SLOW_SECONDS if len(rounds) < MIN_ROUNDS else CALL_SECONDS):
            break
    timing = Timing(tuple(seconds / images for seconds in rounds))
    return timing, max(first - timing.seconds * images, 0.0)


def first_batch(job: TrainingJob, stage: StageConfig) -> Batch:
    """Return the first batch of a stage, loaded by this process."""
    with stage_batches(job, stage, epochs=1, workers=0) as batches:
        return next(batches)


def find_smaller_size(size: tuple[int, int], min_side: int) -> tuple[int, int] | None:
    """Return a smaller image size that is worth a try, None where there is none.

    Args:
        size: Height and width in pixels.
        min_side: Smallest side that the backbone takes.
    """
    height, width = (round(SMALLER_SHARE * side / SIDE_STEP) * SIDE_STEP for side in size)
    return (height, width) if min_side <= min(height, width) and height < size[0] and width < size[1] else None


def _frozen_part(
    job: TrainingJob, stage: StageConfig, model: keras.Model, plan: FeaturePlan
) -> tuple[str, keras.Model | None]:
    if plan.halves is not None:
        return plan.halves.boundary, plan.halves.lower
    for boundary in reversed(frozen_boundaries(model, job.backbone, stage.unfreeze)):
        if (halves := cut_model(model, job.backbone, boundary)) is not None:
            return boundary, halves.lower
    return "", None


def _time_preparing(batch: Batch, targets: TrainingTargets) -> Timing | None:
    if targets.teacher is None and targets.mix.name == "none":
        return None
    return time_calls(lambda: next(iter(Feed([batch], targets))), len(batch.images))[0]


@contextmanager
def _measuring(job: TrainingJob) -> Iterator[None]:
    with memory_errors(job.config.pass_size), job.stop.deferred():
        yield
    job.stop.check()


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
