"""Plots of probabilities: reliability, risk and coverage, ROC and precision-recall curves, prediction-set sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from imagetune.reports.plots.confusion_matrix import shorten_name
from imagetune.reports.style import GRID, INK, MUTED, RATE, TRAIN, VAL, Drawing, drawing_style, save_inline_drawing

PANEL_INCHES = (4.6, 3.6)
# With the names of the curves below.
NAMED_INCHES = (4.6, 4.3)
# Curves that get a name: colours and dashes distinguish no more.
MAX_NAMED = 8
# Thin lines of the other classes: more of them overlap to a blot.
MAX_LINES = 60
MAX_POINTS = 80
_LINE_STYLES = tuple((colour, dashes) for dashes in ((), (4, 1.5)) for colour in (TRAIN, VAL, RATE, INK))

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A ROC or precision-recall curve of a class.

    Attributes:
        name: The class; an empty name draws a thin line without one.
        across: (m,) horizontal places, rising.
        up: (m,) vertical places.
    """

    name: str
    across: Floats
    up: Floats


def draw_reliability_diagram(
    title: str, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]] | None
) -> Drawing:
    """Draw a reliability diagram: observed frequency by predicted probability.

    Args:
        title: The title, which says which images.
        before: Bins from `imagetune.evaluation.probabilities.calibration`.
        after: The same with the temperature; None without one.
    """

    def paint(axes: Axes) -> None:
        axes.plot((0, 1), (0, 1), color=MUTED, linewidth=1, dashes=(4, 2))
        probability, frequency, low, high = (
            np.array([row[key] for row in before]) for key in ("probability", "frequency", "low", "high")
        )
        axes.vlines(probability, low, high, color=TRAIN, linewidth=1.2, alpha=0.6)
        axes.plot(probability, frequency, "o", color=TRAIN, markersize=4.5, label="original")
        if after is not None:
            across, up = ([row[key] for row in after] for key in ("probability", "frequency"))
            axes.plot(across, up, "s", color=VAL, markersize=4.5, markerfacecolor="none", label="with temperature")
        axes.text(0.02, 0.965, "underconfident", color=MUTED, fontsize=8, va="top")
        axes.text(0.98, 0.025, "overconfident", color=MUTED, fontsize=8, ha="right")
        if after is not None:
            axes.legend(
                loc="lower right",
                bbox_to_anchor=(1.01, 0.99),
                ncols=2,
                frameon=False,
                fontsize=8,
                borderpad=0.1,
                handletextpad=0.1,
                columnspacing=0.8,
            )
        _unit_frame(axes, "mean predicted probability", "observed frequency")

    return _drawing(title, paint)


def draw_risk_coverage_curve(
    curve: Sequence[Mapping[str, float]], mistakes: float, points: Sequence[Mapping[str, Any]]
) -> Drawing:
    """Draw a risk-coverage curve: the error rate by the share of images that are predicted.

    Args:
        curve: Coverage and risk.
        mistakes: Error rate over all predictions.
        points: Coverage and accuracy at the thresholds chosen on validation.
    """

    def paint(axes: Axes) -> None:
        across, up = (np.array([row[key] for row in curve]) for key in ("coverage", "risk"))
        axes.axhline(mistakes, color=MUTED, linewidth=1, dashes=(4, 2))
        axes.text(0.01, mistakes, "abstaining at random", color=MUTED, fontsize=8, va="bottom")
        # The lowest risk possible: every mistake comes after all right predictions.
        best = np.maximum(across - (1 - mistakes), 0) / across
        axes.plot(across, best, color=MUTED, linewidth=1, dashes=(1, 1.5))
        axes.plot(across, up, color=TRAIN)
        axes.fill_between(across, up, color=TRAIN, alpha=0.12, linewidth=0)
        found = [row for row in points if row["predicted"]["value"] and row["accuracy"]["value"] is not None]
        axes.plot(
            [row["predicted"]["value"] for row in found],
            [1 - row["accuracy"]["value"] for row in found],
            "D",
            color=VAL,
            markersize=5,
        )
        axes.set_xlim(0, 1.02)
        # Without a mistake the axis would have no height.
        axes.set_ylim(0, max(1.15 * max(up.max(), mistakes), 0.02))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        _frame(axes, "coverage", "risk (error rate)")

    return _drawing("Risk-coverage curve", paint)


def draw_roc_curves(curves: Sequence[Curve]) -> Drawing:
    """Draw ROC curves: ``across`` is the false positive rate, ``up`` the true positive rate."""

    def paint(axes: Axes) -> None:
        axes.plot((0, 1), (0, 1), color=MUTED, linewidth=1, dashes=(4, 2))
        _draw_curves(axes, curves)
        _unit_frame(axes, "false positive rate", "true positive rate")

    return _drawing("ROC curves", paint, NAMED_INCHES)


def draw_precision_recall_curves(curves: Sequence[Curve]) -> Drawing:
    """Draw precision-recall curves: ``across`` is the recall, ``up`` the precision."""

    def paint(axes: Axes) -> None:
        # Precision doesn't change linearly between two recalls: sloping lines would show points that don't exist.
        _draw_curves(axes, curves, steps=True)
        _unit_frame(axes, "recall", "precision")

    return _drawing("Precision-recall curves", paint, NAMED_INCHES)


def draw_set_sizes(sizes: Sequence[Mapping[str, Any]], what: str) -> Drawing:
    """Draw a bar chart of the number of images by the size of their prediction set.

    Args:
        sizes: Size and images.
        what: What is counted in a set: classes or labels.
    """

    def paint(axes: Axes) -> None:
        across, up = ([row[key] for row in sizes] for key in ("size", "images"))
        axes.bar(across, up, color=TRAIN, width=0.7)
        if len(sizes) <= 12:
            for size, images in zip(across, up, strict=True):
                axes.text(size, images, f"{images}", ha="center", va="bottom", color=INK, fontsize=8)
        # At least four places wide, as a single bar would fill the panel.
        axes.set_xlim(min(across) - 0.8, max(*across, min(across) + 3) + 0.8)
        axes.set_ylim(0, 1.12 * max(up))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        _frame(axes, f"{what} in the prediction set", "images")

    return _drawing("Prediction set sizes", paint)


def thin_points(values: Floats) -> NDArray[np.int64]:
    """Return the indices of at most `MAX_POINTS` points of a curve of (m,) points, its ends among them."""
    places = np.round(np.linspace(0, len(values) - 1, min(len(values), MAX_POINTS))).astype(np.int64)
    return np.unique(places)


def _draw_curves(axes: Axes, curves: Sequence[Curve], *, steps: bool = False) -> None:
    style = "steps-pre" if steps else "default"
    for curve in [curve for curve in curves if not curve.name][:MAX_LINES]:
        axes.plot(curve.across, curve.up, color=GRID, linewidth=0.8, drawstyle=style)
    named = [curve for curve in curves if curve.name][:MAX_NAMED]
    for curve, (colour, dashes) in zip(named, _LINE_STYLES, strict=False):
        axes.plot(
            curve.across, curve.up, color=colour, dashes=dashes, linewidth=1.5, drawstyle=style,
            label=shorten_name(curve.name),
        )  # fmt: skip
    if not named or axes.figure is None:
        return
    # Inside the axes it would cover some curve.
    legend = axes.figure.legend(
        loc="outside lower center", ncols=2, frameon=False, fontsize=8, handlelength=2.6, labelspacing=0.25
    )
    for text in legend.get_texts():
        # A class's name may look like a formula.
        text.set_parse_math(False)


def _drawing(title: str, paint: Callable[[Axes], None], inches: tuple[float, float] = PANEL_INCHES) -> Drawing:
    with drawing_style():
        figure = Figure(figsize=inches, layout="constrained")
        axes = figure.subplots()
        paint(axes)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
        return save_inline_drawing(figure, title)


def _unit_frame(axes: Axes, across: str, up: str) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    _frame(axes, across, up)


def _frame(axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(color=GRID, linewidth=0.7)
    axes.tick_params(length=3)
