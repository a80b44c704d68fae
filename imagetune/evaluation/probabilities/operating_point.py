"""Analysis ``operating_point``: the probability threshold of the positive class, and recall and precision at it.

Every threshold that separates two validation images is tried; the test split only measures the chosen one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from imagetune.evaluation.context import EvaluatedSplit, EvaluationContext
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.probabilities.confidence import (
    Bools,
    Draws,
    Floats,
    build_draws,
    build_truth_matrix,
    find_known_rows,
    get_known_split,
)
from imagetune.evaluation.probabilities.decision_rules import list_operating_thresholds, predict_at_operating_point
from imagetune.model.decision_rules import OperatingPoint
from imagetune.model.manifest import update_manifest
from imagetune.recipe.sections.evaluate import OperatingPointConfig


@dataclass(frozen=True)
class Cuts:
    """Recall, precision and false-positive rate at every threshold, on the images that it is chosen on.

    Attributes:
        thresholds: (m,) falling, half-way between two probabilities that occur; the last predicts the class for all.
        recall: (m,) share of the class's images that reach the threshold.
        precision: (m,) share of the class among the images that reach it.
        false_alarms: (m,) false-positive rate: share of the other images that reach it.
    """

    thresholds: Floats
    recall: Floats
    precision: Floats
    false_alarms: Floats


def analyse_operating_point(run: EvaluationContext) -> dict[str, Any] | None:
    """Choose the threshold on validation, keep it in the model's manifest, and return `describe_operating_point`."""
    document = describe_operating_point(run)
    if document is not None and document["threshold"] is not None:
        kept = {name: document[name] for name in ("positive", "threshold")}
        update_manifest(run.folder, {"operating_point": kept})
    return document


def describe_operating_point(run: EvaluationContext) -> dict[str, Any] | None:
    """Return the operating point of ``evaluate.operating_point``, with recall, precision and accuracy at it.

    The document::

        {"positive": "tumour", "goal": "the highest precision with a recall of at least 95%",
         "threshold": 0.21 | null, ["reason": "..."],
         "splits": {"val" | "test": {"images": 150, "positives": 20,
             "at_threshold" | "as_predicted": {"found": 19, "missed": 1, "false_alarms": 4, "recall" | "precision"
                                              | "specificity" | "accuracy": {"value", "low", "high"}}}}}

    ``as_predicted`` is the model's own prediction, without the threshold. The metrics of val are those that the
    threshold was chosen by, so they are optimistic.

    Returns:
        The document; None where the recipe asks for none, for regression, and where there are no validation images.
    """
    config, val = run.evaluate.operating_point, get_known_split(run, "val")
    if config is None or val is None or config.positive not in val.predictions.class_names:
        return None
    threshold, reason = choose_threshold(val.predictions, config)
    document: dict[str, Any] = {"positive": config.positive, "goal": goal_text(config), "threshold": threshold}
    if threshold is None:
        return {**document, "reason": reason, "splits": {}}
    point = OperatingPoint(positive=config.positive, threshold=threshold)
    splits = {name: found for name in ("val", "test") if (found := get_known_split(run, name)) is not None}
    return {
        **document,
        "splits": {
            name: _measure(found, point, build_draws(found, run.evaluate, seed=run.seed))
            for name, found in splits.items()
        },
    }


def goal_text(config: OperatingPointConfig) -> str:
    """Return the goal that the threshold is chosen for, in words."""
    if config.min_recall is not None:
        return f"the highest precision with a recall of at least {100 * config.min_recall:g}%"
    if config.min_precision is not None:
        return f"the highest recall with a precision of at least {100 * config.min_precision:g}%"
    if config.maximise == "youden":
        return "the highest Youden index: recall minus the false-positive rate"
    return "the highest F1"


def choose_threshold(val: Predictions, config: OperatingPointConfig) -> tuple[float | None, str]:
    """Return the threshold that reaches the goal best on validation, or None and the reason.

    Of equally good thresholds the one nearest to 0.5 is chosen.
    """
    index = val.class_names.index(config.positive)
    true = build_truth_matrix(val)[:, index] > 0
    if not true.any() or true.all():
        kind = "no" if not true.any() else "nothing but"
        return None, f"validation has {kind} images of {config.positive}"
    cuts = threshold_cuts(true, val.probabilities[find_known_rows(val), index])
    first, second = _merits(cuts, config)
    if not np.isfinite(first).any():
        best = float(cuts.precision.max())
        what = f"no threshold reaches a precision of {100 * (config.min_precision or 0):g}% on validation"
        return None, f"{what}; the highest is {100 * best:.1f}%"
    # Rounding must not decide between equally good thresholds.
    tied = np.flatnonzero(first >= first.max() - 1e-12)
    tied = tied[second[tied] >= second[tied].max() - 1e-12]
    return float(cuts.thresholds[tied[np.abs(cuts.thresholds[tied] - 0.5).argmin()]]), ""


def threshold_cuts(true: Bools, probabilities: Floats) -> Cuts:
    """Return recall, precision and false-positive rate at every threshold that separates two images.

    Args:
        true: (n,) which images are of the class; some are and some aren't.
        probabilities: (n,) probability of the class.
    """
    # scikit-learn's first point predicts the class for no image, where precision is not defined.
    # By default scikit-learn drops the points on straight parts of the curve, but these are thresholds as well.
    false_alarms, recall, falling = (
        values[1:] for values in roc_curve(true, probabilities.astype(np.float64), drop_intermediate=False)
    )
    found, others = recall * true.sum(), false_alarms * (~true).sum()
    below = np.append(falling[1:], 0.0)
    return Cuts((falling + below) / 2, recall, found / (found + others), false_alarms)


def _merits(cuts: Cuts, config: OperatingPointConfig) -> tuple[Floats, Floats]:
    """Return what is maximised (m,), and what breaks ties (m,); minus infinity where a threshold is not allowed."""
    # A recall or precision that just reaches the goal may come out below it by rounding.
    if config.min_recall is not None:
        return np.where(cuts.recall >= config.min_recall - 1e-12, cuts.precision, -np.inf), cuts.recall
    if config.min_precision is not None:
        return np.where(cuts.precision >= config.min_precision - 1e-12, cuts.recall, -np.inf), cuts.precision
    if config.maximise == "youden":
        return cuts.recall - cuts.false_alarms, cuts.precision
    both = cuts.precision + cuts.recall
    f1 = np.divide(2 * cuts.precision * cuts.recall, both, out=np.zeros_like(both), where=both > 0)
    return f1, cuts.recall


def _measure(split: EvaluatedSplit, point: OperatingPoint, draws: Draws) -> dict[str, Any]:
    predictions = split.predictions
    known = find_known_rows(predictions)
    index = predictions.class_names.index(point.positive)
    own = build_truth_matrix(predictions)[:, index] > 0
    if predictions.rule.task == "multi_label":
        thresholds = np.array(list_operating_thresholds(predictions, point))
        truth = predictions.targets >= 0.5
        at = (predictions.probabilities >= thresholds)[known]
        given = predictions.given[known]
        taken = {"at_threshold": at[:, index], "as_predicted": given[:, index]}
        right = {"at_threshold": (at == truth[known]).all(axis=1), "as_predicted": (given == truth[known]).all(axis=1)}
    else:
        choices = {
            "at_threshold": predict_at_operating_point(predictions, point),
            "as_predicted": predictions.predicted,
        }
        taken = {name: prediction[known] == index for name, prediction in choices.items()}
        right = {name: (prediction == predictions.labels)[known] for name, prediction in choices.items()}
    metrics = {name: _metrics(own, taken[name], right[name], draws) for name in taken}
    return {"images": len(own), "positives": int(own.sum()), **metrics}


def _metrics(own: Bools, taken: Bools, right: Bools, draws: Draws) -> dict[str, Any]:
    return {
        "found": int((own & taken).sum()),
        "missed": int((own & ~taken).sum()),
        "false_alarms": int((~own & taken).sum()),
        "recall": draws.share(taken, own, reason="no images of this class").to_dict(),
        "precision": draws.share(own, taken, reason="no image was predicted as it").to_dict(),
        "specificity": draws.share(~taken, ~own, reason="no other images").to_dict(),
        "accuracy": draws.share(right).to_dict(),
    }
