"""What a training would cost, from one batch of each stage."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass

from imagetune.data.pipeline import steps_per_epoch, training_batches
from imagetune.recipe.train import StageConfig
from imagetune.training.faults import memory_errors
from imagetune.training.feed import Feed
from imagetune.training.fit import Pictures, TrainingJob
from imagetune.training.stages import prepare_stage


@dataclass(frozen=True)
class StagePlan:
    """A stage as it would run.

    Attributes:
        stage: The stage's values.
        steps_per_epoch: Optimizer steps an epoch.
        seconds_per_step: Measured on one batch, reading left out.
        rates: Peak learning rate of each group of layers, input to output.
        trainable_parameters: Parameters that would learn.
        parameters: All parameters.
    """

    stage: StageConfig
    steps_per_epoch: int
    seconds_per_step: float
    rates: dict[str, float]
    trainable_parameters: int
    parameters: int

    @property
    def seconds(self) -> float:
        """Estimated training time of the stage."""
        return self.seconds_per_step * self.steps_per_epoch * self.stage.epochs


def plan_stages(job: TrainingJob) -> list[StagePlan]:
    """Run one batch through each stage and time it. The model's weights change; nothing is written."""
    batch = _one_batch(job.pictures, job.config.pass_size, job.seed)
    steps = steps_per_epoch(len(job.pictures.train), job.config.pass_size)
    plans = []
    for stage in job.config.stages:
        setup = prepare_stage(job.model, job.backbone, stage, job.config, steps_per_epoch=steps)
        with memory_errors(job.config.pass_size):
            setup.learner.train_on_batch(*batch)  # the first step also compiles
            began = time.perf_counter()
            setup.learner.train_on_batch(*batch)
            seconds = time.perf_counter() - began
        plans.append(StagePlan(stage, steps, seconds, setup.rates, setup.trainable_parameters, setup.parameters))
    return plans


def peak_memory_bytes() -> int:
    """Return the most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _one_batch(pictures: Pictures, batch_size: int, seed: int) -> tuple[object, ...]:
    data = pictures.config
    with training_batches(
        pictures.train,
        pictures.class_names,
        image=data.image,
        augmentation=data.augmentation,
        batch_size=batch_size,
        seed=seed,
        epochs=1,
        workers=0,
        max_pixels=data.max_pixels,
    ) as batches:
        return next(iter(Feed(batches, None, len(pictures.class_names))))
