"""Trials of a search and their results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from imagetune.errors import ImagetuneError
from imagetune.recipe.document import NodePath
from imagetune.recipe.search import Value

Phase = Literal["search", "final"]
Status = Literal["completed", "stopped", "repeated", "failed"]


@dataclass(frozen=True)
class Trial:
    """One point of the search space, to be trained once.

    Attributes:
        trial_id: ``001``, ``002``, ... in the order in which they were proposed.
        values: The value of each space that is in force, by recipe path; a space whose condition isn't met is left out.
        phase: ``final`` is a finalist trained again.
        seed: Of the training, where it isn't the recipe's; the splits stay.
        epochs: Hyperband: epochs in all that this trial is granted; None leaves them to the recipe.
        continues: Hyperband: the trial with the same values and fewer epochs whose training this one goes on with.
        repeats: The trial that this one trains again with another seed.
    """

    trial_id: str
    values: Mapping[NodePath, Value]
    phase: Phase = "search"
    seed: int | None = None
    epochs: int | None = None
    continues: str | None = None
    repeats: str | None = None


@dataclass(frozen=True)
class Known:
    """What an earlier search found.

    Attributes:
        values: A setting, as in a trial.
        objective: The metric reached, the mean where it was trained more than once.
        source: The search and its trial, for people.
    """

    values: Mapping[NodePath, Value]
    objective: float
    source: str


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        trial: What was tried.
        status: ``stopped`` was ended early by median stopping, and counts with the metric that it had reached;
            ``repeated`` is a point proposed again, which takes over the objective known already.
        objective: The metric reached, finite; None when failed.
        began: When it began, seconds since the epoch.
        seconds: Wall time of the trial.
        epochs: Epochs that its process trained; those of a lower rung not counted.
        best_epoch: Epoch with the objective, from 1 over all stages; None where that says nothing, as over folds.
        place: Where it ran: a machine or a GPU.
        error: Why it failed, one line.
    """

    trial: Trial
    status: Status
    objective: float | None
    began: float
    seconds: float
    epochs: int = 0
    best_epoch: int | None = None
    place: str = ""
    error: str = ""


def error_line(error: ImagetuneError) -> str:
    """Return an error as one line for a trial's result, with its code: ``diverged: the loss is NaN``."""
    return " ".join(f"{error.code}: {error}".split())
