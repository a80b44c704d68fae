"""Training plan of a dry run: parameters, learning rates and estimated time of each stage, from one batch each."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass

from imagetune.recipe.sections.train import StageConfig
from imagetune.training.measure.timing import ANY_LEARNING_RATE, StageTimes, time_stage
from imagetune.training.setup.job import TrainingJob, build_objective, build_stage_model, build_targets
from imagetune.training.setup.stages import prepare_stage


@dataclass(frozen=True)
class StagePlan:
    """Plan of a stage: what it would train, and its estimated time.

    Attributes:
        stage: Values of the stage.
        steps_per_epoch: Number of passes in an epoch.
        learning_rates: Peak learning rate of each group of layers, input to output; with ``auto`` each one's share of
            the learning rate to be found.
        trainable_parameters: Number of trainable parameters.
        parameters: Number of all parameters.
        features: Whether features of frozen layers are cached, and why, as a clause.
        features_seconds: Estimated time to compute features once; 0 where they aren't cached.
        epoch_seconds: Estimated time of an epoch after that, without loading.
    """

    stage: StageConfig
    steps_per_epoch: int
    learning_rates: dict[str, float]
    trainable_parameters: int
    parameters: int
    features: str
    features_seconds: float
    epoch_seconds: float

    @property
    def seconds(self) -> float:
        """Estimated training time of the stage in seconds."""
        return self.features_seconds + self.epoch_seconds * self.stage.epochs


def plan_stages(job: TrainingJob) -> list[StagePlan]:
    """Return the plan of each stage, timed on one of its batches; the model's weights change, nothing is written.

    Raises:
        ResourceError: Memory ran out.
        StoppedError: A signal came.
        DataError: An image vanished.
    """
    count, steps = len(job.images.train), job.steps_per_epoch
    objective, targets = build_objective(job), build_targets(job)
    plans = []
    for stage in job.config.stages:
        times = time_stage(job, stage, objective=objective, targets=targets)
        timed = _with_any_learning_rate(stage)
        setup = prepare_stage(
            build_stage_model(job, stage), job.backbone, timed, job.config, steps_per_epoch=steps, objective=objective
        )
        # With `auto` only the groups' shares of the learning rate are known yet.
        unit = ANY_LEARNING_RATE if stage.learning_rate == "auto" else 1.0
        plans.append(
            StagePlan(
                stage,
                steps,
                {group: value / unit for group, value in setup.learning_rates.items()},
                setup.trainable_parameters,
                setup.parameters,
                times.plan.reason,
                _estimate_features_seconds(times, count, len(job.images.val)),
                count * (times.cached_step or times.step).seconds,
            )
        )
    return plans


def _estimate_features_seconds(times: StageTimes, train: int, val: int) -> float:
    if times.cached_step is None or times.frozen is None:
        return 0.0
    return times.frozen.seconds * (train * times.plan.copies + val)


def _with_any_learning_rate(stage: StageConfig) -> StageConfig:
    """Return the stage with any number for ``auto``: the time of a step doesn't depend on it."""
    return stage.model_copy(update={"learning_rate": ANY_LEARNING_RATE}) if stage.learning_rate == "auto" else stage


def measure_peak_memory() -> int:
    """Return the peak main memory of this process in bytes."""
    # Linux counts in KiB, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
