"""The confusion matrix as a heat map with counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from imagetune.reports.style import GRID, INK, ON_DARK, RIGHT, WRONG, Drawing, drawing_style, save_inline_drawing

MAX_CLASSES = 40
LONGEST_NAME = 22


def draw_confusion_matrix(confusion: NDArray[np.int64], class_names: Sequence[str]) -> Drawing:
    """Draw the confusion matrix for a page; the arguments are those of `plot_confusion_matrix`."""
    with drawing_style():
        return save_inline_drawing(plot_confusion_matrix(confusion, class_names), "Confusion matrix")


def plot_confusion_matrix(confusion: NDArray[np.int64], class_names: Sequence[str]) -> Figure:
    """Draw a heat map of a confusion matrix: shades are shares of the true class, texts are counts.

    Args:
        confusion: (k, k) counts, rows true and columns predicted.
        class_names: k names. Of more than `MAX_CLASSES`, those with the most mistakes are shown.
    """
    shown = select_shown_classes(confusion)
    totals = confusion.sum(axis=1)[shown]
    counts = confusion[np.ix_(shown, shown)]
    names = [shorten_name(class_names[index]) for index in shown]
    cell, size = _cell_size(len(shown))
    label = 0.08 * max(len(name) for name in names) + 0.15
    side = cell * len(shown)
    # A name that is wider than its cell would run into its neighbour.
    upright = cell < 0.085 * max(len(name) for name in names)
    below = (label if upright else 0.3) + 0.3
    width, height = label + 0.35 + side + 0.1, side + below + 0.1
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes(((label + 0.35) / width, below / height, side / width, side / height))
    _paint_cells(axes, counts, totals, size)
    _label_cells(axes, names, upright=upright)
    return figure


def select_shown_classes(confusion: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices of the classes that the heat map shows, in order: of many, those with the most confusions."""
    classes = len(confusion)
    if classes <= MAX_CLASSES:
        return np.arange(classes)
    # Both its own images that are missed, and others that are taken for it.
    mistakes = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * np.diag(confusion)
    return np.sort(np.argsort(-mistakes, kind="stable")[:MAX_CLASSES])


def shorten_name(name: str) -> str:
    """Return a class name shortened to `LONGEST_NAME` letters by leaving out its middle."""
    if len(name) <= LONGEST_NAME:
        return name
    half = (LONGEST_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def _cell_size(classes: int) -> tuple[float, float]:
    """Return side in inches and font size in points of a cell."""
    if classes <= 10:
        return (0.85, 12) if classes <= 4 else (0.5, 10)
    return (0.4, 9) if classes <= 20 else (0.3, 7.5)


def _paint_cells(axes: Axes, counts: NDArray[np.int64], totals: NDArray[np.int64], size: float) -> None:
    # Cells without a count stay empty: the row of a class without images has no shares.
    for row, column in zip(*np.nonzero(counts), strict=True):
        count = int(counts[row, column])
        share = count / totals[row]
        colour = RIGHT if row == column else WRONG
        # Even a single mistake among many images must be seen.
        shade = 0.12 + 0.88 * share
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, alpha=shade, linewidth=0))
        # Dark text on a dark cell couldn't be read.
        ink = ON_DARK if shade > 0.6 else INK
        axes.text(column, row, f"{count}", ha="center", va="center_baseline", fontsize=size, color=ink)


def _label_cells(axes: Axes, names: Sequence[str], *, upright: bool) -> None:
    count = len(names)
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(count - 0.5, -0.5)
    # A class's name may look like a formula.
    style: dict[str, Any] = {"fontsize": 9, "color": INK, "parse_math": False}
    axes.set_xticks(range(count), names, rotation=90 if upright else 0, **style)
    axes.set_yticks(range(count), names, **style)
    for edge in range(1, count):
        axes.axhline(edge - 0.5, color=GRID, linewidth=0.5, zorder=0)
        axes.axvline(edge - 0.5, color=GRID, linewidth=0.5, zorder=0)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(GRID)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted", fontweight="bold")
    axes.set_ylabel("true", fontweight="bold")
