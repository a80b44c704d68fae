"""Result of a sweep: ``sweep.csv``, its statistical method in words, and the overrides that improve the default."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import stdev

from imagetune.core import run_files
from imagetune.core.csv_tables import write_csv
from imagetune.recipe.problems import format_path
from imagetune.search.proposers.finalists import Direction
from imagetune.search.proposers.sweep import CONFIDENCE, Effect, combine_better_values
from imagetune.search.records.table import format_cell
from imagetune.search.results.axes import format_value

_COLUMNS = ("key", "value", "default", "where", "seeds", "mean", "sd", "paired", "difference", "low", "high")
_TESTS = ("p", "p_holm", "verdict", "error")


def write_sweep(folder: Path, effects: Sequence[Effect]) -> None:
    """Write ``sweep.csv``, with a line for each setting, the defaults first.

    Raises:
        ResourceError: The disk is full.
    """
    write_csv(folder / run_files.SWEEP_TABLE, (*_COLUMNS, *_TESTS), (_cells(effect, effects) for effect in effects))


def describe_method(effects: Sequence[Effect]) -> str:
    """Return one sentence on the statistical method of the comparisons."""
    pairs = [effect for effect in effects if effect.p is not None]
    if not pairs:
        return "There are no intervals: they need search.repeats of at least 2."
    return (
        f"Differences are paired by seed, with {CONFIDENCE:.0%} intervals of a moderated t test, which estimates the "
        f"variance between seeds from all comparisons; better and worse are significant after Holm's correction for "
        f"{len(pairs)} comparisons."
    )


def format_overrides(effects: Sequence[Effect], direction: Direction) -> str:
    """Return ``-o`` options that combine all significantly better values; empty where none is."""
    changed = combine_better_values(effects, direction=direction)
    options = (f"-o {'.'.join(map(str, path))}={format_cell(value)}" for path, value in changed.items())
    return " ".join(_quoted(option) for option in options)


def describe_condition(effect: Effect, effects: Sequence[Effect]) -> str:
    """Return the condition under which a key is varied, where that isn't at the defaults; empty for most."""
    base, defaults = effects[effect.setting.against].setting.values, effects[0].setting.values
    changed = {path: value for path, value in base.items() if path in defaults and defaults[path] != value}
    return ", ".join(f"{format_path(path)}={format_value(value)}" for path, value in changed.items())


def _quoted(option: str) -> str:
    start, value = option.split(" ", 1)
    # A shell would split or expand these; plain values read better without quotes.
    return f"{start} '{value}'" if any(letter in value for letter in ' {}[]"*&;|<>()$`!#') else option


def _cells(effect: Effect, effects: Sequence[Effect]) -> tuple[object, ...]:
    setting, metrics = effect.setting, list(effect.objectives.values())
    named = setting.key is not None
    base = effects[setting.against].setting.values
    return (
        format_path(setting.key) if setting.key is not None else "",
        format_cell(setting.values[setting.key]) if setting.key is not None else "",
        format_cell(base[setting.key]) if setting.key is not None else "",
        describe_condition(effect, effects),
        len(metrics),
        _number(effect.mean),
        _number(stdev(metrics) if len(metrics) > 1 else None),
        effect.seeds if named else "",
        *(_number(value) for value in (effect.difference, effect.low, effect.high, effect.p, effect.p_holm)),
        effect.word if named else "",
        effect.error,
    )


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)
