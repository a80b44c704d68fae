"""The judgement of a finished stage: whether it clearly beats the weights that it started from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imagetune.errors import CheckpointError
from imagetune.model.build import find_value_scale
from imagetune.recipe.sections.train import StageConfig
from imagetune.training.loop.checkpoints import load_checkpoint
from imagetune.training.loop.state import TrainingState
from imagetune.training.objectives.metrics import compute_losses
from imagetune.training.setup.events import StageJudged
from imagetune.training.setup.job import TrainingJob
from imagetune.training.setup.validation import encode_validation_targets, predict_validation_images


def judge_stage(job: TrainingJob, stage: StageConfig, state: TrainingState) -> TrainingState:
    """Return the state with the best epoch from before a stage, unless the stage's own beats it by more than noise.

    The two are compared image by image: the mean difference of their validation losses has to exceed
    ``min_gain_standard_errors`` of its standard errors. A best epoch that was chosen among many by the same images is
    flattered by chance; what it gains must be more than that.

    Args:
        job: The training job, whose model has any of its weights afterwards.
        stage: The stage.
        state: State at the end of the stage.
    """
    if not _has_rival(job, stage, state) or state.stage is None or state.best is None:
        if job.images.val and state.best is not None and state.best.record.stage != stage.name:
            job.listener.stage_judged(StageJudged(stage.name, kept=False, gain=None))
        return state
    baseline = job.folder / state.stage.baseline
    before, after = (_compute_losses_of(job, path, state) for path in (baseline, state.best.checkpoint))
    gain = before - after
    error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else 0.0
    required = stage.min_gain_standard_errors or 0.0
    kept = float(gain.mean()) > required * error
    job.listener.stage_judged(StageJudged(stage.name, kept, float(gain.mean()), error, required))
    if kept:
        return state
    earlier = load_checkpoint(baseline, job.model, state.learned).best
    if earlier is None:
        raise CheckpointError("has no record of its epoch", where=str(baseline))
    return replace(state, best=earlier)


def _has_rival(job: TrainingJob, stage: StageConfig, state: TrainingState) -> bool:
    """Return whether there are validation images, and a best epoch of this stage that replaced an earlier one."""
    begun, best = state.stage, state.best
    if not job.images.val or begun is None or best is None or stage.min_gain_standard_errors is None:
        return False
    return bool(begun.baseline) and best.checkpoint.name != begun.baseline


def _compute_losses_of(job: TrainingJob, checkpoint: Path, state: TrainingState) -> NDArray[np.float64]:
    """Return the validation loss (n,) of each image with the weights of a checkpoint."""
    load_checkpoint(checkpoint, job.model, state.learned)
    predictions = predict_validation_images(job.model, job.images, batch_size=job.config.pass_size)
    targets = encode_validation_targets(job.images)
    return compute_losses(job.images.config.task, targets, predictions, find_value_scale(job.model))
