"""Trials of a search and their results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from imagetune.errors import ImagetuneError
from imagetune.recipe.document import NodePath
from imagetune.recipe.sections.search import Value

Phase = Literal["search", "final"]
Status = Literal["completed", "stopped", "repeated", "failed"]


@dataclass(frozen=True)
class Trial:
    """A trial: one setting of the search spaces, to be trained once.

    Attributes:
        trial_id: Name of the trial: ``001``, ``002``, ... in the order of the proposals.
        values: The value of each space by recipe path; a space whose condition isn't met is left out.
        phase: ``search`` for the algorithm's own trials, ``final`` for a finalist that is trained again.
        seed: Seed of the training where it isn't the recipe's; the splits stay the same.
        epochs: Hyperband: the last epoch of this trial; None leaves it to the recipe.
        continues: Hyperband: the trial with the same values and fewer epochs whose training this one continues.
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
    """A setting with its objective, known from an earlier search.

    Attributes:
        values: The setting, as in a trial.
        objective: Its objective, the mean where it was trained more than once.
        source: Name of the search and the trial, for people.
    """

    values: Mapping[NodePath, Value]
    objective: float
    source: str


@dataclass(frozen=True)
class TrialResult:
    """Result of a trial.

    Attributes:
        trial: The trial.
        status: ``stopped`` was ended by median stopping and counts with the metric that it had reached; ``repeated`` is
            a setting proposed again, which takes over the known objective.
        objective: Validation metric that was reached, finite; None for a failed trial.
        began: When it began, in seconds since 1970.
        seconds: Wall time of the trial.
        epochs: How many epochs its process trained, without those of a lower rung.
        best_epoch: Epoch with the objective, counted from 1 over all stages; None where there is no single one, as over
            folds.
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


def format_error_line(error: ImagetuneError) -> str:
    """Return an error as one line for a trial's result, with its code: ``diverged: the loss is NaN``."""
    return " ".join(f"{error.code}: {error}".split())
