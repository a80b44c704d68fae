"""The cross-validation section: metrics of each fold, their mean and its corrected interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imagetune.recipe.metrics import METRICS
from imagetune.reports.style import BAND, GRID, MUTED, RIGHT, VAL, Drawing, drawing_style, save_inline_drawing
from imagetune.run_folder.reader import RunFiles

_INCHES = (6.4, 2.4)
# The metric that is drawn: the first of these that the task has.
_DRAWN = ("accuracy", "f1", "mae")


def view_folds(run: RunFiles) -> Mapping[str, Any] | None:
    """Return what the section is drawn from; None where the run was not cross-validated."""
    found = run.evaluation.get("folds")
    if not found:
        return None
    names = list(found["metrics"])
    drawn = next((name for name in _DRAWN if name in names), None)
    tested = run.evaluation.get("splits", {}).get("test", {}).get("metrics", {})
    return {
        **found,
        "names": names,
        "titles": {name: METRICS[name].title if name in METRICS else name.replace("_", " ") for name in names},
        "tested": tested,
        "drawing": _draw_folds(found, drawn, tested) if drawn else None,
    }


def _draw_folds(found: Mapping[str, Any], name: str, tested: Mapping[str, Any]) -> Drawing:
    """Draw one metric: each fold, their mean with its interval, and the run's own test."""
    title = f"{name.replace('_', ' ')} of each fold"
    spread, folds = found["metrics"][name], found["by_fold"]
    with drawing_style():
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.subplots()
        if spread["low"] is not None:
            axes.axvspan(spread["low"], spread["high"], color=BAND, lw=0)
        axes.axvline(spread["mean"], color=MUTED, dashes=(4, 2), lw=1)
        # Downwards, as the axis rises and the first fold shall be on top.
        places = range(len(folds), 0, -1)
        axes.plot([fold["metrics"][name] for fold in folds], places, "o", color=RIGHT)
        labels = {place: f"fold {fold['fold']}" for place, fold in zip(places, folds, strict=True)}
        test = tested.get(name)
        if test and test["value"] is not None:
            labels[0] = "test"
            if test["low"] is not None:
                axes.plot([test["low"], test["high"]], [0, 0], color=VAL)
            axes.plot([test["value"]], [0], "s", color=VAL)
        axes.set_yticks(list(labels), list(labels.values()))
        axes.set_ylim(min(labels) - 0.6, max(labels) + 0.6)
        axes.grid(axis="x", color=GRID, lw=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(7))
        axes.set_title(title, loc="left", fontsize=9)
        return save_inline_drawing(figure, title)
