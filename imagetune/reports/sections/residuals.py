"""The residuals section of a regression: plots, and bias and error by range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagetune.reports.plots.residuals import MAX_POINTS, draw_residuals
from imagetune.run_folder.reader import RunFiles


def view_residuals(run: RunFiles) -> dict[str, Any] | None:
    """Return what the section is drawn from; None where classes are predicted or there are no predictions.

    Old runs have plots only, as their evaluation.json lacks ``residuals``.
    """
    predictions = run.tested_predictions
    if predictions is None or predictions.rule.task != "regression":
        return None
    part: Mapping[str, Any] = run.evaluation.get("residuals") or {}
    true, predicted = predictions.targets[:, 0], predictions.probabilities[:, 0]
    by_true, by_prediction = part.get("by_true", ()), part.get("by_prediction", ())
    drawings = draw_residuals(true, predicted, predictions.class_names[0], by_true=by_true, by_prediction=by_prediction)
    tables = {"true number": by_true, "prediction": by_prediction}
    return {
        "drawings": drawings,
        "drawn": min(len(true), MAX_POINTS),
        "images": len(true),
        "part": part,
        "tables": {name: rows for name, rows in tables.items() if rows},
    }
