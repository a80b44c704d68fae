"""The effects of single settings in a sweep as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from imagetune.cli.render.lines import format_line
from imagetune.cli.render.tables import format_table
from imagetune.core.text import format_count
from imagetune.recipe.document import NodePath
from imagetune.recipe.metrics import name_metric
from imagetune.recipe.problems import format_path
from imagetune.search.proposers.finalists import Direction
from imagetune.search.proposers.sweep import Effect
from imagetune.search.results.axes import format_value
from imagetune.search.results.sweep import describe_method, format_overrides


def format_sweep(effects: Sequence[Effect], objective: str, direction: Direction, recipe: str) -> Iterator[str]:
    """Yield a table of the effect of each setting, and the changes that might be combined.

    Args:
        effects: The result of ``sweep_effects``.
        objective: The validation metric.
        direction: Whether a smaller or a larger value is better.
        recipe: The recipe's file, for the suggested command.
    """
    default = effects[0]
    if default.mean is None:
        why = default.error or "not run"
        yield format_line("sweep", f"the defaults have no {name_metric(objective)} to compare with: {why}")
        return
    seeds = format_count(len(default.objectives), "seed")
    yield format_line("sweep", f"{name_metric(objective)} of the defaults {default.mean:.4f}, {seeds}")
    key: NodePath | None = None
    lines = format_table([_cells(effect) for effect in effects[1:]], align="<>><<", indent=4)
    for effect, line in zip(effects[1:], lines, strict=True):
        if effect.setting.key is not None and effect.setting.key != key:
            key = effect.setting.key
            yield f"  {format_path(key)}, default {format_value(effects[effect.setting.against].setting.values[key])}"
        yield line
    yield from _advice_lines(effects, direction, recipe)


def _cells(effect: Effect) -> tuple[str, ...]:
    key = effect.setting.key
    name = format_value(effect.setting.values[key]) if key is not None else "defaults where that may vary"
    if effect.mean is None:
        return (name, "", "", "", f"{effect.word}{': ' + effect.error if effect.error else ''}")
    if effect.difference is None:
        return (name, f"{effect.mean:.4f}")
    interval = "" if effect.low is None or effect.high is None else f"[{effect.low:+.4f}, {effect.high:+.4f}]"
    return (name, f"{effect.mean:.4f}", f"{effect.difference:+.4f}", interval, effect.word)


def _advice_lines(effects: Sequence[Effect], direction: Direction, recipe: str) -> Iterator[str]:
    yield f"  {describe_method(effects)}"
    options = format_overrides(effects, direction)
    if options:
        yield "  significant improvements, to be tried together (not trained so far: gains need not add up):"
        yield f"    imagetune fit {recipe} {options}"
    else:
        yield "  no change is significantly better than its default"
