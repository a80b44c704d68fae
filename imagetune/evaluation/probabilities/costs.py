"""Analysis ``costs``: cost-sensitive decisions by the cost matrix ``evaluate.costs``, against the plain predictions.

The prediction with the lowest expected cost is not always the most probable one (Elkan, IJCAI 2001): missing a tumour
costs more than a false alarm. Expected costs are only as good as the probabilities, so they are computed from
calibrated ones, at the fitted temperature.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from imagetune.evaluation.context import EvaluationContext
from imagetune.evaluation.probabilities.calibration import fit_validation_temperature
from imagetune.evaluation.probabilities.confidence import (
    Floats,
    build_draws,
    choose_tested_split,
    find_known_rows,
    get_known_split,
)
from imagetune.evaluation.probabilities.decision_rules import predict_min_cost
from imagetune.evaluation.probabilities.temperature import apply_temperature
from imagetune.model.manifest import update_manifest


def analyse_costs(run: EvaluationContext) -> dict[str, Any] | None:
    """Keep the costs in the model's manifest, for `imagetune predict --min-cost`, and return `describe_costs`."""
    document = describe_costs(run)
    if document is not None:
        update_manifest(run.folder, {"costs": document["costs"]})
    return document


def describe_costs(run: EvaluationContext) -> dict[str, Any] | None:
    """Return the mean cost on the tested split of the model's predictions, and of those with the lowest expected cost.

    The document::

        {"split": "test", "images": 150, "costs": [[0, 1], [5, 0]], "temperature": 1.3 | null,
         "as_predicted" | "min_cost": {"cost": {"value", "low", "high"},          mean cost of an image
                                        "expected": 0.2,                           expected cost by the probabilities
                                        "accuracy": {"value", "low", "high"}},
         "saved": {"value", "low", "high"},                                        as_predicted minus min_cost
         "changed": 12,                                                            images with another prediction
         "classes": [{"class": "cat", "images": 20, "as_predicted": 0.4, "min_cost": 0.2}]}   mean cost of an image

    Returns:
        The document; None where the recipe has no costs, where its matrix doesn't fit the classes, and where no image
        has a known label.
    """
    costs = np.array(run.evaluate.costs or (), np.float64)
    name = choose_tested_split(run)
    split = get_known_split(run, name)
    if split is None or costs.shape != (len(split.predictions.class_names),) * 2:
        return None
    predictions, draws = split.predictions, build_draws(split, run.evaluate, seed=run.seed)
    known = find_known_rows(predictions)
    labels, temperature = predictions.labels[known], fit_validation_temperature(run).value
    probabilities = predictions.probabilities[known]
    if temperature is not None:
        probabilities = apply_temperature(probabilities, temperature, predictions.rule.task)
    choices = {"as_predicted": predictions.predicted[known], "min_cost": predict_min_cost(probabilities, costs)}
    paid = {way: costs[labels, prediction] for way, prediction in choices.items()}
    expected = probabilities @ costs
    rows = np.arange(len(labels))
    return {
        "split": name,
        "images": len(labels),
        "costs": costs.tolist(),
        "temperature": temperature,
        **{
            way: {
                "cost": draws.mean(paid[way], scale="loss").to_dict(),
                "expected": float(expected[rows, prediction].mean()),
                "accuracy": draws.share(prediction == labels).to_dict(),
            }
            for way, prediction in choices.items()
        },
        # Not on the scale of losses: a saving may be negative, which has no logarithm.
        "saved": draws.mean(paid["as_predicted"] - paid["min_cost"]).to_dict(),
        "changed": int((choices["as_predicted"] != choices["min_cost"]).sum()),
        "classes": [
            {
                "class": class_name,
                "images": int((labels == index).sum()),
                **{way: _mean(paid[way][labels == index]) for way in paid},
            }
            for index, class_name in enumerate(predictions.class_names)
        ],
    }


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None
