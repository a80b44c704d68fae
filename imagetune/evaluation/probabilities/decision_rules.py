"""What the rules in a model's manifest make of new predictions: sets, operating points, predictions of least cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.predictions import Predictions
from imagetune.model.decision_rules import ConformalRule, OperatingPoint

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


def set_members(predictions: Predictions, rule: ConformalRule) -> Bools:
    """Return (n, k) bool, which classes each image's prediction set holds; see the module `conformal`.

    Args:
        predictions: Of any task but regression.
        rule: From the model's manifest; without a threshold every set holds all classes.
    """
    probabilities = predictions.probabilities
    if rule.threshold is None:
        return np.ones(probabilities.shape, np.bool_)
    # Probabilities that went through a file have nine digits.
    members: Bools = probabilities >= rule.threshold - 1e-9
    if predictions.rule.task == "multi_label":
        return members
    empty = ~members.any(axis=1)
    members[empty, predictions.predicted[empty]] = True
    if predictions.rule.task == "ordinal":
        after_first = np.logical_or.accumulate(members, axis=1)
        before_last = np.logical_or.accumulate(members[:, ::-1], axis=1)[:, ::-1]
        return after_first & before_last
    return members


def value_range(values: Floats, rule: ConformalRule) -> tuple[Floats, Floats]:
    """Return the ends (n,) of the interval around each number; infinite where the rule has no threshold."""
    half = np.inf if rule.threshold is None else rule.threshold
    return values - half, values + half


def operating_predictions(predictions: Predictions, point: OperatingPoint) -> Ints:
    """Return (n,) predictions: the positive class from its threshold on, else the likeliest of the others.

    Args:
        predictions: Of single_label or ordinal.
        point: The class and its threshold.
    """
    index = predictions.class_names.index(point.positive)
    others = predictions.probabilities.copy()
    others[:, index] = -1.0
    rest = np.where(predictions.predicted == index, others.argmax(axis=1), predictions.predicted)
    reached = predictions.probabilities[:, index] >= point.threshold
    return np.where(reached, index, rest).astype(np.int64)


def operating_thresholds(predictions: Predictions, point: OperatingPoint) -> tuple[float, ...]:
    """Return the thresholds of multi_label with that of the label that matters in its place."""
    usual = predictions.thresholds or (0.5,) * len(predictions.class_names)
    names = predictions.class_names
    return tuple(point.threshold if name == point.positive else own for name, own in zip(names, usual, strict=True))


def min_cost_predictions(probabilities: Floats, costs: Floats) -> Ints:
    """Return (n,) the predictions with the least expected cost; of equals the likeliest.

    Args:
        probabilities: (n, k) of the true class.
        costs: (k, k), a row a true class, a column a prediction.
    """
    expected = probabilities @ costs
    cheapest = expected <= expected.min(axis=1, keepdims=True) + 1e-12
    predictions: Ints = np.where(cheapest, probabilities, -1.0).argmax(axis=1).astype(np.int64)
    return predictions
