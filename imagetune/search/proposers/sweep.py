"""One variable at a time: every value of every space around the defaults, and what each is worth.

The table that a careful person makes by hand: train the defaults, change one key, train again, with several seeds.
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
from imagetune.recipe.conditions import in_force, parents_first, settings_with
from imagetune.recipe.document import NodePath
from imagetune.recipe.search import ChoiceSpace, IntSpace, LogUniformSpace, Space, UniformSpace, Value
from imagetune.search.proposers.finalists import Direction
from imagetune.search.proposers.moderated import compare_pairs
from imagetune.search.proposers.protocol import Turn
from imagetune.search.proposers.space import GRID_POINTS, Spaces, on_grid
from imagetune.search.records.table import values_key
from imagetune.search.records.trial import Trial, TrialResult

Word = Literal["better", "worse", "can't tell", "failed", "not run"]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Setting:
    """Values to be trained with several seeds.

    Attributes:
        values: The value of each space that is in force.
        key: What is changed; None for what others are compared with: the defaults, or defaults with a condition met.
        against: Place in the list of the setting that differs from this one in this key alone; its own without a key.
    """

    values: Mapping[NodePath, Value]
    key: NodePath | None
    against: int


@dataclass(frozen=True)
class Effect:
    """What a setting has reached, and how it compares.

    Attributes:
        setting: The values.
        objectives: The metric of each seed that has one; the recipe's own seed is None.
        seeds: Seeds that this setting and the one it is compared with share.
        difference: Mean over those seeds of this setting's metric minus the other's; None without such seeds, and for
            the defaults.
        low: Lower end of its interval; None with fewer than two seeds, or where nothing varies.
        high: Upper end.
        p: Of the test of the pairs, two-sided.
        p_holm: Corrected for all comparisons of the sweep.
        word: Whether the change is worth it. ``failed`` has no metric at all.
        error: Why it failed.
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
        """Mean metric over its seeds."""
        return fmean(self.objectives.values()) if self.objectives else None


class SweepProposer:
    """The trials of a sweep, without repeats of settings that have failed already.

    Args:
        trials: From ``sweep_trials``.
    """

    def __init__(self, trials: Iterable[Trial]) -> None:
        self._waiting = deque(trials)
        self._failed: set[str] = set()

    def ask(self) -> Trial | Turn:
        """Return the next one."""
        while self._waiting:
            trial = self._waiting.popleft()
            if trial.repeats not in self._failed:
                return trial
        return Turn.OVER

    def tell(self, trial: Trial, objective: float | None) -> None:
        """Remember what failed."""
        if objective is None:
            self._failed.add(trial.trial_id)


def sweep_settings(spaces: Spaces) -> list[Setting]:
    """Return the defaults, and then each space's other values in turn, everything else at its default.

    A space whose condition the defaults don't meet is varied where it is met, and compared with its default there.

    Args:
        spaces: What to search, by recipe path.
    """
    defaults = {path: space.fallback for path, space in spaces.items()}
    settings = [Setting(in_force(spaces, defaults), None, 0)]
    for path in sorted(parents_first(spaces), key=lambda path: path not in settings[0].values):
        base = {**defaults, **settings_with(spaces, path, defaults[path])}
        against = _place(settings, in_force(spaces, base))
        others = (value for value in points_of(spaces[path]) if not _same(value, base[path]))
        settings += [Setting(in_force(spaces, {**base, path: value}), path, against) for value in others]
    return settings


def sweep_trials(settings: Sequence[Setting], *, repeats: int, seed: int) -> list[Trial]:
    """Return the trainings of a sweep: all settings with the recipe's seed, then all with the next one.

    A sweep that ends early so has a metric of each setting rather than all seeds of some.

    Args:
        settings: From ``sweep_settings``.
        repeats: Trainings of each setting.
        seed: The recipe's.
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


def points_of(space: Space) -> tuple[Value, ...]:
    """Return the values that a sweep tries: all of a choice, a few of a range, its ends and the default among them."""
    if isinstance(space, ChoiceSpace):
        return space.values
    if isinstance(space, IntSpace):
        chosen = {round(index * (len(space.points) - 1) / (GRID_POINTS - 1)) for index in range(GRID_POINTS)}
        return tuple(_with_default([space.points[place] for place in sorted(chosen)], space))
    (grid,) = on_grid({("range",): space}).values()
    return tuple(_with_default([float(point) for point in points_of(grid)], space))  # type: ignore[arg-type]


def sweep_effects(settings: Sequence[Setting], results: Iterable[TrialResult], *, direction: Direction) -> list[Effect]:
    """Return what each setting has reached, and how it compares with the one that differs in its key alone.

    Pairs are trainings with the same seed; see `imagetune.search.proposers.moderated` for intervals and p-values, which
    are corrected for all comparisons by Holm's method.

    Args:
        settings: From ``sweep_settings``.
        results: How the trials ended.
        direction: Whether a smaller or a larger metric is better.
    """
    reached: dict[str, dict[int | None, float]] = {}
    errors: dict[str, str] = {}
    for result in results:
        key = values_key(result.trial.values)
        if result.objective is not None:
            reached.setdefault(key, {})[result.trial.seed] = result.objective
        elif result.error:
            errors.setdefault(key, result.error)
    found = []
    for setting in settings:
        key = values_key(setting.values)
        if key in reached:
            found.append(Effect(setting, reached[key]))
        else:
            error = errors.get(key, "")
            found.append(Effect(setting, {}, word="failed" if error else "not run", error=error))
    return _compared(found, direction)


def combination(effects: Sequence[Effect], *, direction: Direction) -> dict[NodePath, Value]:
    """Return the changes that are better than the default beyond chance, of each key the best one; maybe none."""
    best: dict[NodePath, Effect] = {}
    for effect in effects:
        key = effect.setting.key
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


def _place(settings: list[Setting], values: Mapping[NodePath, Value]) -> int:
    """Return where in the list the values stand; they are added where they don't yet."""
    key = values_key(values)
    for place, setting in enumerate(settings):
        if values_key(setting.values) == key:
            return place
    settings.append(Setting(values, None, len(settings)))
    return len(settings) - 1


def _compared(effects: Sequence[Effect], direction: Direction) -> list[Effect]:
    """Return the effects with what each differs by from the one it is compared with."""
    pairs = [_pairs(effect, effects) for effect in effects]
    found = compare_pairs(pairs, confidence=CONFIDENCE)
    corrected = iter(adjust_p_values([comparison.p for comparison in found if comparison is not None]))
    compared = []
    for effect, gaps, comparison in zip(effects, pairs, found, strict=True):
        if not len(gaps):
            compared.append(effect)
        elif comparison is None:
            compared.append(replace(effect, seeds=len(gaps), difference=float(gaps.mean())))
        else:
            told = replace(effect, seeds=len(gaps), difference=comparison.mean, low=comparison.low)
            told = replace(told, high=comparison.high, p=comparison.p, p_holm=next(corrected))
            compared.append(replace(told, word=_word(told, direction)))
    return compared


def _pairs(effect: Effect, effects: Sequence[Effect]) -> NDArray[np.float64]:
    """Return (n,) this setting's metric minus that of the one it is compared with, of each seed that both have."""
    own, other = effect.objectives, effects[effect.setting.against].objectives
    shared = [] if effect.setting.key is None else [seed for seed in own if seed in other]
    return np.array([own[seed] - other[seed] for seed in shared], np.float64)


def _word(effect: Effect, direction: Direction) -> Word:
    if effect.difference is None or effect.p_holm is None or effect.p_holm >= 1 - CONFIDENCE:
        return "can't tell"
    return "better" if (effect.difference > 0) == (direction == "max") else "worse"


def _with_default(points: Sequence[float], space: IntSpace | LogUniformSpace | UniformSpace) -> list[float]:
    """Put the default in the place of the inner point next to it, so that there are no more points for it."""
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
    return values_key({("value",): first}) == values_key({("value",): second})
