"""Search progress: the best objective so far over trials and over time, and the learning curve of every trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imagetune.reports.plots.learning_curves import PANEL_INCHES
from imagetune.reports.style import GRID, INK, MUTED, TRAIN, VAL, Drawing, drawing_style, save_inline_drawing
from imagetune.search.records.trial import TrialResult
from imagetune.search.results.clock import build_clock
from imagetune.search.results.importance import clip_outliers
from imagetune.search.results.reader import SearchFiles

_WIDE_INCHES = (9.6, 3.6)
_EMPHASISED = 5


def view_progress(search: SearchFiles) -> Mapping[str, Any] | None:
    """Return what the section is drawn from; None where no trial has a metric."""
    ended = [result for result in search.searched if result.objective is not None]
    if not ended:
        return None
    clock = build_clock(search.searched)
    unit, name = (
        (3600.0, "hours") if clock.total > 3 * 3600 else (60.0, "minutes") if clock.total > 180 else (1.0, "seconds")
    )
    times = [clock.seconds(result.began + result.seconds) / unit for result in ended]
    # Failed trials keep their place: they took their turn in the budget.
    numbers = [float(search.searched.index(result) + 1) for result in ended]
    drawings = []
    if len(ended) > 1:
        drawings.append(_best(search, ended, numbers, "ended trials", "Best so far, over trials", whole=True))
        drawings.append(_best(search, ended, times, f"{name} of the search", "Best so far, over time", whole=False))
    return {
        "drawings": drawings,
        "curves": _curves(search),
        "emphasised": min(_EMPHASISED, len(search.candidates)),
        "stopped": any(result.status == "stopped" for result in search.results),
        "failed": any(result.status == "failed" for result in search.searched),
    }


def _best(
    search: SearchFiles, ended: Sequence[TrialResult], places: Sequence[float], unit: str, title: str, *, whole: bool
) -> Drawing:
    metrics = np.array([result.objective for result in ended], dtype=np.float64)
    best = search.sign * np.maximum.accumulate(search.sign * metrics)
    shown = clip_outliers(metrics)
    stopped = np.array([result.status == "stopped" for result in ended])
    across = np.asarray(places)
    with drawing_style():
        figure = Figure(figsize=PANEL_INCHES, layout="constrained")
        axes = figure.subplots()
        axes.plot(across[~stopped], shown[~stopped], "o", color=MUTED, markersize=3.5, alpha=0.7)
        axes.plot(across[stopped], shown[stopped], "x", color=MUTED, markersize=4.0, alpha=0.7)
        # Steps: until a trial beats it, the best stays what it was.
        axes.plot(across, best, color=TRAIN, drawstyle="steps-post")
        _frame(axes, title, unit, search.objective_name)
        if whole:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        low, high = min(shown.min(), best.min()), max(shown.max(), best.max())
        # Equal metrics have no range to take a share of.
        room = 0.06 * (high - low) or 0.01
        axes.set_ylim(low - room, high + room)
        return save_inline_drawing(figure, title)


def _curves(search: SearchFiles) -> Drawing | None:
    """Return the objective of every trial over its epochs, the best ones on top and in colour."""
    lines = {name: found for name in search.curves if (found := _curve(search, name))}
    if not lines:
        return None
    best = [found.trial.trial_id for found in search.candidates[:_EMPHASISED] if found.trial.trial_id in lines]
    stopped = {result.trial.trial_id for result in search.results if result.status == "stopped"}
    title = f"Validation {search.objective_name} of every trial"
    with drawing_style():
        figure = Figure(figsize=_WIDE_INCHES, layout="constrained")
        axes = figure.subplots()
        for name, points in lines.items():
            if name not in best:
                _draw(axes, points, MUTED, 0.9, 0.35, name in stopped)
        # The best one last, so that it lies on top.
        for place, name in reversed(list(enumerate(best))):
            _draw(axes, lines[name], TRAIN if place else VAL, 1.4 if place else 2.2, 1.0, name in stopped)
        if best:
            epoch, value = lines[best[0]][-1]
            axes.annotate(
                f"trial {best[0]}",
                (epoch, value),
                (5, 0),
                textcoords="offset points",
                color=VAL,
                fontsize=8,
                va="center",
            )
        values = clip_outliers(np.array([value for points in lines.values() for _, value in points]))
        room = 0.05 * float(np.ptp(values)) or 0.01
        axes.set_ylim(values.min() - room, values.max() + room)
        axes.margins(x=0.04)
        _frame(axes, title, "epoch", search.objective_name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
        return save_inline_drawing(figure, title)


def _draw(
    axes: Axes, points: Sequence[tuple[int, float]], colour: str, width: float, alpha: float, stopped: bool
) -> None:
    epochs, values = [epoch for epoch, _ in points], [value for _, value in points]
    axes.plot(
        epochs, values, color=colour, linewidth=width, alpha=alpha, marker="o" if len(points) == 1 else "", markersize=3
    )
    if stopped:
        axes.plot(epochs[-1:], values[-1:], "x", color=colour, markersize=5, alpha=max(alpha, 0.7))


def _curve(search: SearchFiles, name: str) -> list[tuple[int, float]]:
    """Return epoch and objective of a trial, with what the lower rungs of its settings trained before."""
    continues = {trial.trial_id: trial.continues for trial in search.trials}
    points: dict[int, float] = {}
    at: str | None = name
    while at is not None:
        own = {
            int(line["epoch"]): value
            for line in search.curves.get(at, ())
            if (value := _value(search, line)) is not None
        }
        # The longer training's own epochs count where a lower rung has the same ones.
        points = {**own, **points}
        at = continues.get(at)
    return sorted(points.items())


def _value(search: SearchFiles, line: Mapping[str, Any]) -> float | None:
    value = (line.get("val") or {}).get(search.objective)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _frame(axes: Axes, title: str, below: str, beside: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.set_xlabel(below)
    axes.set_ylabel(beside)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.tick_params(length=3)
