"""Sweep, or one-factor-at-a-time experiment: every value of every space around the defaults, and its effect.

Train the defaults, change one key, train again, with several seeds, and test each difference.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from imagetune.core.multiple_testing import adjust_p_values
from imagetune.recipe.conditions import find_activating_values, select_active, sort_by_conditions
from imagetune.recipe.document import NodePath
from imagetune.recipe.sections.search import ChoiceSpace, IntSpace, LogUniformSpace, Space, UniformSpace, Value
from imagetune.search.proposers.finalists import Direction
from imagetune.search.proposers.moderated import compare_pairs
from imagetune.search.proposers.protocol import Turn
from imagetune.search.records.table import build_values_key
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.search.space import GRID_POINTS, Spaces, discretise_spaces

Word = Literal["better", "worse", "can't tell", "failed", "not run"]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Setting:
    """A setting of a sweep, to be trained with several seeds.

    Attributes:
        values: The value of each space that is in force.
        key: The path whose value is changed; None for a baseline: the defaults, or defaults with a condition met.
        against: Index of its baseline, which differs from it in this key alone; a baseline's own index.
    """

    values: Mapping[NodePath, Value]
    key: NodePath | None
    against: int


@dataclass(frozen=True)
class Effect:
    """Effect of a setting: its objectives and its difference to the baseline.

    Attributes:
        setting: The setting.
        objectives: Objective by seed, where there is one; the recipe's own seed is None.
        seeds: How many seeds the setting shares with its baseline.
        difference: Mean over those seeds of its objective minus the baseline's; None without such seeds, and for a
            baseline.
        low: Lower end of the confidence interval; None with fewer than two seeds, or where nothing varies.
        high: Upper end of the confidence interval.
        p: Two-sided p-value of the paired test.
        p_holm: The same after Holm's correction for all comparisons of the sweep.
        word: Verdict on the change, significant after the correction; ``failed`` has no objective at all.
        error: Error of a trial that failed.
    """

    setting: Setting
    objectives: Mapping[int | None, float]
    seeds: int = 0
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    word: Word = "can't tell"
    error: str = ""

    @property
    def mean(self) -> float | None:
        """Mean objective over the seeds; None without one."""
        return fmean(self.objectives.values()) if self.objectives else None


class SweepProposer:
    """A proposer of a sweep's trials that skips repeats of settings that have failed already.

    Args:
        trials: Trials from ``sweep_trials``.
    """

    def __init__(self, trials: Iterable[Trial]) -> None:
        self._waiting = deque(trials)
        self._failed: set[str] = set()

    def ask(self) -> Trial | Turn:
        """Return the next trial whose setting hasn't failed."""
        while self._waiting:
            trial = self._waiting.popleft()
            # Another seed would hardly change that a setting doesn't fit in memory or is refused.
            if trial.repeats not in self._failed:
                return trial
        return Turn.OVER

    def tell(self, trial: Trial, objective: float | None) -> None:
        """Remember the settings that fail."""
        if objective is None:
            self._failed.add(trial.trial_id)


def list_sweep_settings(spaces: Spaces) -> list[Setting]:
    """Return the settings of a sweep: the defaults, then each space's other values, the rest at its default.

    A space whose condition the defaults don't meet is varied where it is met, and compared with its default there.

    Args:
        spaces: The search spaces by recipe path.
    """
    defaults = {path: space.fallback for path, space in spaces.items()}
    settings = [Setting(select_active(spaces, defaults), None, 0)]
    # Spaces in force at the defaults first: their settings share the first baseline.
    for path in sorted(sort_by_conditions(spaces), key=lambda path: path not in settings[0].values):
        base = {**defaults, **find_activating_values(spaces, path, defaults[path])}
        against = _ensure_baseline(settings, select_active(spaces, base))
        others = (value for value in list_points(spaces[path]) if not _same(value, base[path]))
        settings += [Setting(select_active(spaces, {**base, path: value}), path, against) for value in others]
    return settings


def list_sweep_trials(settings: Sequence[Setting], *, repeats: int, seed: int) -> list[Trial]:
    """Return the trainings of a sweep: all settings with the recipe's seed, then all with the next one.

    In this order a sweep that ends early has one seed of each setting rather than all seeds of some.

    Args:
        settings: Settings from ``sweep_settings``.
        repeats: How many trainings each setting has.
        seed: The recipe's seed.
    """
    count = len(settings)
    return [
        Trial(
            f"{extra * count + place + 1:03d}",
            setting.values,
            seed=seed + extra if extra else None,
            repeats=f"{place + 1:03d}" if extra else None,
        )
        for extra in range(repeats)
        for place, setting in enumerate(settings)
    ]


def list_points(space: Space) -> tuple[Value, ...]:
    """Return the values of a space for a sweep: all of a choice; a few of a range, with its ends and the default."""
    if isinstance(space, ChoiceSpace):
        return space.values
    if isinstance(space, IntSpace):
        # A set, since a short range has fewer points than this.
        chosen = {round(index * (len(space.points) - 1) / (GRID_POINTS - 1)) for index in range(GRID_POINTS)}
        return tuple(_with_default([space.points[place] for place in sorted(chosen)], space))
    (grid,) = discretise_spaces({("range",): space}).values()
    return tuple(_with_default([float(point) for point in list_points(grid)], space))  # type: ignore[arg-type]


def compute_sweep_effects(
    settings: Sequence[Setting], results: Iterable[TrialResult], *, direction: Direction
) -> list[Effect]:
    """Return the effect of each setting of a sweep, compared with its baseline.

    Pairs are trainings with the same seed; see `imagetune.search.proposers.moderated` for intervals and p-values, which
    are corrected for all comparisons by Holm's method.

    Args:
        settings: Settings from ``sweep_settings``.
        results: Results of the trials.
        direction: Whether a smaller or a larger metric is better.
    """
    reached: dict[str, dict[int | None, float]] = {}
    errors: dict[str, str] = {}
    for result in results:
        key = build_values_key(result.trial.values)
        if result.objective is not None:
            reached.setdefault(key, {})[result.trial.seed] = result.objective
        elif result.error:
            errors.setdefault(key, result.error)
    found = []
    for setting in settings:
        key = build_values_key(setting.values)
        if key in reached:
            found.append(Effect(setting, reached[key]))
        else:
            error = errors.get(key, "")
            found.append(Effect(setting, {}, word="failed" if error else "not run", error=error))
    return _compare(found, direction)


def combine_better_values(effects: Sequence[Effect], *, direction: Direction) -> dict[NodePath, Value]:
    """Return the best significantly better value of each key, combined into one setting; empty where there is none."""
    best: dict[NodePath, Effect] = {}
    for effect in effects:
        key = effect.setting.key
        # Without significance the best of many values is likely to be luck.
        if key is None or effect.word != "better" or effect.difference is None:
            continue
        known = best.get(key)
        gain = effect.difference if direction == "max" else -effect.difference
        if known is None or gain > abs(known.difference or 0.0):
            best[key] = effect
    defaults = effects[0].setting.values
    changed: dict[NodePath, Value] = {}
    for effect in best.values():
        values = effect.setting.values.items()
        changed |= {path: value for path, value in values if path not in defaults or not _same(value, defaults[path])}
    return changed


def _ensure_baseline(settings: list[Setting], values: Mapping[NodePath, Value]) -> int:
    """Return the index of a baseline in the settings, to which it is appended where it isn't there."""
    key = build_values_key(values)
    for place, setting in enumerate(settings):
        if build_values_key(setting.values) == key:
            return place
    settings.append(Setting(values, None, len(settings)))
    return len(settings) - 1


def _compare(effects: Sequence[Effect], direction: Direction) -> list[Effect]:
    """Return the effects with difference, interval, p-values and verdict against their baselines."""
    pairs = [_pairs(effect, effects) for effect in effects]
    found = compare_pairs(pairs, confidence=CONFIDENCE)
    # Only of comparisons that have a p-value: Holm's correction grows with their number.
    corrected = iter(adjust_p_values([comparison.p for comparison in found if comparison is not None]))
    compared = []
    for effect, gaps, comparison in zip(effects, pairs, found, strict=True):
        if not len(gaps):
            compared.append(effect)
        elif comparison is None:
            compared.append(replace(effect, seeds=len(gaps), difference=float(gaps.mean())))
        else:
            tested = replace(effect, seeds=len(gaps), difference=comparison.mean, low=comparison.low)
            tested = replace(tested, high=comparison.high, p=comparison.p, p_holm=next(corrected))
            compared.append(replace(tested, word=_word(tested, direction)))
    return compared


def _pairs(effect: Effect, effects: Sequence[Effect]) -> NDArray[np.float64]:
    """Return the paired differences of a setting and its baseline, (n,), of each seed that both have."""
    own, other = effect.objectives, effects[effect.setting.against].objectives
    shared = [] if effect.setting.key is None else [seed for seed in own if seed in other]
    return np.array([own[seed] - other[seed] for seed in shared], np.float64)


def _word(effect: Effect, direction: Direction) -> Word:
    if effect.difference is None or effect.p_holm is None or effect.p_holm >= 1 - CONFIDENCE:
        return "can't tell"
    return "better" if (effect.difference > 0) == (direction == "max") else "worse"


def _with_default(points: Sequence[float], space: IntSpace | LogUniformSpace | UniformSpace) -> list[float]:
    """Return the points of a range with the inner one nearest to the default replaced by it: no more trainings."""
    default = space.fallback
    if any(_same(point, default) for point in points):
        return [*points]
    inner = range(1, len(points) - 1)
    if not inner:
        return sorted([*points, default])
    scale = np.log if isinstance(space, LogUniformSpace) else np.asarray
    nearest = min(inner, key=lambda place: (abs(float(scale(points[place]) - scale(default))), -place))
    return sorted([*points[:nearest], default, *points[nearest + 1 :]])


def _same(first: Value, second: Value) -> bool:
    # To Python 1, 1.0 and true are equal, as values of a recipe they are not.
    return build_values_key({("value",): first}) == build_values_key({("value",): second})
