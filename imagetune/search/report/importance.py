"""Hyperparameter importance (fANOVA): the share of variance that each space explains, and its effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imagetune.reports.style import GRID, INK, MUTED, TRAIN, Drawing, drawing_style, save_inline_drawing
from imagetune.search.results.axes import Axis
from imagetune.search.results.importance import MIN_SETTINGS, Analysis, Importance, Observation, clip_outliers
from imagetune.search.results.reader import EPOCHS, SearchFiles

_PANEL_INCHES = (3.6, 2.5)
_LETTERS = 10
_POOR_FIT = 0.2


def view_importance(search: SearchFiles) -> Mapping[str, Any] | None:
    """Return what the section is drawn from; None where nothing was searched or nothing has a metric."""
    if search.algorithm in ("sweep", "bakeoff") or not search.candidates:
        return None
    analysis, observations = search.analysis, search.observations
    settings = len({seen.settings for seen in observations})
    if analysis is None:
        return {"why": _describe_absence(search, settings), "spaces": []}
    return {
        "why": "",
        "spaces": [_row(search, found) for found in analysis.spaces],
        "interactions": analysis.together,
        "fit": analysis.fit,
        "trust": _describe_fit(analysis),
        "settings": settings,
        "trials": analysis.trials,
        "none": not any(found.told for found in analysis.spaces),
        "epochs": any(found.axis.name == EPOCHS for found in analysis.spaces),
        "panels": list(_panels(search, analysis, observations)),
    }


def _describe_absence(search: SearchFiles, settings: int) -> str:
    if settings < MIN_SETTINGS:
        few = f"fewer than {MIN_SETTINGS}"
        return f"Settings with a metric: {settings}. The importance of spaces is not computed from {few}."
    return f"All trials have the same {search.objective_name}: no space has an effect."


def _describe_fit(analysis: Analysis) -> str:
    share = f"{100 * max(0.0, analysis.fit):.0f}%"
    if analysis.fit < _POOR_FIT:
        return (
            f"The settings explain {share} of the variance between trials (out-of-bag): there are too few "
            "trials, or they vary too much by chance. The importances below are a first hint only."
        )
    return f"The settings explain {share} of the variance between trials (out-of-bag)."


def _row(search: SearchFiles, found: Importance) -> dict[str, Any]:
    return {
        "name": _name(search, found.axis),
        "path": found.axis.name,
        "share": found.share,
        "error": found.spread,
        "low": max(0.0, found.share - found.spread),
        "high": min(1.0, found.share + found.spread),
        "chance": found.chance,
        "significant": found.told,
    }


def _name(search: SearchFiles, axis: Axis) -> str:
    return search.short.get(axis.name, axis.name)


def _panels(search: SearchFiles, analysis: Analysis, observations: Sequence[Observation]) -> Iterator[Drawing]:
    """Yield the effect of each space, all on one scale."""
    # One diverged loss would press all other points onto one line.
    metrics = clip_outliers(np.array([seen.objective for seen in observations]))
    ends = [metrics.min(), metrics.max()]
    room = 0.05 * float(ends[1] - ends[0])
    for found in analysis.spaces:
        title = f"Effect of {_name(search, found.axis)}"
        with drawing_style():
            figure = Figure(figsize=_PANEL_INCHES, layout="constrained")
            axes = figure.subplots()
            _points(axes, found.axis, observations, metrics)
            _effect(axes, found)
            # One scale for all spaces: a flat effect must look flat beside a strong one.
            axes.set_ylim(ends[0] - room, ends[1] + room)
            _frame(axes, found.axis, _name(search, found.axis), search.objective_name)
            yield save_inline_drawing(figure, title)


def _points(axes: Axes, axis: Axis, observations: Sequence[Observation], metrics: Any) -> None:
    """Draw the trials; those of a choice side by side, in the order in which they ended."""
    across, up = [], []
    for number, (seen, figure) in enumerate(zip(observations, metrics, strict=True)):
        place = axis.place(seen.values[axis.name]) if axis.name in seen.values else None
        if place is None:
            continue
        # Otherwise trials with the same value would lie on one vertical line, and cover each other.
        aside = 0.5 * (number / max(len(metrics) - 1, 1) - 0.5) / len(axis.values) if axis.is_choice else 0.0
        across.append(place + aside)
        up.append(figure)
    axes.plot(across, up, "o", color=MUTED, markersize=3.0, alpha=0.45, markeredgewidth=0)


def _effect(axes: Axes, found: Importance) -> None:
    low, high = found.effect - found.error, found.effect + found.error
    if not found.axis.is_choice:
        axes.fill_between(found.places, low, high, color=TRAIN, alpha=0.2, linewidth=0)
        axes.plot(found.places, found.effect, color=TRAIN)
        return
    half = 0.36 / len(found.places)
    for place, mean, least, most in zip(found.places, found.effect, low, high, strict=True):
        axes.fill_between([place - half, place + half], least, most, color=TRAIN, alpha=0.2, linewidth=0)
        axes.plot([place - half, place + half], [mean, mean], color=TRAIN)


def _frame(axes: Axes, axis: Axis, name: str, objective: str) -> None:
    ticks = axis.ticks()
    crowded = axis.is_choice and sum(len(text) + 2 for _, text in ticks) > 44
    texts = [text if len(text) <= 2 * _LETTERS else text[: 2 * _LETTERS - 1] + "…" for _, text in ticks]
    axes.set_xticks(
        [place for place, _ in ticks], texts, rotation=25 if crowded else 0, ha="right" if crowded else "center"
    )
    axes.set_xlim(-0.03, 1.03)
    axes.set_title(name, loc="left", fontsize=10, fontweight="bold", color=INK, parse_math=False)
    axes.set_ylabel(objective)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.tick_params(length=3)
