"""Figures of an epoch, from a confusion matrix."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.recipe.data import Task


class ConfusionTally(keras.metrics.Metric):
    """Counts (true, predicted) pairs of an epoch; its result is the accuracy.

    Args:
        num_classes: Number of classes k.
    """

    def __init__(self, num_classes: int, name: str = "accuracy") -> None:
        super().__init__(name=name, dtype="float32")
        self.num_classes = num_classes
        # Float32 counts exactly to 16.7 million a cell, and every backend and device can add it.
        self.counts = self.add_variable((num_classes, num_classes), initializer="zeros", name="counts")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch: ``y_true`` one-hot or soft labels (batch, k), ``y_pred`` logits (batch, k), unweighted."""
        del sample_weight
        true = keras.ops.one_hot(keras.ops.argmax(y_true, axis=-1), self.num_classes, dtype="float32")
        predicted = keras.ops.one_hot(keras.ops.argmax(y_pred, axis=-1), self.num_classes, dtype="float32")
        self.counts.assign_add(keras.ops.matmul(keras.ops.transpose(true), predicted))

    def result(self) -> Any:
        """Return the share of right predictions."""
        return keras.ops.trace(self.counts) / keras.ops.maximum(keras.ops.sum(self.counts), 1.0)

    def matrix(self) -> NDArray[np.float64]:
        """Return the counts so far as (k, k) float64: rows true, columns predicted."""
        return np.asarray(keras.ops.convert_to_numpy(self.counts), dtype=np.float64)

    def figures(self, loss: float) -> dict[str, float]:
        """Return the figures of the epoch so far, with its mean ``loss``."""
        return figures_of(self.matrix(), loss)


def build_tally(task: Task, outputs: int) -> ConfusionTally:
    """Return the metric that counts an epoch's answers.

    Args:
        task: What a label is.
        outputs: Number of the model's outputs.
    """
    del task
    return ConfusionTally(outputs)


def figures_of_answers(task: Task, targets: NDArray[np.float32], answers: NDArray[np.float32]) -> dict[str, float]:
    """Return the figures of pictures that the model answered, loss included.

    Args:
        task: What a label is.
        targets: (n, k) as ``encode_targets`` gives them.
        answers: (n, k) outputs of the whole model: probabilities.
    """
    del task
    labels = targets.argmax(axis=1).astype(np.int32)
    return figures_of(confusion_matrix(labels, answers), log_loss(labels, answers))


def confusion_matrix(labels: NDArray[np.int32], probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return (k, k) counts, rows true and columns predicted, of (n,) labels and (n, k) probabilities."""
    classes = probabilities.shape[1]
    pairs = labels.astype(np.int64) * classes + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.float64)


def figures_of(matrix: NDArray[np.float64], loss: float) -> dict[str, float]:
    """Return loss, accuracy and macro precision, recall and F1.

    A class without pictures is left out of the averages; one that is never predicted has precision 0, as in
    scikit-learn.
    """
    right = np.diag(matrix)
    true, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    present = true > 0
    precision = right / np.maximum(predicted, 1.0)
    recall = right / np.maximum(true, 1.0)
    f1 = 2 * right / np.maximum(true + predicted, 1.0)
    averages = {"precision": precision, "recall": recall, "f1": f1}
    return {
        "loss": float(loss),
        "accuracy": float(right.sum() / max(matrix.sum(), 1.0)),
        **{name: float(values[present].mean()) if present.any() else 0.0 for name, values in averages.items()},
    }


def log_loss(labels: NDArray[np.int32], probabilities: NDArray[np.float32]) -> float:
    """Return the mean negative log probability of the true class, in nats."""
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.clip(chosen, 1e-15, 1.0)).mean()) if len(labels) else 0.0
