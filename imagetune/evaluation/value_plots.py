"""Drawings of predicted numbers: beside the true ones, and how far off they are."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from imagetune.evaluation.drawing import GRID, INK, MUTED, TRAIN, VAL, Drawing, drawing_style, inline_drawing

PANEL_INCHES = (4.6, 3.6)
# More points make the page heavy and say nothing more.
MOST_POINTS = 1500

Floats = NDArray[np.float64]


def value_drawings(true: Floats, given: Floats, name: str) -> tuple[Drawing, ...]:
    """Return a drawing of predicted against true numbers, and one of the residuals against the predicted ones.

    Args:
        true: (n,) labels.
        given: (n,) answers.
        name: What the number is called.
    """
    true, given = drawn_points(true, given)
    drawings = []
    for title, paint in (("Predicted and true", _paint_pairs), ("Residuals", _paint_residuals)):
        with drawing_style():
            figure = Figure(figsize=PANEL_INCHES, layout="constrained")
            paint(figure.subplots(), true, given, name)
            drawings.append(inline_drawing(figure, title))
    return tuple(drawings)


def value_figure(true: Floats, given: Floats, name: str) -> Figure:
    """Return both drawings in one figure; see `value_drawings`."""
    true, given = drawn_points(true, given)
    figure = Figure(figsize=(2 * PANEL_INCHES[0], PANEL_INCHES[1]), layout="constrained")
    left, right = figure.subplots(1, 2)
    _paint_pairs(left, true, given, name)
    _paint_residuals(right, true, given, name)
    return figure


def drawn_points(true: Floats, given: Floats) -> tuple[Floats, Floats]:
    """Return the numbers that are drawn: all, or `MOST_POINTS` of them drawn by lot, always the same."""
    if len(true) <= MOST_POINTS:
        return true, given
    chosen = np.sort(np.random.default_rng(0).choice(len(true), MOST_POINTS, replace=False))
    return true[chosen], given[chosen]


def _paint_pairs(axes: Axes, true: Floats, given: Floats, name: str) -> None:
    low, high = min(true.min(), given.min()), max(true.max(), given.max())
    room = 0.04 * ((high - low) or 1.0)
    ends = (low - room, high + room)
    axes.plot(ends, ends, color=MUTED, linewidth=1, dashes=(4, 2))
    _paint_points(axes, true, given)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    _frame(axes, "Predicted and true", f"true {name}", f"predicted {name}")


def _paint_residuals(axes: Axes, true: Floats, given: Floats, name: str) -> None:
    residuals = given - true
    reach = 1.08 * (float(np.abs(residuals).max()) or 1.0)
    axes.axhline(0, color=MUTED, linewidth=1, dashes=(4, 2))
    mean = float(residuals.mean())
    axes.axhline(mean, color=VAL, linewidth=1.2)
    axes.text(0.99, mean, f"mean {mean:+.3g}", transform=axes.get_yaxis_transform(), ha="right", va="bottom", color=VAL)
    _paint_points(axes, given, residuals)
    axes.set_ylim(-reach, reach)
    _frame(axes, "Residuals", f"predicted {name}", "predicted - true")


def _paint_points(axes: Axes, x: Floats, y: Floats) -> None:
    axes.scatter(x, y, s=14, color=TRAIN, alpha=max(0.25, min(0.8, 60 / len(x))), linewidths=0)


def _frame(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    # A column's name may look like a formula.
    axes.set_xlabel(across, parse_math=False)
    axes.set_ylabel(up, parse_math=False)
    axes.grid(color=GRID, linewidth=0.7)
    axes.tick_params(length=3)
