"""What a sweep has found, as a table for the screen and for ``sweep.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import stdev

from imagetune.core.files import write_text
from imagetune.recipe.document import NodePath
from imagetune.recipe.problems import dotted
from imagetune.search.axes import text_of
from imagetune.search.finalists import Direction
from imagetune.search.records import cell_of
from imagetune.search.sweep import CONFIDENCE, Effect, combination

TABLE_NAME = "sweep.csv"
_COLUMNS = ("key", "value", "default", "where", "seeds", "mean", "sd", "paired", "difference", "low", "high")
_TESTS = ("p", "p_holm", "verdict", "error")


def write_sweep(folder: Path, effects: Sequence[Effect]) -> None:
    """Write ``sweep.csv``: a line a setting, the defaults first.

    Raises:
        ResourceError: The disk is full.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*_COLUMNS, *_TESTS))
    writer.writerows(_cells(effect, effects) for effect in effects)
    write_text(folder / TABLE_NAME, text.getvalue())


def sweep_lines(effects: Sequence[Effect], objective: str, direction: Direction, recipe: str) -> Iterator[str]:
    """Yield the table for the screen, and which changes might be combined.

    Args:
        effects: From ``sweep_effects``.
        objective: The validation figure.
        direction: Whether a smaller or a larger figure is better.
        recipe: The recipe's file, for the command.
    """
    default = effects[0]
    if default.mean is None:
        yield f"sweep       the defaults have no {objective} to compare with: {default.error or 'not run'}"
        return
    seeds = len(default.objectives)
    yield f"sweep       {objective} of the defaults {default.mean:.4f}, {seeds} seed{'s' if seeds > 1 else ''}"
    key: NodePath | None = None
    for effect in effects[1:]:
        if effect.setting.key is not None and effect.setting.key != key:
            key = effect.setting.key
            yield f"  {dotted(key)}, default {text_of(effects[effect.setting.against].setting.values[key])}"
        yield f"    {_line(effect)}"
    yield from _advice(effects, direction, recipe)


def method_of(effects: Sequence[Effect]) -> str:
    """Return one sentence on how the comparisons were made."""
    pairs = [effect for effect in effects if effect.p is not None]
    if not pairs:
        return "No interval: that takes search.repeats of at least 2."
    return (
        f"Differences are of the same seeds, with {CONFIDENCE:.0%} intervals of a moderated t, which borrows from all "
        f"comparisons how much seeds differ; better and worse hold for all {len(pairs)} together (Holm)."
    )


def overrides_of(effects: Sequence[Effect], direction: Direction) -> str:
    """Return the options that combine what is better beyond chance; empty where nothing is."""
    changed = combination(effects, direction=direction)
    options = (f"-o {'.'.join(map(str, path))}={cell_of(value)}" for path, value in changed.items())
    return " ".join(_quoted(option) for option in options)


def where_of(effect: Effect, effects: Sequence[Effect]) -> str:
    """Return what besides its key differs from the defaults; empty for most."""
    base, defaults = effects[effect.setting.against].setting.values, effects[0].setting.values
    changed = {path: value for path, value in base.items() if path in defaults and defaults[path] != value}
    return ", ".join(f"{dotted(path)}={text_of(value)}" for path, value in changed.items())


def _line(effect: Effect) -> str:
    key = effect.setting.key
    named = text_of(effect.setting.values[key]) if key is not None else "defaults where that may vary"
    if effect.mean is None:
        return f"{named:<24} {effect.word}{': ' + effect.error if effect.error else ''}"
    if effect.difference is None:
        return f"{named:<24} {effect.mean:.4f}"
    interval = "" if effect.low is None or effect.high is None else f"  [{effect.low:+.4f}, {effect.high:+.4f}]"
    return f"{named:<24} {effect.mean:.4f}  {effect.difference:+.4f}{interval:<22}  {effect.word}"


def _advice(effects: Sequence[Effect], direction: Direction, recipe: str) -> Iterator[str]:
    yield f"  {method_of(effects)}"
    options = overrides_of(effects, direction)
    if options:
        yield "  better beyond chance, to be tried together (untrained so far: gains need not add up):"
        yield f"    imagetune fit {recipe} {options}"
    else:
        yield "  no change is better than its default beyond chance"


def _quoted(option: str) -> str:
    start, value = option.split(" ", 1)
    return f"{start} '{value}'" if any(letter in value for letter in ' {}[]"*&;|<>()$`!#') else option


def _cells(effect: Effect, effects: Sequence[Effect]) -> tuple[object, ...]:
    setting, figures = effect.setting, list(effect.objectives.values())
    named = setting.key is not None
    base = effects[setting.against].setting.values
    return (
        dotted(setting.key) if setting.key is not None else "",
        cell_of(setting.values[setting.key]) if setting.key is not None else "",
        cell_of(base[setting.key]) if setting.key is not None else "",
        where_of(effect, effects),
        len(figures),
        _number(effect.mean),
        _number(stdev(figures) if len(figures) > 1 else None),
        effect.seeds if named else "",
        *(_number(value) for value in (effect.difference, effect.low, effect.high, effect.p, effect.p_holm)),
        effect.word if named else "",
        effect.error,
    )


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)
