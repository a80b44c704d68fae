"""The part ``selective_prediction``: how right the model is when it may leave its least sure predictions to a person.

PredictedClasses are given from a probability on. Lowering it predictions more images and makes more mistakes: the
risk-coverage curve (El-Yaniv and Wiener, JMLR 11, 2010), whose mean height is the AURC (Geifman et al. 2019, arXiv
1805.08206).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from imagetune.evaluation.context import Examined
from imagetune.evaluation.probabilities.confidence import (
    Bools,
    Draws,
    Floats,
    PredictedClasses,
    draws_of,
    known_split,
    predictions_of,
    tested_split,
)
from imagetune.evaluation.statistics.intervals import Estimate

COVERAGES = (1.0, 0.9, 0.8, 0.5)
# More points of a curve can't be told apart on a page.
MAX_POINTS = 100


def selective_part(run: Examined) -> dict[str, Any] | None:
    """Return risk and coverage of the tested split, and thresholds that validation gives for some coverages.

    The document::

        {"split": "test", "images": 150,
         "aurc": {"value": 0.03, "low": 0.01, "high": 0.05},     mean risk over all coverages; 0 is best
         "aurc_best": 0.008,             if every mistake were less sure than every right prediction
         "aurc_random": 0.12,                                    if probabilities said nothing
         "curve": [{"coverage": 0.01, "risk": 0.0}, ...],
         "points": [{"coverage": 0.9, "threshold": 0.41 | null, "predicted": {"value", "low", "high"},
                     "accuracy": {"value", "low", "high"}, "ranked": {"value", "low", "high"}}]}

    ``threshold`` is chosen on validation so that at least this share of its images is predicted; ``predicted`` and
    ``accuracy`` are what the tested split makes of it. ``ranked`` is the accuracy of the surest images of the tested
    split itself, which no one could pick in use.

    Returns:
        None for regression, and where no image's truth is known.
    """
    name = tested_split(run)
    tested, val = known_split(run, name), known_split(run, "val")
    if run.data.task == "regression" or tested is None:
        return None
    predictions, draws = predictions_of(tested.predictions), draws_of(tested, run.evaluate, seed=run.seed)
    thresholds = (
        coverage_thresholds(predictions_of(val.predictions).confidence) if val is not None else dict.fromkeys(COVERAGES)
    )
    return {
        "split": name,
        "images": len(predictions.right),
        "aurc": _aurc_estimate(predictions, draws).to_dict(),
        "aurc_best": best_aurc(predictions.right),
        "aurc_random": float(1 - predictions.right.mean()),
        "curve": _thinned(risk_curve(predictions)),
        "points": [_point(predictions, share, thresholds[share], draws) for share in COVERAGES],
    }


def risk_curve(predictions: PredictedClasses) -> Floats:
    """Return (n,) share of mistakes among the 1, 2, ..., n surest predictions; equally sure ones come in any order."""
    order = np.argsort(-predictions.confidence, kind="stable")
    sure, wrong = predictions.confidence[order], (~predictions.right[order]).astype(np.float64)
    _, group, sizes = np.unique(-sure, return_inverse=True, return_counts=True)
    expected = (np.bincount(group, weights=wrong) / sizes)[group]
    return np.asarray(np.cumsum(expected) / np.arange(1, len(wrong) + 1), np.float64)


def best_aurc(right: Bools) -> float:
    """Return the AURC if every mistake came after every right prediction."""
    ideal = PredictedClasses(right.astype(np.float64), right)
    return float(risk_curve(ideal).mean())


def coverage_thresholds(confidence: Floats) -> dict[float, float | None]:
    """Return for each of `COVERAGES` the highest threshold from which on at least this share is predicted.

    Args:
        confidence: (n,) of validation images.
    """
    falling = np.sort(confidence)[::-1]
    thresholds: dict[float, float | None] = {}
    for share in COVERAGES:
        last = int(np.ceil(share * len(falling) - 1e-9)) - 1
        # Half-way to the next prediction, so that rounding decides nothing.
        below = falling[falling < falling[last]]
        thresholds[share] = 0.0 if share == 1.0 or not len(below) else float((falling[last] + below[0]) / 2)
    return thresholds


def _aurc_estimate(predictions: PredictedClasses, draws: Draws) -> Estimate:
    value = float(risk_curve(predictions).mean())
    if predictions.right.all():
        return Estimate(value, reason="no interval: there is no mistake to resample")
    order = np.argsort(-predictions.confidence, kind="stable")
    sure, wrong = predictions.confidence[order], (~predictions.right[order]).astype(np.float64)
    # The last prediction that is as sure: equally sure ones count together.
    last = np.searchsorted(-sure, -sure, side="right") - 1
    samples = []
    for weights in draws.weights():
        drawn = weights[order]
        mistakes = np.cumsum(drawn * wrong[:, None], axis=0, dtype=np.float64)[last]
        predicted = np.cumsum(drawn, axis=0, dtype=np.float64)[last]
        risks = np.divide(mistakes, predicted, out=np.zeros_like(predicted), where=predicted > 0)
        samples.append((drawn * risks).sum(axis=0) / drawn.sum(axis=0))
    return draws.metric(value, np.concatenate(samples))


def _thinned(risks: Floats) -> list[dict[str, float]]:
    places = np.unique(np.round(np.linspace(0, len(risks) - 1, min(MAX_POINTS, len(risks)))).astype(int))
    return [{"coverage": float((place + 1) / len(risks)), "risk": float(risks[place])} for place in places]


def _point(predictions: PredictedClasses, share: float, threshold: float | None, draws: Draws) -> dict[str, Any]:
    document: dict[str, Any] = {"coverage": share, "threshold": threshold}
    ranked = draws.share(predictions.right, _surest(predictions.confidence, share)).to_dict()
    if threshold is None:
        missing = Estimate(None, reason="there are no validation images to choose a threshold on").to_dict()
        return {**document, "predicted": missing, "accuracy": missing, "ranked": ranked}
    given = predictions.confidence >= threshold
    accuracy = draws.share(predictions.right, given, reason="no image is predicted")
    return {**document, "predicted": draws.share(given).to_dict(), "accuracy": accuracy.to_dict(), "ranked": ranked}


def _surest(confidence: Floats, share: float) -> Bools:
    """Return (n,) which predictions are the surest ``share`` of all; of equally sure ones the first."""
    chosen = np.zeros(len(confidence), np.bool_)
    chosen[np.argsort(-confidence, kind="stable")[: int(np.ceil(share * len(confidence) - 1e-9))]] = True
    return chosen
