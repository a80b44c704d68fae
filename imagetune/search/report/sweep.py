"""The sweep section: the effect of each key alone, as a plot of its values and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from pydantic import TypeAdapter

from imagetune.recipe.problems import format_path
from imagetune.recipe.sections.search import Space
from imagetune.reports.style import GRID, INK, MUTED, TRAIN, VAL, Drawing, drawing_style, save_inline_drawing
from imagetune.search.proposers.sweep import Effect, compute_sweep_effects, list_sweep_settings
from imagetune.search.results.axes import format_value
from imagetune.search.results.reader import SearchFiles
from imagetune.search.results.sweep import describe_condition, describe_method, format_overrides
from imagetune.search.space import Spaces

_INCHES = (4.2, 2.7)
# Room above and below the metrics, as a share of their range.
_ROOM = 0.12
# With more letters than that the labels are turned.
_LETTERS = 26


def view_sweep(search: SearchFiles) -> Mapping[str, Any] | None:
    """Return what the section is drawn from; None for another algorithm, or before the defaults have a metric."""
    if search.algorithm != "sweep" or not search.searched:
        return None
    settings = list_sweep_settings(_spaces(search))
    effects = compute_sweep_effects(settings, search.results, direction=search.direction)
    if effects[0].mean is None:
        return None
    keyed = [effect for effect in effects if effect.setting.key is not None]
    groups = [list(group) for _, group in groupby(keyed, key=lambda effect: effect.setting.key)]
    limits = _limits(effects)
    return {
        "objective": search.objective_name,
        "default": effects[0].mean,
        "seeds": len(effects[0].objectives),
        "method": describe_method(effects),
        "options": format_overrides(effects, search.direction),
        "panels": [_key(group, effects, search, limits) for group in groups],
        "waiting": sum(effect.word == "not run" for effect in effects),
    }


def _spaces(search: SearchFiles) -> Spaces:
    """Return the spaces of search.json; one without a trial so far is left out."""
    paths = {format_path(path): path for trial in search.trials for path in trial.values}
    first = search.trials[0].values
    adapter: TypeAdapter[Space] = TypeAdapter(Space)
    spaces = {}
    for name, described in search.description.get("spaces", {}).items():
        if name not in paths:
            continue
        told = {key: value for key, value in described.items() if key != "default" or value is not None}
        # A sweep's first trial has the defaults; in search.json a default that the recipe doesn't state is null.
        if paths[name] in first:
            told["default"] = first[paths[name]]
        spaces[paths[name]] = adapter.validate_python(told)
    return spaces


def _key(
    group: Sequence[Effect], effects: Sequence[Effect], search: SearchFiles, limits: tuple[float, float]
) -> Mapping[str, Any]:
    """Return a key's rows in the order of its values, the default among them, and their drawing."""
    key = group[0].setting.key
    assert key is not None  # noqa: S101 - effects without one are left out
    base = effects[group[0].setting.against]
    name, default = format_path(key), base.setting.values[key]
    axis = next(axis for axis in search.axes if axis.name == name)
    rows = sorted([base, *group], key=lambda effect: _order(axis.place(effect.setting.values[key])))
    short = search.short.get(name, name)
    return {
        "name": name,
        "where": describe_condition(group[0], effects),
        "default": format_value(default),
        "rows": [_row(effect, format_value(effect.setting.values[key]), base) for effect in rows],
        "drawing": _drawing(rows, base, axis, search.objective_name, f"Effect of {short}", limits),
    }


def _row(effect: Effect, value: str, base: Effect) -> Mapping[str, Any]:
    return {
        "value": value,
        "default": effect is base,
        "mean": effect.mean,
        "seeds": len(effect.objectives),
        "difference": None if effect is base else effect.difference,
        "low": effect.low,
        "high": effect.high,
        "p": effect.p_holm,
        "word": "default" if effect is base else effect.word,
        "error": effect.error,
    }


def _order(place: float | None) -> float:
    return 2.0 if place is None else place


def _limits(effects: Sequence[Effect]) -> tuple[float, float]:
    """Return ends of the figure's axis that all keys share, so that their effects can be compared."""
    metrics = [figure for effect in effects for figure in effect.objectives.values()]
    low, high = min(metrics), max(metrics)
    room = _ROOM * ((high - low) or abs(high) or 1.0)
    return low - room, high + room


def _drawing(
    rows: Sequence[Effect], base: Effect, axis: Any, objective: str, title: str, limits: tuple[float, float]
) -> Drawing:
    """Return the figure of each value: its seeds, their mean, and the interval of its difference to the default."""
    key = next(effect.setting.key for effect in rows if effect.setting.key is not None)
    drawn = [(effect, effect.setting.values[key]) for effect in rows if effect.mean is not None]
    with drawing_style():
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.subplots()
        level = base.mean or 0.0
        axes.axhline(level, color=MUTED, dashes=(4, 2), lw=1)
        places = [_place(axis, value) for _, value in drawn]
        if not axis.is_choice:
            axes.plot(places, [effect.mean or 0.0 for effect, _ in drawn], color=TRAIN, lw=1, alpha=0.5)
        for place, (effect, _) in zip(places, drawn, strict=True):
            _paint(axes, place, effect, level, default=effect is base)
        _frame(axes, axis, [effect.setting.values[key] for effect in rows])
        axes.set_ylim(*limits)
        axes.set_ylabel(f"validation {objective}")
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
        return save_inline_drawing(figure, title)


def _paint(axes: Axes, place: float, effect: Effect, level: float, *, default: bool) -> None:
    metrics = list(effect.objectives.values())
    if len(metrics) > 1:
        axes.plot([place] * len(metrics), metrics, "_", color=MUTED, markersize=7, alpha=0.8)
    if effect.low is not None and effect.high is not None:
        axes.plot([place, place], [level + effect.low, level + effect.high], color=TRAIN, lw=1.8)
    colour, marker = (VAL, "D") if default else (TRAIN, "o")
    axes.plot([place], [effect.mean or 0.0], marker, color=colour, markersize=6, zorder=3)


def _place(axis: Any, value: Any) -> float:
    return float(axis.index(value) or 0) if axis.is_choice else float(value)


def _frame(axes: Axes, axis: Any, values: Sequence[Any]) -> None:
    texts = [format_value(value) for value in values]
    places = [_place(axis, value) for value in values]
    if axis.kind == "log_uniform":
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    turned = sum(map(len, texts)) > _LETTERS
    axes.set_xticks(places, texts, rotation=25 if turned else 0, ha="right" if turned else "center", parse_math=False)
    if axis.is_choice:
        axes.set_xlim(min(places) - 0.5, max(places) + 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="y", color=GRID, lw=0.6)
    axes.tick_params(length=3)
    axes.margins(x=0.06)
