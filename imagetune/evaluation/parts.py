"""The analyses of evaluation.json beyond the metrics of each split, each made by a module of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from imagetune.core.stopping import check_stop
from imagetune.evaluation.context import EvaluationContext
from imagetune.evaluation.errors.label_confusions import analyse_label_confusions
from imagetune.evaluation.errors.rank_errors import analyse_rank_errors
from imagetune.evaluation.errors.residuals import analyse_residuals
from imagetune.evaluation.errors.slices_part import analyse_slices
from imagetune.evaluation.explain.explanations import explain_mistakes
from imagetune.evaluation.features.baselines import analyse_baselines
from imagetune.evaluation.features.label_errors import analyse_label_errors
from imagetune.evaluation.features.neighbours import analyse_neighbours
from imagetune.evaluation.features.out_of_distribution import analyse_out_of_distribution
from imagetune.evaluation.probabilities.calibration import analyse_calibration
from imagetune.evaluation.probabilities.conformal import analyse_conformal
from imagetune.evaluation.probabilities.costs import analyse_costs
from imagetune.evaluation.probabilities.operating_point import analyse_operating_point
from imagetune.evaluation.probabilities.roc_curves import analyse_curves
from imagetune.evaluation.probabilities.selective import analyse_selective_prediction
from imagetune.evaluation.robustness.measure import analyse_robustness

# By key in evaluation.json. An analysis that doesn't apply to a run returns None, and its key is left out.
ANALYSES: Mapping[str, Callable[[EvaluationContext], Mapping[str, Any] | None]] = {
    "residuals": analyse_residuals,
    "rank_errors": analyse_rank_errors,
    "label_confusions": analyse_label_confusions,
    "baselines": analyse_baselines,
    "calibration": analyse_calibration,
    "selective_prediction": analyse_selective_prediction,
    "conformal": analyse_conformal,
    "curves": analyse_curves,
    "costs": analyse_costs,
    "operating_point": analyse_operating_point,
    "label_errors": analyse_label_errors,
    "out_of_distribution": analyse_out_of_distribution,
    "neighbours": analyse_neighbours,
    "explanations": explain_mistakes,
    "robustness": analyse_robustness,
    "slices": analyse_slices,
}


def run_analyses(run: EvaluationContext) -> dict[str, Any]:
    """Return the JSON values of all analyses that apply to the run, by their keys in evaluation.json.

    Args:
        run: The trained model with its predictions; no analysis chooses anything on its test split.
    """
    found = {}
    for name, analyse in ANALYSES.items():
        check_stop()
        found[name] = analyse(run)
    return {name: dict(document) for name, document in found.items() if document is not None}
