"""Analysis ``curves``: ROC AUC and average precision of each class against all others, over all thresholds.

They are those of `imagetune.evaluation.metrics.areas`, which the metrics of each class use, too.
"""

from __future__ import annotations

from typing import Any

from imagetune.evaluation.context import EvaluationContext
from imagetune.evaluation.metrics.areas import estimate_average_precision, estimate_roc_auc
from imagetune.evaluation.probabilities.confidence import (
    build_truth_matrix,
    choose_tested_split,
    find_known_rows,
    get_known_split,
)
from imagetune.evaluation.statistics.intervals import Estimate, encode_groups


def analyse_curves(run: EvaluationContext) -> dict[str, Any] | None:
    """Return ROC AUC and average precision of each class on the tested split; each class against all others.

    The document::

        {"split": "test", "images": 150,
         "classes": [{"class": "cat", "images": 20, "share": 0.13,
                      "roc_auc" | "average_precision": {"value", "low", "high", ["reason"]}}]}

    ``share`` is the class's prevalence, the average precision of random scores. The curves themselves are drawn from
    predictions/test.csv.

    Returns:
        The document; None for regression, and where no image has a known label.
    """
    name = choose_tested_split(run)
    split = get_known_split(run, name)
    if run.data.task == "regression" or split is None:
        return None
    predictions, confidence = split.predictions, run.evaluate.confidence
    known = find_known_rows(predictions)
    groups = encode_groups([one.group for one, take in zip(split.records, known, strict=True) if take])
    probabilities, truth = predictions.probabilities[known], build_truth_matrix(predictions) > 0

    def describe(found: Estimate) -> dict[str, Any]:
        # The intervals of these formulas are for independent images.
        grouped = "no interval: the images come in groups"
        return (found if groups is None or found.value is None else Estimate(found.value, reason=grouped)).to_dict()

    return {
        "split": name,
        "images": len(truth),
        "classes": [
            {
                "class": class_name,
                "images": int(truth[:, index].sum()),
                "share": float(truth[:, index].mean()),
                "roc_auc": describe(estimate_roc_auc(truth[:, index], probabilities[:, index], confidence)),
                "average_precision": describe(
                    estimate_average_precision(truth[:, index], probabilities[:, index], confidence)
                ),
            }
            for index, class_name in enumerate(predictions.class_names)
        ],
    }
