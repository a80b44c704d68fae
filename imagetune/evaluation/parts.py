"""The analyses of evaluation.json beyond the metrics of each split, each made by a module of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from imagetune.evaluation.context import Examined
from imagetune.evaluation.errors.label_confusions import label_confusions_part
from imagetune.evaluation.errors.rank_errors import rank_errors_part
from imagetune.evaluation.errors.residuals import residuals_part
from imagetune.evaluation.errors.slices_part import slices_document
from imagetune.evaluation.explain.explanations import explained_mistakes
from imagetune.evaluation.features.baselines import baselines
from imagetune.evaluation.features.label_errors import label_errors
from imagetune.evaluation.features.neighbours import neighbours
from imagetune.evaluation.features.out_of_distribution import out_of_distribution
from imagetune.evaluation.probabilities.calibration import calibration_part
from imagetune.evaluation.probabilities.conformal import conformal_part
from imagetune.evaluation.probabilities.costs import costs_part
from imagetune.evaluation.probabilities.operating_point import operating_part
from imagetune.evaluation.probabilities.roc_curves import curves_part
from imagetune.evaluation.probabilities.selective import selective_part
from imagetune.evaluation.robustness.measure import robustness_part

# By key in evaluation.json. An analysis that doesn't apply to a run returns None, and its key is left out.
PARTS: Mapping[str, Callable[[Examined], Mapping[str, Any] | None]] = {
    "residuals": residuals_part,
    "rank_errors": rank_errors_part,
    "label_confusions": label_confusions_part,
    "baselines": baselines,
    "calibration": calibration_part,
    "selective_prediction": selective_part,
    "conformal": conformal_part,
    "curves": curves_part,
    "costs": costs_part,
    "operating_point": operating_part,
    "label_errors": label_errors,
    "out_of_distribution": out_of_distribution,
    "neighbours": neighbours,
    "explanations": explained_mistakes,
    "robustness": robustness_part,
    "slices": slices_document,
}


def deep_document(run: Examined) -> dict[str, Any]:
    """Return the JSON values of all analyses that apply to the run, by their keys in evaluation.json.

    Args:
        run: The trained model with its predictions; no analysis chooses anything on its test split.
    """
    found = {name: analyse(run) for name, analyse in PARTS.items()}
    return {name: dict(document) for name, document in found.items() if document is not None}
