"""Median stopping rule: a trial ends early where its best metric is worse than the median of earlier trials' means.

After Golovin et al. 2017 (Google Vizier, section 3.2.2): a trial is stopped after an epoch if its best metric so far
is strictly worse than the median, over earlier trials, of their metrics' running mean up to that epoch. It needs no
model of learning curves, and compares a best metric with means, so that it errs on the side of going on.

Whether a trial counts depends on its metrics alone, never on what became of it later, so that the decision doesn't
depend on how many trials run at a time: one that had reached the epoch counts, even if it failed afterwards; one that
had ended before counts with the mean of what it had; one that failed before doesn't count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median

from imagetune.recipe.sections.train import StageConfig
from imagetune.search.proposers.finalists import Direction

# The median of fewer trials would stop one by chance.
MIN_TRIALS = 5


def falls_behind(best: float, earlier: Sequence[Sequence[float]], *, epoch: int, direction: Direction) -> bool:
    """Return whether the median stopping rule ends a trial after an epoch.

    Args:
        best: Best metric of the trial so far.
        earlier: Metrics of each earlier trial by epoch; epochs after ``epoch`` are ignored.
        epoch: Number of epochs so far, from 1.
        direction: Whether a smaller or a larger metric is better.
    """
    # A trial that had ended earlier counts with the mean of what it had.
    means = [fmean(metrics[:epoch]) for metrics in earlier if metrics]
    if len(means) < MIN_TRIALS:
        return False
    middle = median(means)
    return best > middle if direction == "min" else best < middle


def may_end_after(stages: Sequence[StageConfig], epoch: int) -> bool:
    """Return whether a trial may be stopped after an epoch, counted from 1 over all stages.

    Not after the first epoch of a stage, nor while its learning rate still rises: layers that have just begun to learn
    say little; and not after the last epoch, when nothing is left to save.
    """
    before = 0
    for stage in stages:
        if epoch <= before + stage.epochs:
            return epoch - before > _grace(stage) and epoch < sum(one.epochs for one in stages)
        before += stage.epochs
    return False


def _grace(stage: StageConfig) -> int:
    """Return the number of epochs at the beginning of a stage in which no trial is stopped."""
    schedule = stage.schedule
    if schedule.name == "one_cycle":
        rising = schedule.rise_fraction * stage.epochs
    else:
        rising = min(schedule.warmup_epochs, stage.epochs / 2)
    return max(1, math.ceil(rising))
