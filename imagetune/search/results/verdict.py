"""Verdict on a search: is the winner significantly better, is a range too narrow, are more trials worth it?"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any, Literal

from scipy.stats import t, ttest_ind

from imagetune.search.proposers.finalists import Candidate
from imagetune.search.records.trial import TrialResult
from imagetune.search.results.axes import Axis, format_value
from imagetune.search.results.bakeoff import rank_backbones
from imagetune.search.results.decision import describe_decision
from imagetune.search.results.reader import SearchFiles

_CONFIDENCE = 0.95
# Shares of a range: the winner lies at its edge within the first, and good settings support that within the second.
_EDGE, _NEAR = 0.05, 0.25
# Fewer trials show neither a trend nor where in a range the good settings lie.
_MIN_FOR_TREND = 8


@dataclass(frozen=True)
class Remark:
    """A remark at the top of a search's report.

    Attributes:
        tone: ``good``, ``warning`` or ``note``.
        title: The remark in a few words.
        text: The remark in full sentences.
    """

    tone: Literal["good", "warning", "note"]
    title: str
    text: str


@dataclass(frozen=True)
class Difference:
    """Difference between two settings, each trained with several seeds.

    Attributes:
        better: By how much the first setting is better on average; below 0 where it is worse.
        low: Lower end of the 95% interval (Welch 1947).
        high: Upper end of the interval.
        seeds_needed: Trainings of each with which such a difference is significant with a power of 0.8; None where
            100 would not suffice.
    """

    better: float
    low: float
    high: float
    seeds_needed: int | None

    @property
    def significant(self) -> bool:
        """Whether the difference is statistically significant: its interval excludes 0."""
        return self.low > 0 or self.high < 0


def list_remarks(search: SearchFiles) -> list[Remark]:
    """Return the remarks on a search, the most important first; none on a sweep, which has a table."""
    if not search.candidates or search.algorithm == "sweep":
        return []
    if search.algorithm == "bakeoff":
        return [_explain_backbone(search)]
    if len(search.candidates) > 1 and len({found.mean for found in search.candidates}) == 1:
        reached = search.metric(search.candidates[0].mean)
        text = f"All settings reach {reached}: nothing that was searched made a difference."
        return [Remark("note", "All settings do equally well", text)]
    found = [_judge_winner(search), *_find_edges(search), _judge_trend(search)]
    return [remark for remark in found if remark is not None]


def _explain_backbone(search: SearchFiles) -> Remark:
    rows = rank_backbones(search.folder, search.results, search.direction)
    text = describe_decision(rows, search.candidates[0].trial, search.recipe.search)
    return Remark("note", "Why this backbone", text)


def compare_candidates(first: Candidate, second: Candidate, sign: float) -> Difference | None:
    """Return the difference between two settings; None where one of them was trained only once.

    Args:
        first: The winner.
        second: Another setting.
        sign: 1 where a larger objective is better, else -1.
    """
    ours, theirs = first.objectives, second.objectives
    if min(len(ours), len(theirs)) < 2:
        return None
    better = sign * (fmean(ours) - fmean(theirs))
    spread = math.sqrt((stdev(ours) ** 2 + stdev(theirs) ** 2) / 2)
    # Welch's test divides by the spread.
    if spread == 0:
        return Difference(better, better, better, 2 if better else None)
    # Welch's interval, as two settings need not vary alike over seeds.
    interval = ttest_ind(ours, theirs, equal_var=False).confidence_interval(_CONFIDENCE)
    ends = sorted((sign * float(interval.low), sign * float(interval.high)))
    return Difference(better, ends[0], ends[1], _seeds_needed(abs(better) / spread))


def group_failures(results: Sequence[TrialResult]) -> list[dict[str, Any]]:
    """Return the failed trials grouped by error, the most frequent first: count, an example, the trials' names.

    Errors that differ only in numbers count as one, such as those of batch sizes that don't fit.
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
    """Return the seeds per setting for a power of 0.8 at a significance level of 0.05, two-sided.

    Args:
        effect: Difference of the means in standard deviations (Cohen's d).
    """
    for count in range(2, 101):
        freedom = 2 * count - 2
        if effect * math.sqrt(count / 2) >= t.ppf(0.975, freedom) + t.ppf(0.8, freedom):
            return count
    return None


def _judge_winner(search: SearchFiles) -> Remark:
    winner, others = search.candidates[0], search.candidates[1:]
    name = f"trial {winner.trial.trial_id}"
    if not others:
        return Remark("note", "Only one setting has a metric", f"There is no other setting to compare {name} with.")
    second = others[0]
    difference = compare_candidates(winner, second, search.sign)
    if difference is None:
        text = (
            f"The winner, {name}, and the runner-up, trial {second.trial.trial_id}, were trained with one seed: "
            f"{search.metric(winner.mean)} against {search.metric(second.mean)}. How much of that is due to the seed "
            "isn't known: search.finalists and search.repeats train the best settings again with other seeds."
        )
        return Remark("note", "The winner may be due to chance", text)
    seeds = len(winner.objectives)
    text = (
        f"Over {seeds} seeds {name} reaches {_spread(search, winner)}, the runner-up, trial {second.trial.trial_id}, "
        f"{_spread(search, second)}: a difference of {search.amount(difference.better)} "
        f"(95% interval {search.amount(difference.low)} to {search.amount(difference.high)}). "
    )
    if difference.significant:
        return Remark("good", "The winner is significantly better than the runner-up", text + _fresh(search, winner))
    text += "The interval includes 0, so the difference is not statistically significant: take whichever is cheaper. "
    if difference.seeds_needed is not None:
        text += f"If the difference is real, about {difference.seeds_needed} seeds each would show it (power 0.8). "
    return Remark("note", "The winner is not significantly better than the runner-up", text + _fresh(search, winner))


def _fresh(search: SearchFiles, winner: Candidate) -> str:
    """Return a sentence on the winner's metric with seeds that didn't select it, which has no selection bias."""
    # The first seed chose the setting among many, and so is too good; the others didn't.
    first, *others = winner.objectives
    return (
        f"The trial that made it a finalist reached {search.metric(first)}; "
        f"its other seeds reach {search.metric(fmean(others))} on average."
    )


def _spread(search: SearchFiles, candidate: Candidate) -> str:
    return f"{search.metric(candidate.mean)} ± {search.amount(stdev(candidate.objectives), signed=False)}"


def _find_edges(search: SearchFiles) -> Iterator[Remark]:
    """Yield a remark for each range at whose end the winner lies."""
    winner = search.candidates[0]
    values = search.settings(winner.trial.values)
    good = search.candidates[: max(3, len(search.candidates) // 5)]
    for axis in search.axes:
        if axis.is_choice or axis.name not in values or (place := axis.place(values[axis.name])) is None:
            continue
        if _EDGE < place < 1 - _EDGE or len(search.candidates) < _MIN_FOR_TREND:
            continue
        upper = place > 0.5
        near = [found for found in _places(search, axis, good) if (found > 1 - _NEAR if upper else found < _NEAR)]
        name, end = search.short[axis.name], format_value(axis.high if upper else axis.low)
        text = (
            f"The winner's {name} is {format_value(values[axis.name])}, at the {'upper' if upper else 'lower'} end "
            f"of its range ({end}). "
        )
        if len(near) * 2 > len(good):
            text += f"Most of the best settings ({len(near)} of {len(good)}) lie near that end, too: widen the range."
            yield Remark("warning", f"{name}: the best lies at the edge of its range", text)
        else:
            text += f"Few of the best settings ({len(near)} of {len(good)}) lie near that end, so this says little."
            yield Remark("note", f"{name}: the winner lies at the edge of its range", text)


def _places(search: SearchFiles, axis: Axis, candidates: Sequence[Candidate]) -> Iterator[float]:
    for candidate in candidates:
        values = search.settings(candidate.trial.values)
        place = axis.place(values[axis.name]) if axis.name in values else None
        if place is not None:
            yield place


def _judge_trend(search: SearchFiles) -> Remark | None:
    """Return whether the search still improved at its end; None for algorithms whose order says nothing of it."""
    metrics = [result.objective for result in search.searched if result.objective is not None]
    if search.algorithm not in ("random", "bayesian") or len(metrics) < _MIN_FOR_TREND:
        return None
    best = [max(search.sign * metric for metric in metrics[: count + 1]) for count in range(len(metrics))]
    since = len(metrics) - 1 - best.index(best[-1])
    last = max(2, len(metrics) // 4)
    # What another seed changes is no progress of the search.
    gain, noise = best[-1] - best[-1 - last], _noise(search)
    if gain > noise:
        text = (
            f"The last {last} of {len(metrics)} trials improved the best {search.objective} by "
            f"{search.amount(gain, signed=False)}: more trials are worth it. The same command with --resume and a "
            "larger search.trials continues the search."
        )
        return Remark("warning", "The search still improved at its end", text)
    if since >= last:
        text = (
            f"The last {since} of {len(metrics)} trials did not beat the best one before: more trials promise little."
        )
    else:
        text = (
            f"The last {last} of {len(metrics)} trials improved the best one by {search.amount(gain, signed=False)}, "
            "no more than another seed does: more trials promise little."
        )
    return Remark("good", "The search has levelled off", text)


def _noise(search: SearchFiles) -> float:
    """Return the median standard deviation of the objective over seeds; 0 where nothing was trained twice."""
    spreads = [stdev(found.objectives) for found in search.candidates if len(found.objectives) > 1]
    return median(spreads) if spreads else 0.0
