"""Regression plots: predicted against true numbers, residuals by true number and by prediction, their histogram."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from imagetune.reports.style import GRID, INK, MUTED, TRAIN, VAL, Drawing, drawing_style, save_inline_drawing

PANEL_INCHES = (4.6, 3.6)
# Points drawn at most: each is about 100 bytes of SVG, and more of them only overlap.
MAX_POINTS = 1500
_BARS = 24

Floats = NDArray[np.float64]
# Rows of `imagetune.evaluation.errors.residuals`: bias and its interval by range.
Ranges = Sequence[Mapping[str, Any]]


def draw_residuals(
    true: Floats, predicted: Floats, name: str, *, by_true: Ranges = (), by_prediction: Ranges = ()
) -> tuple[Drawing, ...]:
    """Draw predicted against true numbers, the residuals against both, and a histogram of the residuals.

    Args:
        true: (n,) labels.
        predicted: (n,) predictions.
        name: The name of the predicted number.
        by_true: Ranges of true numbers whose mean residual is drawn with its interval.
        by_prediction: The same of predictions.
    """
    some, predictions = sample_points(true, predicted)
    panels: dict[str, Callable[[Axes], None]] = {
        "Predicted and true": partial(_paint_pairs, true=some, predicted=predictions, name=name),
        "Residuals by true number": partial(
            _paint_residuals, across=some, residuals=predictions - some, label=f"true {name}", ranges=by_true
        ),
        "Residuals by prediction": partial(
            _paint_residuals,
            across=predictions,
            residuals=predictions - some,
            label=f"predicted {name}",
            ranges=by_prediction,
        ),
        "Histogram of the residuals": partial(_paint_histogram, residuals=predicted - true),
    }
    drawings = []
    for title, paint in panels.items():
        with drawing_style():
            figure = Figure(figsize=PANEL_INCHES, layout="constrained")
            axes = figure.subplots()
            paint(axes)
            _title(axes, title)
            drawings.append(save_inline_drawing(figure, title))
    return tuple(drawings)


def plot_residuals(true: Floats, predicted: Floats, name: str) -> Figure:
    """Draw predicted against true numbers, and the residuals against the predictions, in one figure."""
    true, predicted = sample_points(true, predicted)
    figure = Figure(figsize=(2 * PANEL_INCHES[0], PANEL_INCHES[1]), layout="constrained")
    left, right = figure.subplots(1, 2)
    _paint_pairs(left, true, predicted, name)
    _title(left, "Predicted and true")
    _paint_residuals(right, predicted, predicted - true, f"predicted {name}", ())
    _title(right, "Residuals")
    return figure


def sample_points(true: Floats, predicted: Floats) -> tuple[Floats, Floats]:
    """Return the numbers that are drawn: all, or `MAX_POINTS` of them drawn at random, always the same."""
    if len(true) <= MAX_POINTS:
        return true, predicted
    chosen = np.sort(np.random.default_rng(0).choice(len(true), MAX_POINTS, replace=False))
    return true[chosen], predicted[chosen]


def _paint_pairs(axes: Axes, true: Floats, predicted: Floats, name: str) -> None:
    low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
    # Equal numbers would leave the axes without any width.
    room = 0.04 * ((high - low) or 1.0)
    ends = (low - room, high + room)
    axes.plot(ends, ends, color=MUTED, linewidth=1, dashes=(4, 2))
    _paint_points(axes, true, predicted)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    _frame(axes, f"true {name}", f"predicted {name}")


def _paint_residuals(axes: Axes, across: Floats, residuals: Floats, label: str, ranges: Ranges) -> None:
    reach = 1.08 * (float(np.abs(residuals).max()) or 1.0)
    axes.axhline(0, color=MUTED, linewidth=1, dashes=(4, 2))
    _paint_points(axes, across, residuals)
    if ranges:
        _paint_ranges(axes, ranges)
    else:
        mean = float(residuals.mean())
        place = axes.get_yaxis_transform()
        axes.axhline(mean, color=VAL, linewidth=1.2)
        axes.text(0.99, mean, f"mean {mean:+.3g}", transform=place, ha="right", va="bottom", color=VAL)
    # Symmetric about 0, so that a bias shows as a shift.
    axes.set_ylim(-reach, reach)
    _frame(axes, label, "predicted - true")


def _paint_ranges(axes: Axes, ranges: Ranges) -> None:
    centres, means = [row["centre"] for row in ranges], [row["bias"]["value"] for row in ranges]
    lows, highs = ([row["bias"][end] for row in ranges] for end in ("low", "high"))
    axes.plot(centres, means, "o-", color=VAL, linewidth=1.2, markersize=4.5)
    if None not in (*lows, *highs):
        axes.vlines(centres, lows, highs, color=VAL, linewidth=1.6)


def _paint_histogram(axes: Axes, residuals: Floats) -> None:
    reach = float(np.abs(residuals).max()) or 1.0
    # An odd number of bars centres one of them on 0.
    bars = min(_BARS, max(4, 2 * round(len(residuals) ** 0.5))) + 1
    axes.hist(residuals, bins=bars, range=(-reach, reach), color=TRAIN)
    axes.axvline(0, color=MUTED, linewidth=1, dashes=(4, 2))
    median = float(np.median(residuals))
    axes.axvline(median, color=VAL, linewidth=1.2)
    axes.text(0.99, 0.99, f"median {median:+.3g}", transform=axes.transAxes, ha="right", va="top", color=VAL)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    _frame(axes, "predicted - true", "images")


def _paint_points(axes: Axes, x: Floats, y: Floats) -> None:
    # The more points, the fainter each: where they overlap, the density shows.
    axes.scatter(x, y, s=14, color=TRAIN, alpha=max(0.25, min(0.8, 60 / len(x))), linewidths=0)


def _title(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)


def _frame(axes: Axes, across: str, up: str) -> None:
    # A column's name may look like a formula.
    axes.set_xlabel(across, parse_math=False)
    axes.set_ylabel(up, parse_math=False)
    axes.grid(color=GRID, linewidth=0.7)
    axes.tick_params(length=3)
