"""The best settings of a search trained again with other seeds, so that the winner isn't luck."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from imagetune.recipe.metrics import is_lower_better
from imagetune.search.records.table import values_key
from imagetune.search.records.trial import Trial, TrialResult

Direction = Literal["min", "max"]


@dataclass(frozen=True)
class Candidate:
    """Settings with all metrics that they have reached.

    Attributes:
        trial: The first trial that completed with them.
        results: All trials of them that have a metric, that one included.
    """

    trial: Trial
    results: tuple[TrialResult, ...]

    @property
    def objectives(self) -> tuple[float, ...]:
        """The metric of each training, one a seed."""
        return tuple(result.objective for result in self.results if result.objective is not None)

    @property
    def mean(self) -> float:
        """Their mean."""
        return fmean(self.objectives)


def direction_of(objective: str) -> Direction:
    """Return whether a smaller or a larger metric is better."""
    return "min" if is_lower_better(objective) else "max"


def ranking(results: Iterable[TrialResult], direction: Direction) -> list[Candidate]:
    """Return the settings that have a metric, the best first: by their mean, of equals the earlier.

    Settings with more than one seed come before those with one: a mean is worth more than a lucky trial. Of settings
    that were trained for several numbers of epochs only the longest training counts.
    """
    groups: dict[str, list[TrialResult]] = {}
    for result in results:
        if result.objective is not None and result.status != "repeated":
            groups.setdefault(values_key(result.trial.values), []).append(result)
    candidates = [_candidate(group) for group in groups.values()]
    most = max((len(candidate.results) for candidate in candidates), default=0)
    sign = 1.0 if direction == "min" else -1.0
    return sorted(candidates, key=lambda found: (most > 1 and len(found.results) == 1, sign * found.mean))


def repeats_of(finalists: Sequence[Candidate], *, repeats: int, seed: int) -> list[Trial]:
    """Return the further trainings of the finalists, named after their first one: ``007-2``, ``007-3``, ...

    Args:
        finalists: The best settings.
        repeats: Trainings of each in all.
        seed: The recipe's; the further trainings get the seeds that follow it.
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
        for extra in range(1, repeats)
        for finalist in finalists
    ]


def _candidate(group: Sequence[TrialResult]) -> Candidate:
    longest = max(result.trial.epochs or 0 for result in group)
    counted = [result for result in group if (result.trial.epochs or 0) == longest]
    return Candidate(counted[0].trial, tuple(counted))
