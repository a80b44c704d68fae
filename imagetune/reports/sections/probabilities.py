"""The sections on probabilities: calibration, selective and conformal prediction, curves, costs, operating point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.probabilities.confidence import build_truth_matrix, find_known_rows
from imagetune.reports.plots.probabilities import (
    MAX_NAMED,
    Curve,
    draw_precision_recall_curves,
    draw_reliability_diagram,
    draw_risk_coverage_curve,
    draw_roc_curves,
    draw_set_sizes,
    thin_points,
)
from imagetune.reports.style import Drawing
from imagetune.run_folder.reader import SPLITS, RunFiles

# From this p-value on, an error as large is compatible with perfectly calibrated probabilities.
_SIGNIFICANCE = 0.05


def view_calibration(run: RunFiles) -> dict[str, Any] | None:
    """Return what the section on calibration is drawn from; None where the run has nothing of it."""
    part = run.evaluation.get("calibration")
    if not part:
        return None
    tested = part["splits"].get(run.tested_name) or next(iter(part["splits"].values()))
    return {
        **part,
        "task": run.evaluation.get("task"),
        "verdict": _describe_calibration(tested["before"], run.evaluation.get("task") == "multi_label"),
        "scaling": _describe_temperature(part),
        "names": {name: SPLITS[name] for name in ("test", "val") if name in part["splits"]},
        "tested": tested,
        "drawings": [
            draw_reliability_diagram(
                f"Reliability, {SPLITS[name]}",
                part["splits"][name]["before"]["bins"],
                part["splits"][name]["after"]["bins"] if part["splits"][name]["after"] else None,
            )
            for name in ("test", "val")
            if name in part["splits"]
        ],
    }


def view_selective_prediction(run: RunFiles) -> dict[str, Any] | None:
    """Return what the section on selective prediction is drawn from; None where the run has nothing of it."""
    part = run.evaluation.get("selective_prediction")
    if not part:
        return None
    drawing = draw_risk_coverage_curve(part["curve"], part["aurc_random"], part["points"])
    several = run.evaluation.get("task") == "multi_label"
    return {**part, "split_name": SPLITS[part["split"]], "several": several, "drawing": drawing}


def view_conformal_prediction(run: RunFiles) -> dict[str, Any] | None:
    """Return what the section on prediction sets is drawn from; None where the run has nothing of it."""
    part = run.evaluation.get("conformal")
    if not part:
        return None
    what = "labels" if part["method"] == "risk_control" else "classes"
    drawing = draw_set_sizes(part["sizes"], what) if part["sizes"] else None
    target, found = part["coverage"], part["covered"]
    low, high = found["low"], found["high"]
    if low is not None and low > target:
        verdict = "significantly more than the target"
    elif high is not None and high < target:
        verdict = (
            "significantly less than the target: the test images differ from validation, "
            "or validation selected the model"
        )
    else:
        verdict = "compatible with the target"
    # The worst first; classes without images last, as None can't be compared with numbers.
    classes = sorted(part["classes"], key=lambda row: (row["covered"]["value"] is None, row["covered"]["value"] or 0.0))
    return {
        **part,
        "split_name": SPLITS[part["split"]],
        "what": what,
        "verdict": verdict,
        "drawing": drawing,
        "classes": classes,
        # Only ranges whose whole interval lies below the target: chance alone puts some below it.
        "uneven": [row for row in part.get("ranges", []) if row["covered"]["high"] < target],
        "unit": " ".join(run.evaluation["class_names"]) if part["method"] == "absolute_residual" else "",
    }


def view_probability_curves(run: RunFiles) -> dict[str, Any] | None:
    """Return what the section on ROC and precision-recall curves shows; None where the run has none."""
    part = run.evaluation.get("curves")
    if not part:
        return None
    classes = sorted(
        part["classes"],
        key=lambda row: (row["average_precision"]["value"] is None, row["average_precision"]["value"] or 0.0),
    )
    predictions = run.tested_predictions
    named = [row["class"] for row in classes if row["average_precision"]["value"] is not None][:MAX_NAMED]
    return {
        **part,
        "classes": classes,
        "split_name": SPLITS[part["split"]],
        "drawings": [] if predictions is None else list(_curve_drawings(predictions, named)),
        "left_out": max(len(classes) - MAX_NAMED, 0),
    }


def view_costs(run: RunFiles) -> dict[str, Any] | None:
    """Return what the section on costs is drawn from; None where the run has nothing of it."""
    part = run.evaluation.get("costs")
    if not part:
        return None
    saved = part["saved"]
    if saved["low"] is not None and saved["low"] > 0:
        verdict = "Predicting the minimum expected cost is significantly cheaper."
    elif saved["high"] is not None and saved["high"] < 0:
        verdict = (
            "Predicting the minimum expected cost is significantly dearer, as the probabilities are not calibrated."
        )
    else:
        verdict = "Predicting the minimum expected cost makes no significant difference."
    names = run.evaluation["class_names"]
    return {**part, "split_name": SPLITS[part["split"]], "verdict": verdict, "names": names}


def view_operating_point(run: RunFiles) -> dict[str, Any] | None:
    """Return what the section on the operating point is drawn from; None where the run has nothing of it."""
    part = run.evaluation.get("operating_point")
    if not part:
        return None
    names = {name: SPLITS[name] for name in ("test", "val") if name in part["splits"]}
    return {**part, "names": names}


def _describe_calibration(measures: Mapping[str, Any], several: bool) -> str:
    """Return in words whether the model is over- or underconfident, and whether the error may be chance."""
    over = measures["overconfidence"]
    probability, frequency = _average_bins(measures)
    means = (
        f"The mean predicted probability is {100 * probability:.1f}%, and the observed frequency is "
        f"{100 * frequency:.1f}%."
        if several
        else f"The mean confidence is {100 * probability:.1f}%, and the accuracy is {100 * frequency:.1f}%."
    )
    if over["low"] is not None and over["low"] > 0:
        text = f"The model is overconfident. {means}"
    elif over["high"] is not None and over["high"] < 0:
        text = f"The model is underconfident. {means}"
    else:
        text = f"The model is neither significantly over- nor underconfident. {means}"
    chance = measures["ece_by_chance"]
    if chance is None:
        return text
    if chance["p_value"] >= _SIGNIFICANCE:
        return f"{text} The calibration error is compatible with perfect calibration."
    return f"{text} The calibration error is statistically significant."


def _average_bins(measures: Mapping[str, Any]) -> tuple[float, float]:
    """Return the mean predicted probability and the observed frequency over all bins."""
    counts = np.array([row["predictions"] for row in measures["bins"]], np.float64)
    columns = ([row[key] for row in measures["bins"]] for key in ("probability", "frequency"))
    probability, frequency = (float(np.average(column, weights=counts)) for column in columns)
    return probability, frequency


def _describe_temperature(part: Mapping[str, Any]) -> str:
    """Return in words the fitted temperature with its interval, and its effect."""
    temperature = part["temperature"]
    value, low, high = (temperature[key] for key in ("value", "low", "high"))
    if value is None:
        return f"There is no temperature: {temperature['reason']}."
    effect = "less confident" if value > 1 else "more confident"
    sure = "" if low > 1 or high < 1 else ", although the interval contains 1, which means no change"
    return (
        f"Validation ({part['fitted_on']:,} images) gives a temperature of {value:.2f} ({low:.2f} to {high:.2f}): "
        f"dividing the logits by it makes the model {effect}{sure}. The predicted classes stay the same."
    )


def _curve_drawings(predictions: Predictions, named: list[str]) -> tuple[Drawing, Drawing]:
    """Return ROC and precision-recall curves of every class with images; the worst ones have names."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    truth, scores = build_truth_matrix(predictions) > 0, predictions.probabilities[find_known_rows(predictions)]
    roc, precision = [], []
    # The worst ones first, as in the table; then the others.
    order = sorted(range(len(predictions.class_names)), key=lambda index: _rank(predictions.class_names[index], named))
    for index in order:
        true, name = truth[:, index], predictions.class_names[index]
        # A curve needs images of the class and others.
        if not true.any() or true.all():
            continue
        label = name if name in named else ""
        false_alarms, recall, _ = roc_curve(true, scores[:, index])
        kept = thin_points(recall)
        roc.append(Curve(label, false_alarms[kept], recall[kept]))
        right, found, _ = precision_recall_curve(true, scores[:, index])
        # scikit-learn's recall falls along its curve, a `Curve` rises.
        kept = thin_points(right[::-1])
        precision.append(Curve(label, found[::-1][kept], right[::-1][kept]))
    return draw_roc_curves(roc), draw_precision_recall_curves(precision)


def _rank(name: str, named: list[str]) -> int:
    return named.index(name) if name in named else len(named)
