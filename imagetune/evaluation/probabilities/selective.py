"""Analysis ``selective_prediction``: accuracy if the least confident predictions are left to a person (abstention).

Images are predicted from a confidence threshold on. A lower threshold predicts more images and makes more mistakes: the
risk-coverage curve (El-Yaniv and Wiener, JMLR 11, 2010), whose mean height is the AURC (Geifman et al. 2019, arXiv
1805.08206).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from imagetune.evaluation.context import EvaluationContext
from imagetune.evaluation.probabilities.confidence import (
    Bools,
    Confidences,
    Draws,
    Floats,
    build_draws,
    choose_tested_split,
    compute_confidences,
    get_known_split,
)
from imagetune.evaluation.statistics.intervals import Estimate

COVERAGES = (1.0, 0.9, 0.8, 0.5)
# More points of a curve can't be distinguished on a page.
MAX_POINTS = 100


def analyse_selective_prediction(run: EvaluationContext) -> dict[str, Any] | None:
    """Return the risk-coverage curve of the tested split, and thresholds chosen on validation for some coverages.

    The document::

        {"split": "test", "images": 150,
         "aurc": {"value": 0.03, "low": 0.01, "high": 0.05},     mean risk over all coverages; 0 is best
         "aurc_best": 0.008,             if every mistake were less confident than every right prediction
         "aurc_random": 0.12,                                    if confidences were random
         "curve": [{"coverage": 0.01, "risk": 0.0}, ...],
         "points": [{"coverage": 0.9, "threshold": 0.41 | null, "predicted": {"value", "low", "high"},
                     "accuracy": {"value", "low", "high"}, "ranked": {"value", "low", "high"}}]}

    ``threshold`` is chosen on validation so that at least this share of its images is predicted; ``predicted`` and
    ``accuracy`` are measured on the tested split at that threshold. ``ranked`` is the accuracy of the most confident
    images of the tested split itself, which can't be known in use.

    Returns:
        The document; None for regression, and where no image has a known label.
    """
    name = choose_tested_split(run)
    tested, val = get_known_split(run, name), get_known_split(run, "val")
    if run.data.task == "regression" or tested is None:
        return None
    predictions, draws = compute_confidences(tested.predictions), build_draws(tested, run.evaluate, seed=run.seed)
    thresholds = (
        choose_coverage_thresholds(compute_confidences(val.predictions).confidence)
        if val is not None
        else dict.fromkeys(COVERAGES)
    )
    return {
        "split": name,
        "images": len(predictions.right),
        "aurc": _estimate_aurc(predictions, draws).to_dict(),
        "aurc_best": compute_best_aurc(predictions.right),
        "aurc_random": float(1 - predictions.right.mean()),
        "curve": _thin_out(compute_risk_coverage_curve(predictions)),
        "points": [_describe_point(predictions, share, thresholds[share], draws) for share in COVERAGES],
    }


def compute_risk_coverage_curve(predictions: Confidences) -> Floats:
    """Return the risk-coverage curve (n,): the share of mistakes among the 1, 2, ..., n most confident predictions.

    Ties count by their expected risk, as their order is arbitrary.
    """
    order = np.argsort(-predictions.confidence, kind="stable")
    sure, wrong = predictions.confidence[order], (~predictions.right[order]).astype(np.float64)
    _, group, sizes = np.unique(-sure, return_inverse=True, return_counts=True)
    expected = (np.bincount(group, weights=wrong) / sizes)[group]
    return np.asarray(np.cumsum(expected) / np.arange(1, len(wrong) + 1), np.float64)


def compute_best_aurc(right: Bools) -> float:
    """Return the lowest AURC that these predictions allow: every mistake is less confident than every right one."""
    ideal = Confidences(right.astype(np.float64), right)
    return float(compute_risk_coverage_curve(ideal).mean())


def choose_coverage_thresholds(confidence: Floats) -> dict[float, float | None]:
    """Return for each of `COVERAGES` the highest threshold at which at least this share is predicted.

    Args:
        confidence: (n,) confidences of validation images.
    """
    falling = np.sort(confidence)[::-1]
    thresholds: dict[float, float | None] = {}
    for share in COVERAGES:
        last = int(np.ceil(share * len(falling) - 1e-9)) - 1
        # Half-way to the next prediction, so that rounding decides nothing.
        below = falling[falling < falling[last]]
        # A coverage of 1 must hold for new images as well, which may be less certain than any of validation.
        thresholds[share] = 0.0 if share == 1.0 or not len(below) else float((falling[last] + below[0]) / 2)
    return thresholds


def _estimate_aurc(predictions: Confidences, draws: Draws) -> Estimate:
    value = float(compute_risk_coverage_curve(predictions).mean())
    if predictions.right.all():
        return Estimate(value, reason="no interval: there is no mistake to resample")
    order = np.argsort(-predictions.confidence, kind="stable")
    sure, wrong = predictions.confidence[order], (~predictions.right[order]).astype(np.float64)
    # The last prediction of equal confidence: ties count together.
    last = np.searchsorted(-sure, -sure, side="right") - 1
    samples = []
    for weights in draws.weights():
        drawn = weights[order]
        mistakes = np.cumsum(drawn * wrong[:, None], axis=0, dtype=np.float64)[last]
        predicted = np.cumsum(drawn, axis=0, dtype=np.float64)[last]
        risks = np.divide(mistakes, predicted, out=np.zeros_like(predicted), where=predicted > 0)
        samples.append((drawn * risks).sum(axis=0) / drawn.sum(axis=0))
    return draws.metric(value, np.concatenate(samples))


def _thin_out(risks: Floats) -> list[dict[str, float]]:
    places = np.unique(np.round(np.linspace(0, len(risks) - 1, min(MAX_POINTS, len(risks)))).astype(int))
    return [{"coverage": float((place + 1) / len(risks)), "risk": float(risks[place])} for place in places]


def _describe_point(predictions: Confidences, share: float, threshold: float | None, draws: Draws) -> dict[str, Any]:
    document: dict[str, Any] = {"coverage": share, "threshold": threshold}
    ranked = draws.share(predictions.right, _find_most_confident(predictions.confidence, share)).to_dict()
    if threshold is None:
        missing = Estimate(None, reason="there are no validation images to choose a threshold on").to_dict()
        return {**document, "predicted": missing, "accuracy": missing, "ranked": ranked}
    given = predictions.confidence >= threshold
    accuracy = draws.share(predictions.right, given, reason="no image is predicted")
    return {**document, "predicted": draws.share(given).to_dict(), "accuracy": accuracy.to_dict(), "ranked": ranked}


def _find_most_confident(confidence: Floats, share: float) -> Bools:
    """Return which predictions are the most confident ``share`` of all, (n,) bool; of equals the first."""
    chosen = np.zeros(len(confidence), np.bool_)
    chosen[np.argsort(-confidence, kind="stable")[: int(np.ceil(share * len(confidence) - 1e-9))]] = True
    return chosen
