"""What a training would cost, from one batch of each stage."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass

from imagetune.data.pipeline import steps_per_epoch
from imagetune.recipe.train import StageConfig
from imagetune.training.faults import memory_errors
from imagetune.training.feed import Feed
from imagetune.training.job import TrainingJob, answers_of, objective_of, stage_batches, stage_model
from imagetune.training.stages import prepare_stage

SOME_RATE = 1e-4


@dataclass(frozen=True)
class StagePlan:
    """A stage as it would run.

    Attributes:
        stage: The stage's values.
        steps_per_epoch: Optimizer steps an epoch.
        seconds_per_step: Measured on one batch, reading left out.
        rates: Peak learning rate of each group of layers, input to output; with ``auto`` the share that each would have
            of what is measured.
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
    steps = steps_per_epoch(len(job.pictures.train), job.config.pass_size)
    objective, answers = objective_of(job), answers_of(job)
    plans = []
    for stage in job.config.stages:
        with stage_batches(job, stage, epochs=1, workers=0) as batches:
            batch = next(iter(Feed(batches, answers)))
        model = stage_model(job, stage)
        timed = _with_some_rate(stage)
        setup = prepare_stage(model, job.backbone, timed, job.config, steps_per_epoch=steps, objective=objective)
        with memory_errors(job.config.pass_size):
            setup.learner.train_on_batch(*batch)  # the first step also compiles
            began = time.perf_counter()
            setup.learner.train_on_batch(*batch)
            seconds = time.perf_counter() - began
        unit = SOME_RATE if stage.learning_rate == "auto" else 1.0
        rates = {group: rate / unit for group, rate in setup.rates.items()}
        plans.append(StagePlan(stage, steps, seconds, rates, setup.trainable_parameters, setup.parameters))
    return plans


def _with_some_rate(stage: StageConfig) -> StageConfig:
    """Return the stage with a number for ``auto``: what a step costs doesn't depend on it."""
    return stage.model_copy(update={"learning_rate": SOME_RATE}) if stage.learning_rate == "auto" else stage


def peak_memory_bytes() -> int:
    """Return the most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
