"""Decision rules of a model's manifest, applied to predictions: prediction sets, operating point, minimum cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.predictions import Predictions
from imagetune.model.decision_rules import ConformalRule, OperatingPoint

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


def build_prediction_sets(predictions: Predictions, rule: ConformalRule) -> Bools:
    """Return each image's conformal prediction set, (n, k) bool; see `imagetune.evaluation.probabilities.conformal`.

    Args:
        predictions: Predictions of any task but regression.
        rule: The rule of the model's manifest; without a threshold every set holds all classes.
    """
    probabilities = predictions.probabilities
    if rule.threshold is None:
        return np.ones(probabilities.shape, np.bool_)
    # Probabilities read from a file have nine digits, so one that equals the threshold may lie just below it.
    members: Bools = probabilities >= rule.threshold - 1e-9
    if predictions.rule.task == "multi_label":
        return members
    # An empty set would name nothing; filling it can only raise the coverage.
    empty = ~members.any(axis=1)
    members[empty, predictions.predicted[empty]] = True
    if predictions.rule.task == "ordinal":
        # Ordered classes: a class between two members belongs to the set, too.
        after_first = np.logical_or.accumulate(members, axis=1)
        before_last = np.logical_or.accumulate(members[:, ::-1], axis=1)[:, ::-1]
        return after_first & before_last
    return members


def build_prediction_intervals(values: Floats, rule: ConformalRule) -> tuple[Floats, Floats]:
    """Return the ends (n,) of each number's conformal prediction interval; infinite where the rule has no threshold."""
    half = np.inf if rule.threshold is None else rule.threshold
    return values - half, values + half


def predict_at_operating_point(predictions: Predictions, point: OperatingPoint) -> Ints:
    """Return the predictions (n,) at an operating point: the positive class from its threshold on, else the best other.

    Args:
        predictions: Predictions of single_label or ordinal.
        point: The positive class and its threshold.
    """
    index = predictions.class_names.index(point.positive)
    others = predictions.probabilities.copy()
    others[:, index] = -1.0
    rest = np.where(predictions.predicted == index, others.argmax(axis=1), predictions.predicted)
    reached = predictions.probabilities[:, index] >= point.threshold
    return np.where(reached, index, rest).astype(np.int64)


def list_operating_thresholds(predictions: Predictions, point: OperatingPoint) -> tuple[float, ...]:
    """Return the thresholds of all labels (multi_label), with the operating point's for the positive label."""
    own = predictions.thresholds or (0.5,) * len(predictions.class_names)
    names = predictions.class_names
    return tuple(point.threshold if name == point.positive else usual for name, usual in zip(names, own, strict=True))


def predict_min_cost(probabilities: Floats, costs: Floats) -> Ints:
    """Return the predictions (n,) with the lowest expected cost; of equally cheap ones the most probable.

    Args:
        probabilities: (n, k) of the classes.
        costs: (k, k) cost matrix, rows true and columns predicted.
    """
    expected = probabilities @ costs
    # Rounding must not decide between equally cheap classes.
    cheapest = expected <= expected.min(axis=1, keepdims=True) + 1e-12
    predictions: Ints = np.where(cheapest, probabilities, -1.0).argmax(axis=1).astype(np.int64)
    return predictions
