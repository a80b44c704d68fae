"""The metrics of a compared run for each task, as functions of image weights, for resampling and permutation tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.metrics.multilabel import build_label_metric_function
from imagetune.evaluation.metrics.ordinal import compute_rank_metrics
from imagetune.evaluation.metrics.regression import bin_numbers, build_regression_metric_function
from imagetune.evaluation.metrics.scores import (
    AUC_STEPS,
    TINY,
    average_present_classes,
    compute_log_losses,
    compute_weighted_confusion,
)
from imagetune.evaluation.predictions import Predictions
from imagetune.recipe.tasks import Task

# Regression has no classes, so it is compared in ranges of the true number; a smaller range could show no difference.
PARTS, MIN_PART = 3, 10

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Weights = NDArray[np.float32]
Metrics: TypeAlias = tuple[Mapping[str, Floats], Floats]


@dataclass(frozen=True)
class RunPredictions:
    """One run's predictions for n images, prepared for a comparison.

    Attributes:
        task: The task of the run.
        true: (n,) int64 classes; for multi_label (n, k) bool; for regression (n,) float64 numbers.
        given: The predictions, in the same form as ``true``.
        probabilities: (n, k) float64, rows that sum to 1 where an image has one class.
        part: (n,) int64 class of each image; for regression the range of its true number; zeros for multi_label.
        names: Names of the classes or ranges.
    """

    task: Task
    true: NDArray[np.generic]
    given: NDArray[np.generic]
    probabilities: Floats
    part: Ints
    names: tuple[str, ...]

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n,) whether each prediction is right; with multi_label all labels of the image are, with regression none."""
        if self.task == "regression":
            return np.zeros(len(self.true), np.bool_)
        equal: NDArray[np.bool_] = np.equal(self.true, self.given)
        return equal if equal.ndim == 1 else equal.reshape(len(equal), -1).min(axis=1)

    def followed_by(self, other: RunPredictions) -> RunPredictions:
        """Return two runs' predictions for the same n images, concatenated as 2n images for a permutation test."""
        return RunPredictions(
            self.task,
            np.concatenate([self.true, other.true]),
            np.concatenate([self.given, other.given]),
            np.concatenate([self.probabilities, other.probabilities]),
            np.concatenate([self.part, other.part]),
            self.names,
        )


def prepare_predictions(predictions: Predictions) -> RunPredictions:
    """Return predictions prepared for a comparison; all their labels must be known to the model."""
    task, names = predictions.rule.task, predictions.class_names
    if task == "multi_label":
        none = np.zeros(len(predictions.paths), np.int64)
        return RunPredictions(
            task, predictions.targets >= 0.5, predictions.given, predictions.probabilities, none, names
        )
    if task == "regression":
        true = predictions.targets[:, 0]
        part, told = bin_numbers(true, most=PARTS, least=MIN_PART)
        return RunPredictions(task, true, predictions.probabilities[:, 0], predictions.probabilities, part, told)
    # Float32 rows sum to 1 only nearly, which the log loss would show.
    sums = np.maximum(predictions.probabilities.sum(axis=1, keepdims=True), TINY)
    labels = predictions.labels
    return RunPredictions(task, labels, predictions.predicted, predictions.probabilities / sums, labels, names)


def build_metric_function(predictions: RunPredictions, *, samples: int) -> Callable[[Weights], Metrics]:
    """Return a function from weights (n, b) to headline metrics (b,) by name and the metric of each class (k, b).

    A metric that is not defined is NaN.

    Args:
        predictions: The run's predictions.
        samples: Number of resamplings to come: with very many, the mean average precision is left out.
    """
    if predictions.task == "multi_label":
        return _label_metrics(predictions, with_ranking=predictions.true.size * samples <= AUC_STEPS)
    if predictions.task == "regression":
        return _value_metrics(predictions)
    return _class_metrics(predictions)


def compute_integer_scores(predictions: RunPredictions, metric: str) -> Ints | None:
    """Return integer scores (n,) whose mean is the metric, up to a factor; None for a metric that is no such mean."""
    # A constant factor changes no p-value, so that counts stand for shares.
    if metric in ("accuracy", "subset_accuracy"):
        return predictions.right.astype(np.int64)
    if metric == "hamming_loss":
        wrong: Ints = np.not_equal(predictions.true, predictions.given).sum(axis=1).astype(np.int64)
        return wrong
    if predictions.task == "ordinal" and metric in ("mae", "within_one_rank"):
        distance = np.abs(predictions.true.astype(np.int64) - predictions.given.astype(np.int64))
        return distance if metric == "mae" else (distance <= 1).astype(np.int64)
    return None


def _class_metrics(predictions: RunPredictions) -> Callable[[Weights], Metrics]:
    labels, given = predictions.true.astype(np.int64), predictions.given.astype(np.int64)
    classes, hits, loss = len(predictions.names), labels == given, compute_log_losses(labels, predictions.probabilities)
    # A wrong prediction is no class's right one: index k stands for none, and its images are left out of the sums.
    true_sums, given_sums, right_sums = (
        _ClassSums.of(picked, classes) for picked in (labels, given, np.where(hits, labels, classes))
    )

    def metrics(weights: Weights) -> Metrics:
        true, predicted, right = true_sums(weights), given_sums(weights), right_sums(weights)
        total, present = weights.sum(axis=0, dtype=np.float64), true > 0
        recall = np.where(present, right / np.maximum(true, 1), np.nan)
        f1 = np.where(present, 2 * right / np.maximum(true + predicted, 1), np.nan)
        headline: dict[str, Floats] = {
            "accuracy": right.sum(axis=0) / total,
            "balanced_accuracy": average_present_classes(recall, present).astype(np.float64),
            "f1": average_present_classes(f1, present).astype(np.float64),
            "log_loss": loss @ weights / total,
        }
        if predictions.task == "ordinal":
            headline |= compute_rank_metrics(compute_weighted_confusion(labels, given, classes, weights))
        return headline, recall

    return metrics


def _label_metrics(predictions: RunPredictions, *, with_ranking: bool) -> Callable[[Weights], Metrics]:
    true, given = predictions.true.astype(np.bool_), predictions.given.astype(np.bool_)
    compute = build_label_metric_function(true, given, predictions.probabilities, with_ranking=with_ranking)

    def metrics(weights: Weights) -> Metrics:
        headline, by_label = compute(weights)
        return headline, by_label["f1"]

    return metrics


def _value_metrics(predictions: RunPredictions) -> Callable[[Weights], Metrics]:
    true, given = predictions.true.astype(np.float64), predictions.given.astype(np.float64)
    compute, errors = build_regression_metric_function(true, given), np.abs(true - given)
    sums = _ClassSums.of(predictions.part, len(predictions.names))

    def metrics(weights: Weights) -> Metrics:
        drawn = sums(weights)
        missed = sums((weights * errors[:, None]).astype(np.float32))
        return compute(weights), np.divide(missed, drawn, out=np.full_like(missed, np.nan), where=drawn > 0)

    return metrics


@dataclass(frozen=True)
class _ClassSums:
    """Sums of weights by class, the images sorted once for all resamplings.

    Attributes:
        order: (n,) images, those of the first class first; images of no class are left out.
        classes: (c,) the classes that have images.
        starts: (c,) where each begins in the order.
        count: k.
    """

    order: Ints
    classes: Ints
    starts: Ints
    count: int

    @classmethod
    def of(cls, picked: Ints, count: int) -> _ClassSums:
        order = np.argsort(picked, kind="stable")
        order = order[picked[order] < count]
        classes, starts = np.unique(picked[order], return_index=True)
        return cls(order, classes, starts, count)

    def __call__(self, weights: Weights) -> Floats:
        sums = np.zeros((self.count, weights.shape[1]))
        if len(self.classes):
            sums[self.classes] = np.add.reduceat(weights[self.order], self.starts, axis=0)
        return sums
