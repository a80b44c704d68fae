"""The out-of-distribution section: scores of the splits about the threshold, and the images with the highest scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from imagetune.reports.style import GRID, INK, MUTED, RATE, TRAIN, VAL, Drawing, drawing_style, save_inline_drawing
from imagetune.reports.thumbnails import view_thumbnail
from imagetune.run_folder.reader import SPLITS, RunFiles

TITLE = "Out-of-distribution scores"
MAX_SHOWN = 6
PIXELS = 144
_COLOURS = {"train": TRAIN, "val": VAL, "test": RATE}
# Dashes as well as colours, so that the splits differ without colour, too.
_DASHES = {"train": "solid", "val": "dashed", "test": "dotted"}


def view_out_of_distribution(run: RunFiles) -> Mapping[str, Any] | None:
    """Return what the section shows: without a threshold only why there is none; None where there is no such part."""
    found = run.evaluation.get("out_of_distribution")
    if not found or found["threshold"] is None:
        return found
    highest = [
        {**one, **view_thumbnail(one["path"], root=run.images_root, config=run.recipe.data, pixels=PIXELS)}
        for one in found["highest_scores"][:MAX_SHOWN]
    ]
    names = [(SPLITS[name], found["splits"][name]) for name in SPLITS if name in found["splits"]]
    return {
        **found,
        "drawing": draw_scores(found),
        "names": names,
        "tested_name": SPLITS[found["tested"]],
        "chosen_names": " and ".join(SPLITS[name] for name in found["chosen_on"]["splits"]),
        "highest_scores": highest,
    }


def draw_scores(found: Mapping[str, Any]) -> Drawing:
    """Draw histograms of the scores of each split, with the threshold.

    Args:
        found: The section ``out_of_distribution`` of evaluation.json.
    """
    edges = np.array(found["histogram"]["edges"])
    with drawing_style():
        figure = Figure(figsize=(6.4, 2.8), layout="constrained")
        axes = figure.subplots()
        for name, counts in found["histogram"]["counts"].items():
            # Shares, as the splits have different numbers of images.
            shares = np.array(counts) / max(sum(counts), 1)
            axes.stairs(shares, edges, color=_COLOURS[name], linestyle=_DASHES[name], linewidth=1.6, label=SPLITS[name])
        axes.axvline(found["threshold"], color=INK, linewidth=1)
        axes.text(found["threshold"], 0.98, " flagged →", transform=axes.get_xaxis_transform(), va="top", color=MUTED)
        axes.set_xlabel(f"{found['score']} score (higher: more unlike the training images)")
        axes.set_ylabel("share of images")
        axes.grid(color=GRID, linewidth=0.7)
        axes.legend(frameon=False, loc="upper center" if _leans_right(found) else "upper right")
        return save_inline_drawing(figure, TITLE)


def _leans_right(found: Mapping[str, Any]) -> bool:
    """Return whether the threshold lies in the right half, where a legend would cover its words."""
    edges = found["histogram"]["edges"]
    return bool(found["threshold"] > (edges[0] + edges[-1]) / 2)
