"""Learning curves: loss, accuracy, errors, F1 and learning rate over the epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from imagetune.recipe.metrics import METRICS, Metric
from imagetune.reports.style import (
    BAND,
    GRID,
    INK,
    MUTED,
    RATE,
    TRAIN,
    VAL,
    Drawing,
    drawing_style,
    save_inline_drawing,
)

PANEL_INCHES = (4.6, 2.9)


# Drawn in this order, as far as the task has them.
_PANELS = tuple(METRICS[name] for name in ("loss", "accuracy", "mae", "r2", "f1"))
# The fourth place of the figure is that of the learning rate.
_MAX_PANELS = 3


def draw_learning_curves(epochs: Sequence[Mapping[str, Any]]) -> tuple[Drawing, ...]:
    """Draw the learning curves of a page, a plot each: loss, and accuracy, errors and F1 as far as the task has them.

    Args:
        epochs: Lines of metrics.jsonl.
    """
    painters: list[tuple[str, Callable[[Axes], None]]] = [
        (_title(panel), partial(_draw_curves, epochs=epochs, panel=panel)) for panel in _panels(epochs)
    ]
    drawings = []
    for title, paint in painters:
        with drawing_style():
            figure = Figure(figsize=PANEL_INCHES, layout="constrained")
            paint(figure.subplots())
            drawings.append(save_inline_drawing(figure, title))
    return tuple(drawings)


def is_only_solved(epochs: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether every line of metrics.jsonl is of a solved head, so that there is no curve to draw."""
    return bool(epochs) and all(line.get("solved") for line in epochs)


def plot_learning_curves(epochs: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the learning curves and the learning rate in one figure, from lines of metrics.jsonl."""
    figure = Figure(figsize=(2 * PANEL_INCHES[0], 2 * PANEL_INCHES[1]), layout="constrained")
    places = figure.subplots(2, 2).ravel()
    for axes, panel in zip(places, _panels(epochs), strict=False):
        _draw_curves(axes, epochs, panel)
    _draw_learning_rate(places[-1], epochs)
    return figure


def _panels(epochs: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """Return the panels of the metrics that the epochs have."""
    known = {name for line in epochs for split in ("train", "val") for name in line.get(split) or {}}
    return [panel for panel in _PANELS if panel.name in known][:_MAX_PANELS]


def _title(metric: Metric) -> str:
    return f"{metric.title} ({metric.meaning})" if metric.mean_over == "classes" else metric.title


def _draw_curves(axes: Axes, epochs: Sequence[Mapping[str, Any]], panel: Metric) -> None:
    numbers = [line["epoch"] for line in epochs]
    for split, name, colour, dashes, marker in (
        # Dashes and markers as well as colours, so that the curves differ without colour, too.
        ("train", "training", TRAIN, (4, 1.5), "o"),
        ("val", "validation", VAL, (), "s"),
    ):
        values = [_number((line.get(split) or {}).get(panel.name)) for line in epochs]
        if np.isfinite(values).any():
            axes.plot(numbers, values, color=colour, dashes=dashes, label=name, **_marker(marker, len(numbers)))
    low, high = axes.get_ylim()
    if panel.is_share:
        # The margins around the curves would go beyond what a share can be.
        low, high = max(0.0, low), min(1.0, high)
    _frame(axes, epochs, _title(panel), low, high)
    axes.legend(
        # Above the panel, where it covers no curve.
        loc="lower right",
        bbox_to_anchor=(1.01, 1.0),
        ncols=2,
        frameon=False,
        borderpad=0.1,
        fontsize=9,
        columnspacing=1.2,
    )


def _draw_learning_rate(axes: Axes, epochs: Sequence[Mapping[str, Any]]) -> None:
    learning_rates = [_number(line.get("learning_rate")) for line in epochs]
    axes.plot([line["epoch"] for line in epochs], learning_rates, color=RATE, **_marker("o", len(learning_rates)))
    known = [value for value in learning_rates if np.isfinite(value)]
    # On a linear axis the smallest rates would lie on the floor.
    if known and min(known) > 0 and max(known) > 5 * min(known):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(format_plain_number)
        low, high = axes.get_ylim()
        _frame(axes, epochs, "Learning rate (log scale)", low, high, log=True)
        return
    axes.yaxis.set_major_formatter(format_plain_number)
    _frame(axes, epochs, "Learning rate", 0.0, axes.get_ylim()[1])


def format_plain_number(value: float, _position: float) -> str:
    """Return a tick's text without an exponent, where that stays short."""
    return f"{value:.8f}".rstrip("0").rstrip(".") if abs(value) >= 1e-6 or not value else f"{value:g}"


def _marker(marker: str, count: int) -> dict[str, Any]:
    # More markers would merge into a thick line.
    return {"marker": marker if count <= 40 else "", "markersize": 3.5}


def _frame(
    axes: Axes, epochs: Sequence[Mapping[str, Any]], title: str, low: float, high: float, *, log: bool = False
) -> None:
    """Give a panel its title, grid, limits and stages; the stages' names stand in a strip above the curves."""
    top = high * (high / low) ** 0.16 if log else high + 0.16 * (high - low)
    axes.set_ylim(low, top)
    first, last = epochs[0]["epoch"], epochs[-1]["epoch"]
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.tick_params(length=3)
    mark_stages(axes, _stage_spans(epochs))


def mark_stages(axes: Axes, spans: Sequence[tuple[str, float, float]]) -> None:
    """Mark the stages on the horizontal axis, from the name, start and end of each."""
    if len(spans) < 2:
        return
    total = spans[-1][2] - spans[0][1]
    letters = PANEL_INCHES[0] * 0.85 / 0.075
    for number, (name, start, end) in enumerate(spans, 1):
        if number % 2 == 0:
            axes.axvspan(start, end, color=BAND, linewidth=0, zorder=0)
        if number > 1:
            axes.axvline(start, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        # A name that doesn't fit between the stage's borders would run into the next.
        fits = len(name) < letters * (end - start) / total
        axes.text(
            (start + end) / 2, 0.985, name if fits else str(number), color=MUTED, fontsize=8, parse_math=False,
            ha="center", va="top", transform=axes.get_xaxis_transform(),
        )  # fmt: skip


def _stage_spans(epochs: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """Return name, start and end of each stage on the epoch axis."""
    spans: list[tuple[str, float, float]] = []
    for line in epochs:
        name, epoch = str(line.get("stage", "")), line["epoch"]
        if spans and spans[-1][0] == name:
            spans[-1] = (name, spans[-1][1], epoch + 0.5)
        else:
            spans.append((name, epoch - 0.5, epoch + 0.5))
    return spans


def _number(value: Any) -> float:
    # NaN leaves a gap in the curve where an epoch lacks the metric.
    return float(value) if isinstance(value, (int, float)) else float("nan")
