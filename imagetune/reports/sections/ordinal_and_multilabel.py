"""The sections on rank errors of ordinal classes and on label confusions of multi-label models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imagetune.evaluation.errors.label_confusions import describe_confusion
from imagetune.reports.style import GRID, INK, TRAIN, VAL, Drawing, drawing_style, save_inline_drawing
from imagetune.run_folder.reader import RunFiles

# Pairs shown at least; those that are statistically significant are always shown.
FEW_ROWS = 6
MAX_ROWS = 20
_PANEL_INCHES = (4.6, 2.8)


def view_rank_errors(run: RunFiles) -> dict[str, Any] | None:
    """Return what the section on ranks is drawn from; None where the run has nothing of it."""
    part = run.evaluation.get("rank_errors")
    if not part:
        return None
    return {**part, "drawing": draw_rank_errors(part["distances"])}


def view_label_confusions(run: RunFiles) -> dict[str, Any] | None:
    """Return what the section on pairs of labels is drawn from; None where the run has nothing of it."""
    part = run.evaluation.get("label_confusions")
    if not part:
        return None
    rows = [{**row, "text": describe_confusion(row)} for row in part["pairs"]]
    shown = [row for place, row in enumerate(rows) if row["more"] or place < FEW_ROWS][:MAX_ROWS]
    return {**part, "rows": shown}


def draw_rank_errors(distances: list[Mapping[str, Any]]) -> Drawing:
    """Draw a bar chart of the number of images by rank error.

    Args:
        distances: Rank error and number of images, from `imagetune.evaluation.errors.rank_errors`.
    """
    with drawing_style():
        figure = Figure(figsize=_PANEL_INCHES, layout="constrained")
        axes = figure.subplots()
        across, up = [row["off"] for row in distances], [row["images"] for row in distances]
        # The colour only repeats what the axis says, as nothing is shown by colour alone.
        axes.bar(across, up, color=[VAL if off else TRAIN for off in across], width=0.7)
        for off, images in zip(across, up, strict=True):
            axes.text(off, images, f"{images}", ha="center", va="bottom", color=INK, fontsize=8)
        axes.set_title("Rank errors", loc="left", fontsize=10, fontweight="bold", color=INK)
        axes.set_xlim(min(across) - 1, max(across) + 1)
        axes.set_ylim(0, 1.12 * max(up))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=11))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_xlabel("predicted rank - true rank")
        axes.set_ylabel("images")
        axes.grid(color=GRID, linewidth=0.7)
        axes.tick_params(length=3)
        return save_inline_drawing(figure, "Rank errors")
