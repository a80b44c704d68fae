"""What a search has found, in plain words: more than luck? A range too narrow? More trials worth it?"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any, Literal

from scipy.stats import t, ttest_ind

from imagetune.search.proposers.finalists import Candidate
from imagetune.search.records.axes import Axis, text_of
from imagetune.search.records.reader import SearchFiles
from imagetune.search.records.trial import TrialResult

_CONFIDENCE = 0.95
# A share of a range this near its end counts as its edge, and good settings this near it back that up.
_EDGE, _NEAR = 0.05, 0.25
_FEWEST_FOR_TREND = 8


@dataclass(frozen=True)
class Remark:
    """A sentence for the top of the page.

    Attributes:
        tone: ``good``, ``warning`` or ``note``.
        title: In a few words.
        text: In full.
    """

    tone: Literal["good", "warning", "note"]
    title: str
    text: str


@dataclass(frozen=True)
class Difference:
    """Two settings compared by their metrics over seeds.

    Attributes:
        better: By how much the first is better on average; below 0 where it is worse.
        low: Lower end of the 95% interval (Welch 1947).
        high: Upper end.
        seeds_needed: Trainings of each that would show such a difference in four of five cases; None where even many
            wouldn't.
    """

    better: float
    low: float
    high: float
    seeds_needed: int | None

    @property
    def told(self) -> bool:
        """Whether it is more than the luck of seeds."""
        return self.low > 0 or self.high < 0


def remarks_of(search: SearchFiles) -> list[Remark]:
    """Return what is to be said about a search, the most important first."""
    if not search.candidates or search.algorithm in ("sweep", "bakeoff"):
        return []
    if len(search.candidates) > 1 and len({found.mean for found in search.candidates}) == 1:
        text = f"All have {search.metric(search.candidates[0].mean)}: nothing that was searched made a difference."
        return [Remark("note", "All settings do equally well", text)]
    found = [_winner(search), *_edges(search), _trend(search)]
    return [remark for remark in found if remark is not None]


def difference_of(first: Candidate, second: Candidate, sign: float) -> Difference | None:
    """Compare two settings; None where one of them was trained once.

    Args:
        first: The winner.
        second: Another.
        sign: 1 where a larger objective is better, else -1.
    """
    ours, theirs = first.objectives, second.objectives
    if min(len(ours), len(theirs)) < 2:
        return None
    better = sign * (fmean(ours) - fmean(theirs))
    spread = math.sqrt((stdev(ours) ** 2 + stdev(theirs) ** 2) / 2)
    if spread == 0:
        return Difference(better, better, better, 2 if better else None)
    interval = ttest_ind(ours, theirs, equal_var=False).confidence_interval(_CONFIDENCE)
    ends = sorted((sign * float(interval.low), sign * float(interval.high)))
    return Difference(better, ends[0], ends[1], _seeds_needed(abs(better) / spread))


def failures_of(results: Sequence[TrialResult]) -> list[dict[str, Any]]:
    """Return what trials failed of, the most frequent first: count, an example, the trials' names.

    Errors that differ in numbers alone are the same.
    """
    groups: dict[str, list[TrialResult]] = {}
    for result in results:
        if result.status == "failed":
            groups.setdefault(re.sub(r"\d[\d.e+-]*", "#", result.error), []).append(result)
    ordered = sorted(groups.values(), key=len, reverse=True)
    return [
        {"count": len(group), "error": group[0].error, "trials": [one.trial.trial_id for one in group]}
        for group in ordered
    ]


def _seeds_needed(effect: float) -> int | None:
    """Return the size of each group for a power of 0.8 at 0.05, two-sided, given the difference in deviations."""
    for count in range(2, 101):
        freedom = 2 * count - 2
        if effect * math.sqrt(count / 2) >= t.ppf(0.975, freedom) + t.ppf(0.8, freedom):
            return count
    return None


def _winner(search: SearchFiles) -> Remark:
    winner, others = search.candidates[0], search.candidates[1:]
    name = f"trial {winner.trial.trial_id}"
    if not others:
        return Remark("note", "Only one setting has a metric", f"There is nothing that {name} could be compared with.")
    second = others[0]
    difference = difference_of(winner, second, search.sign)
    if difference is None:
        text = (
            f"The winner, {name}, and the runner-up, trial {second.trial.trial_id}, were trained with one seed: "
            f"{search.metric(winner.mean)} against {search.metric(second.mean)}. How much of that is luck isn't known; "
            "search.finalists and search.repeats train the best again with other seeds."
        )
        return Remark("note", "The winner may be luck", text)
    seeds = len(winner.objectives)
    told = (
        f"Over {seeds} seeds {name} reaches {_spread(search, winner)}, the runner-up, trial {second.trial.trial_id}, "
        f"{_spread(search, second)}: a difference of {search.amount(difference.better)} "
        f"(95% interval {search.amount(difference.low)} to {search.amount(difference.high)}). "
    )
    if difference.told:
        return Remark("good", "The winner is better than the runner-up", told + _fresh(search, winner))
    advice = "The interval includes 0, so this may be the luck of seeds: take whichever is cheaper. "
    if difference.seeds_needed is not None:
        advice += f"If the difference is real, about {difference.seeds_needed} seeds each would show it. "
    return Remark("note", "The winner can't be told from the runner-up", told + advice + _fresh(search, winner))


def _fresh(search: SearchFiles, winner: Candidate) -> str:
    """Return what the winner reached with seeds that didn't choose it."""
    first, *others = winner.objectives
    return (
        f"The trial that brought it among the finalists had {search.metric(first)}, "
        f"its other seeds have {search.metric(fmean(others))} on average."
    )


def _spread(search: SearchFiles, candidate: Candidate) -> str:
    return f"{search.metric(candidate.mean)} ± {search.amount(stdev(candidate.objectives), signed=False)}"


def _edges(search: SearchFiles) -> Iterator[Remark]:
    """Yield the ranges at whose end the winner lies."""
    winner = search.candidates[0]
    values = search.settings(winner.trial.values)
    good = search.candidates[: max(3, len(search.candidates) // 5)]
    for axis in search.axes:
        if axis.is_choice or axis.name not in values or (place := axis.place(values[axis.name])) is None:
            continue
        if _EDGE < place < 1 - _EDGE or len(search.candidates) < _FEWEST_FOR_TREND:
            continue
        upper = place > 0.5
        near = [found for found in _places(search, axis, good) if (found > 1 - _NEAR if upper else found < _NEAR)]
        name, end = search.short[axis.name], text_of(axis.high if upper else axis.low)
        told = (
            f"The winner's {name} is {text_of(values[axis.name])}, at the {'upper' if upper else 'lower'} end of its "
            f"range ({end}). "
        )
        if len(near) * 2 > len(good):
            text = f"{told}{len(near)} of the {len(good)} best settings lie near that end, too: widen the range."
            yield Remark("warning", f"{name}: the best lies at the edge of its range", text)
        else:
            text = f"{told}Only {len(near)} of the {len(good)} best settings lie near it, so this says little."
            yield Remark("note", f"{name}: the winner lies at the edge of its range", text)


def _places(search: SearchFiles, axis: Axis, candidates: Sequence[Candidate]) -> Iterator[float]:
    for candidate in candidates:
        values = search.settings(candidate.trial.values)
        place = axis.place(values[axis.name]) if axis.name in values else None
        if place is not None:
            yield place


def _trend(search: SearchFiles) -> Remark | None:
    """Return whether the search still improved at its end; nothing of algorithms whose order says nothing about it."""
    metrics = [result.objective for result in search.searched if result.objective is not None]
    if search.algorithm not in ("random", "bayesian") or len(metrics) < _FEWEST_FOR_TREND:
        return None
    best = [max(search.sign * metric for metric in metrics[: count + 1]) for count in range(len(metrics))]
    since = len(metrics) - 1 - best.index(best[-1])
    last = max(2, len(metrics) // 4)
    gain, noise = best[-1] - best[-1 - last], _noise(search)
    if gain > noise:
        text = (
            f"The last {last} of {len(metrics)} trials raised the best figure by {search.amount(gain, signed=False)}: "
            "more trials are worth it. The same command with --resume and a larger search.trials goes on."
        )
        return Remark("warning", "The search still improved at its end", text)
    if since >= last:
        text = f"The last {since} of {len(metrics)} trials did not beat what was there: more of them promise little."
    else:
        text = (
            f"The last {last} of {len(metrics)} trials gained {search.amount(gain, signed=False)}, no more than "
            "another seed does: more of them promise little."
        )
    return Remark("good", "The search has levelled off", text)


def _noise(search: SearchFiles) -> float:
    """Return how far metrics differ by seed alone; 0 where that isn't known."""
    spreads = [stdev(found.objectives) for found in search.candidates if len(found.objectives) > 1]
    return median(spreads) if spreads else 0.0
