"""Ranking of a search's settings, and the finalists' further trainings with other seeds against selection bias."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from imagetune.recipe.metrics import is_lower_better
from imagetune.search.records.table import build_values_key
from imagetune.search.records.trial import Trial, TrialResult

Direction = Literal["min", "max"]


@dataclass(frozen=True)
class Candidate:
    """A setting with the results of all its trainings.

    Attributes:
        trial: The first trial that completed with this setting.
        results: Results of all its trials that have a metric, including that one.
    """

    trial: Trial
    results: tuple[TrialResult, ...]

    @property
    def objectives(self) -> tuple[float, ...]:
        """The objective of each training, one for each seed."""
        return tuple(result.objective for result in self.results if result.objective is not None)

    @property
    def mean(self) -> float:
        """Mean objective over the seeds."""
        return fmean(self.objectives)


def get_direction(objective: str) -> Direction:
    """Return the direction of optimisation of a metric: whether a smaller or a larger one is better."""
    return "min" if is_lower_better(objective) else "max"


def rank_candidates(results: Iterable[TrialResult], direction: Direction) -> list[Candidate]:
    """Return the settings that have a metric, the best first: by their mean, of equals the earlier.

    Settings with more than one seed come before those with one, whose metric may be luck. Of settings that were trained
    for several numbers of epochs only the longest training counts.
    """
    groups: dict[str, list[TrialResult]] = {}
    for result in results:
        # A repeated trial has only taken over another's objective, which would count twice.
        if result.objective is not None and result.status != "repeated":
            groups.setdefault(build_values_key(result.trial.values), []).append(result)
    candidates = [_candidate(group) for group in groups.values()]
    most = max((len(candidate.results) for candidate in candidates), default=0)
    sign = 1.0 if direction == "min" else -1.0
    return sorted(candidates, key=lambda found: (most > 1 and len(found.results) == 1, sign * found.mean))


def list_repeats(finalists: Sequence[Candidate], *, repeats: int, seed: int) -> list[Trial]:
    """Return the further trainings of the finalists, named after their first one: ``007-2``, ``007-3``, ...

    Args:
        finalists: The best settings.
        repeats: How many trainings each has in all.
        seed: The recipe's seed; the further trainings get the seeds that follow it.
    """
    return [
        Trial(
            f"{finalist.trial.trial_id}-{extra + 1}",
            finalist.trial.values,
            phase="final",
            seed=seed + extra,
            epochs=finalist.trial.epochs,
            repeats=finalist.trial.trial_id,
        )
        # Seed by seed, so that a search that ends early has the same seeds of all finalists.
        for extra in range(1, repeats)
        for finalist in finalists
    ]


def _candidate(group: Sequence[TrialResult]) -> Candidate:
    longest = max(result.trial.epochs or 0 for result in group)
    counted = [result for result in group if (result.trial.epochs or 0) == longest]
    return Candidate(counted[0].trial, tuple(counted))
