"""Paired differences to the plain script, with sets as the random unit."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from scipy import stats

from benchmarks.quality.results import Outcome, Task
from benchmarks.quality.rows import BASELINE

CONFIDENCE = 0.95
Results = Mapping[Task, Outcome]


@dataclass(frozen=True)
class Means:
    """The metrics of a row on a split, averaged over its repeats."""

    accuracy: float
    balanced_accuracy: float
    log_loss: float | None
    cpu_seconds: float


@dataclass(frozen=True)
class SetDifference:
    """A row minus the baseline on one set, averaged over the splits that both have.

    Attributes:
        splits: Number of these splits.
        accuracy: In points.
        balanced_accuracy: In points.
        log_loss: In nats, below zero where the row is better; None for a row without probabilities.
        time_ratio: Processor seconds as a share of the baseline's.
    """

    splits: int
    accuracy: float
    balanced_accuracy: float
    log_loss: float | None
    time_ratio: float


@dataclass(frozen=True)
class Comparison:
    """A row against the baseline over several sets, by the name of the set."""

    sets: Mapping[str, SetDifference]

    @property
    def mean(self) -> float:
        """Mean over the sets of the difference in accuracy, in points: each set counts the same."""
        return statistics.fmean(one.accuracy for one in self.sets.values())

    @property
    def balanced_mean(self) -> float:
        """The same of balanced accuracy."""
        return statistics.fmean(one.balanced_accuracy for one in self.sets.values())

    @property
    def half_width(self) -> float | None:
        """Half the width of the t interval of the mean over sets; None for fewer than two sets.

        It is that of a random effect of the set: what a row does on a set more is what the sets' spread says, however
        many splits there are of each.
        """
        if len(self.sets) < 2:
            return None
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(self.sets) - 1))
        return quantile * statistics.stdev(one.accuracy for one in self.sets.values()) / math.sqrt(len(self.sets))

    @property
    def log_losses(self) -> list[float]:
        """The difference of log loss of each set that has one."""
        return [one.log_loss for one in self.sets.values() if one.log_loss is not None]

    @property
    def worst(self) -> tuple[str, float]:
        """The set with the least difference in accuracy, and that difference."""
        name = min(self.sets, key=lambda name: self.sets[name].accuracy)
        return name, self.sets[name].accuracy

    @property
    def time_ratio(self) -> float:
        """Geometric mean over the sets."""
        return statistics.geometric_mean(one.time_ratio for one in self.sets.values())


def compare(row: str, results: Results, sets: Collection[str]) -> Comparison | None:
    """Return a row's comparison over some sets; None while no set has a split that both have."""
    found = {name: one for name in sets if (one := compare_on_set(row, results, name)) is not None}
    return Comparison(found) if found else None


def compare_on_set(row: str, results: Results, name: str) -> SetDifference | None:
    """Return the difference on a set; None while there is no split that both have."""
    ours, theirs = average_repeats(row, results, name), average_repeats(BASELINE, results, name)
    pairs = [(ours[split], theirs[split]) for split in sorted(ours.keys() & theirs.keys())]
    if not pairs:
        return None
    losses = [
        one.log_loss - base.log_loss for one, base in pairs if one.log_loss is not None and base.log_loss is not None
    ]
    return SetDifference(
        len(pairs),
        100 * statistics.fmean(one.accuracy - base.accuracy for one, base in pairs),
        100 * statistics.fmean(one.balanced_accuracy - base.balanced_accuracy for one, base in pairs),
        statistics.fmean(losses) if losses else None,
        statistics.geometric_mean(one.cpu_seconds / base.cpu_seconds for one, base in pairs),
    )


def average_repeats(row: str, results: Results, name: str) -> dict[int, Means]:
    """Return the metrics of a row on each split of a set; failed runs are left out."""
    runs: dict[int, list[Outcome]] = {}
    for task, outcome in results.items():
        if (task.set_name, task.row) == (name, row) and not outcome.error:
            runs.setdefault(task.split, []).append(outcome)
    return {split: _average(outcomes) for split, outcomes in runs.items()}


def _average(outcomes: list[Outcome]) -> Means:
    def mean(name: str) -> float | None:
        values = [value for one in outcomes if (value := getattr(one, name)) is not None]
        return statistics.fmean(values) if values else None

    return Means(
        mean("accuracy") or 0.0, mean("balanced_accuracy") or 0.0, mean("log_loss"), mean("cpu_seconds") or 0.0
    )
