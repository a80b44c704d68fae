"""The plot of a learning-rate range test: loss over learning rate, with the suggested learning rates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imagetune.reports.style import GRID, INK, MUTED, RATE, TRAIN, VAL, drawing_style, save_png
from imagetune.training.measure.lr_find import EXPLODED, RangeTest

FIGURE_INCHES = (7.4, 4.4)


def write_range_test_plot(search: RangeTest, path: Path) -> None:
    """Write the plot of a range test as a PNG.

    Raises:
        ResourceError: The disk is full.
    """
    with drawing_style():
        save_png(plot_range_test(search), path)


def plot_range_test(search: RangeTest) -> Figure:
    """Draw the loss over the learning rate, smoothed and per step, with both suggestions marked."""
    figure = Figure(figsize=FIGURE_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.plot(search.learning_rates, search.losses, color=MUTED, linewidth=0.8, alpha=0.6, label="loss of a step")
    axes.plot(search.learning_rates, search.smoothed, color=TRAIN, label="smoothed")
    for name, value, colour, marker in (
        ("valley", search.valley, VAL, "o"),
        ("steepest", search.steepest, RATE, "D"),
    ):
        if value is not None:
            # On the logarithm, as the axis is, so that the marker lies on the drawn curve.
            loss = float(np.interp(np.log(value), np.log(search.learning_rates), search.smoothed))
            axes.plot([value], [loss], marker, color=colour, markersize=8, label=f"{name}: {value:.2g}", zorder=3)
            axes.axvline(value, color=colour, linewidth=0.9, linestyle=(0, (2, 2)))
    _frame(axes, search)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _frame(axes: Axes, search: RangeTest) -> None:
    axes.set_xscale("log")
    if len(search.smoothed):
        # The explosion at the end would press everything else to the floor.
        low, high = float(search.smoothed.min()), float(search.smoothed[0])
        axes.set_ylim(min(0.9 * low, low), min(max(1.5 * high, 1.2 * low), EXPLODED * high))
    axes.set_title(
        f"Learning-rate range test of stage {search.stage}", loc="left", fontsize=10, fontweight="bold", color=INK
    )
    axes.set_xlabel("learning rate of the head")
    axes.set_ylabel("training loss")
    axes.grid(color=GRID, linewidth=0.7)
