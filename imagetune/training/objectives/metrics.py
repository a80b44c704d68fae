"""Epoch metrics (accuracy, F1, MAE, R squared, loss), computed from sums over the batches."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.data.loading.targets import ValueScale, compute_median_class
from imagetune.recipe.tasks import Task

# Error at which Huber's loss turns from square to absolute (Huber 1964), in standard deviations of the labels.
HUBER_DELTA = 1.0


class Tally(keras.metrics.Metric):
    """Base of the Keras metrics that sum up an epoch's predictions; `metrics` returns all metrics of the task."""

    @abstractmethod
    def metrics(self, loss: float) -> dict[str, float]:
        """Return the metrics of the epoch so far, with its mean ``loss``."""

    def _count(self, name: str, shape: tuple[int, ...] = ()) -> Any:
        # Float32 counts exactly up to 16.7 million in a cell, and every backend and device can add it.
        return self.add_variable(shape, initializer="zeros", name=name)


class ConfusionTally(Tally):
    """Confusion matrix of an epoch for one class of several; its result is the accuracy.

    Args:
        num_classes: Number of classes k.
    """

    def __init__(self, num_classes: int, name: str = "accuracy") -> None:
        super().__init__(name=name, dtype="float32")
        self.num_classes = num_classes
        self.counts = self._count("counts", (num_classes, num_classes))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch, unweighted.

        Args:
            y_true: (batch, k or more) one-hot or soft labels; a soft one counts for each class by its share. Columns
                after the k-th, such as a teacher's predictions, are ignored.
            y_pred: (batch, k) logits.
            sample_weight: Ignored.
        """
        del sample_weight
        true = keras.ops.cast(y_true[:, : self.num_classes], "float32")
        # A matrix product adds up all pairs at once, on every backend.
        predicted = keras.ops.one_hot(self.decide(y_pred), self.num_classes, dtype="float32")
        self.counts.assign_add(keras.ops.matmul(keras.ops.transpose(true), predicted))

    def decide(self, logits: Any) -> Any:
        """Return the predicted class (batch,) of logits (batch, k)."""
        return keras.ops.argmax(logits, axis=-1)

    def result(self) -> Any:
        """Return the accuracy: the share of correct predictions."""
        return keras.ops.trace(self.counts) / keras.ops.maximum(keras.ops.sum(self.counts), 1.0)

    def matrix(self) -> NDArray[np.float64]:
        """Return the confusion matrix so far, (k, k) float64: rows true, columns predicted."""
        return np.asarray(keras.ops.convert_to_numpy(self.counts), dtype=np.float64)

    def metrics(self, loss: float) -> dict[str, float]:
        """Return loss, accuracy and macro-averaged precision, recall and F1."""
        return compute_class_metrics(self.matrix(), loss)


class OrdinalTally(ConfusionTally):
    """The same for ordered classes, where the prediction is the median of the predicted distribution."""

    def decide(self, logits: Any) -> Any:
        """Return the median class (batch,) of logits (batch, k)."""
        below = keras.ops.cumsum(keras.ops.softmax(keras.ops.cast(logits, "float32")), axis=-1) < 0.5
        return keras.ops.minimum(keras.ops.sum(keras.ops.cast(below, "int32"), axis=-1), self.num_classes - 1)

    def metrics(self, loss: float) -> dict[str, float]:
        """Return the metrics of classes, and the mean absolute error in ranks (``mae``)."""
        matrix = self.matrix()
        return {**compute_class_metrics(matrix, loss), "mae": compute_rank_error(matrix)}


class LabelTally(Tally):
    """Label counts of an epoch for multi-label images; its result is the subset accuracy.

    A label counts as predicted from a probability of 0.5 on.

    Args:
        num_classes: Number of labels k.
    """

    def __init__(self, num_classes: int, name: str = "accuracy") -> None:
        super().__init__(name=name, dtype="float32")
        self.num_classes = num_classes
        self.right = self._count("right", (num_classes,))
        self.true = self._count("true", (num_classes,))
        self.predicted = self._count("predicted", (num_classes,))
        self.correct_images = self._count("correct_images")
        self.images = self._count("images")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch, unweighted: ``y_true`` (batch, k) 0 to 1, maybe soft; ``y_pred`` (batch, k) logits."""
        del sample_weight
        true = keras.ops.cast(y_true[:, : self.num_classes], "float32")
        # A logit of 0 is a probability of 0.5.
        predicted = keras.ops.cast(y_pred >= 0, "float32")
        same = keras.ops.cast(keras.ops.equal(predicted, keras.ops.cast(true >= 0.5, "float32")), "float32")
        self.right.assign_add(keras.ops.sum(true * predicted, axis=0))
        self.true.assign_add(keras.ops.sum(true, axis=0))
        self.predicted.assign_add(keras.ops.sum(predicted, axis=0))
        self.correct_images.assign_add(keras.ops.sum(keras.ops.min(same, axis=-1)))
        self.images.assign_add(keras.ops.cast(keras.ops.shape(true)[0], "float32"))

    def result(self) -> Any:
        """Return the subset accuracy: the share of images with all labels correct."""
        return self.correct_images / keras.ops.maximum(self.images, 1.0)

    def metrics(self, loss: float) -> dict[str, float]:
        """Return loss, subset accuracy, and precision, recall and F1 averaged over the labels that occur."""
        counts = [
            np.asarray(keras.ops.convert_to_numpy(count), np.float64)
            for count in (self.right, self.true, self.predicted)
        ]
        return {"loss": float(loss), "accuracy": float(self.result()), **average_over_classes(*counts)}


class ValueTally(Tally):
    """Errors of an epoch's predicted numbers; its result is the mean absolute error in the labels' units.

    Sums are of normalised values, so that large labels don't exceed the precision of float32.

    Args:
        scale: Mean and standard deviation that labels were normalised with.
    """

    def __init__(self, scale: ValueScale, name: str = "mae") -> None:
        super().__init__(name=name, dtype="float32")
        self.scale = scale
        self.sums = self._count("sums", (5,))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch, unweighted: ``y_true`` and ``y_pred`` (batch, 1), both normalised."""
        del sample_weight
        true = keras.ops.cast(y_true[:, :1], "float32")
        gap = keras.ops.cast(y_pred, "float32") - true
        terms = (keras.ops.ones_like(gap), keras.ops.absolute(gap), keras.ops.square(gap), true, keras.ops.square(true))
        self.sums.assign_add(keras.ops.stack([keras.ops.sum(term) for term in terms]))

    def result(self) -> Any:
        """Return the mean absolute error in the labels' units."""
        return self.scale.std * self.sums[1] / keras.ops.maximum(self.sums[0], 1.0)

    def metrics(self, loss: float) -> dict[str, float]:
        """Return loss, mean absolute error in the labels' units, and R squared: the share of variance explained."""
        count, absolute, squared, total, total_squared = np.asarray(
            keras.ops.convert_to_numpy(self.sums), np.float64
        ).tolist()
        count = max(count, 1.0)
        spread = total_squared - total**2 / count
        mae = self.scale.std * absolute / count
        return {"loss": float(loss), "mae": mae, "r2": _compute_r2(squared, spread)}


def build_tally(task: Task, outputs: int, scale: ValueScale | None = None) -> Tally:
    """Return the Keras metric that sums up an epoch's predictions for a task.

    Args:
        task: What a label is.
        outputs: Number of the model's outputs.
        scale: For regression: mean and deviation that its labels and outputs are normalised with.
    """
    if task == "regression":
        return ValueTally(scale or ValueScale())
    return {"single_label": ConfusionTally, "ordinal": OrdinalTally, "multi_label": LabelTally}[task](outputs)


def compute_prediction_metrics(
    task: Task, targets: NDArray[np.float32], predictions: NDArray[np.float32], scale: ValueScale | None = None
) -> dict[str, float]:
    """Return the metrics of predictions by name, with the mean of `compute_losses` as the loss.

    Args:
        task: What a label is.
        targets: (n, k) as ``encode_targets`` gives them.
        predictions: (n, k) outputs of the whole model: probabilities, or numbers in the labels' units.
        scale: For regression: mean and deviation that the loss normalises with.
    """
    losses = compute_losses(task, targets, predictions, scale)
    loss = float(losses.mean()) if len(losses) else 0.0
    if task == "regression":
        return _compute_value_metrics(targets, predictions, loss)
    if task == "multi_label":
        return _compute_label_metrics(targets, predictions, loss)
    labels = targets.argmax(axis=1).astype(np.int32)
    if task == "ordinal":
        matrix = count_confusions(labels, predictions, compute_median_class(predictions))
        return {**compute_class_metrics(matrix, loss), "mae": compute_rank_error(matrix)}
    return compute_class_metrics(count_confusions(labels, predictions), loss)


def compute_losses(
    task: Task, targets: NDArray[np.float32], predictions: NDArray[np.float32], scale: ValueScale | None = None
) -> NDArray[np.float64]:
    """Return the loss (n,) of each prediction, by which models are selected.

    It is the task's default: cross-entropy in nats, for multi_label its mean over the labels, for ordinal the squared
    earth mover's distance, for regression Huber's on normalised values.

    Args:
        task: What a label is.
        targets: (n, k) as ``encode_targets`` gives them.
        predictions: (n, k) outputs of the whole model: probabilities, or numbers in the labels' units.
        scale: For regression: mean and deviation that the loss normalises with.
    """
    outputs = predictions.astype(np.float64)
    if task == "regression":
        size = np.abs(outputs[:, 0] - targets[:, 0]) / (scale or ValueScale()).std
        huber: NDArray[np.float64] = np.where(
            size <= HUBER_DELTA, 0.5 * size**2, HUBER_DELTA * (size - 0.5 * HUBER_DELTA)
        )
        return huber
    if task == "multi_label":
        # A float32 probability of exactly 0 or 1 is a rounded one.
        sure = np.clip(outputs, 1e-7, 1 - 1e-7)
        binary = -np.where(targets >= 0.5, np.log(sure), np.log1p(-sure))
        return np.asarray(binary.mean(axis=1), np.float64)
    if task == "ordinal":
        distance: NDArray[np.float64] = np.square(np.cumsum(outputs - targets, axis=1)).sum(axis=1)
        return distance
    chosen = outputs[np.arange(len(targets)), targets.argmax(axis=1)]
    return np.asarray(-np.log(np.clip(chosen, 1e-15, 1.0)), np.float64)


def count_confusions(
    labels: NDArray[np.int32], probabilities: NDArray[np.float32], predicted: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Return the confusion matrix (k, k): counts, rows true and columns predicted.

    Args:
        labels: (n,) true classes.
        probabilities: (n, k) predicted probabilities.
        predicted: (n,) predicted classes; by default the most probable ones.
    """
    classes = probabilities.shape[1]
    predictions = probabilities.argmax(axis=1) if predicted is None else predicted
    pairs = labels.astype(np.int64) * classes + predictions
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.float64)


def compute_class_metrics(matrix: NDArray[np.float64], loss: float) -> dict[str, float]:
    """Return loss, accuracy and macro-averaged precision, recall and F1 from a confusion matrix (k, k).

    A class without images is left out of the averages; one that is never predicted has precision 0, as in
    scikit-learn.
    """
    right = np.diag(matrix)
    accuracy = float(right.sum() / max(matrix.sum(), 1.0))
    averages = average_over_classes(right, matrix.sum(axis=1), matrix.sum(axis=0))
    return {"loss": float(loss), "accuracy": accuracy, **averages}


def average_over_classes(
    right: NDArray[np.float64], true: NDArray[np.float64], predicted: NDArray[np.float64]
) -> dict[str, float]:
    """Return precision, recall and F1, macro-averaged over the classes that occur.

    Args:
        right: (k,) number of images of each class that were predicted as it (true positives).
        true: (k,) number of images of each class.
        predicted: (k,) number of images that were predicted as each class.
    """
    present = true > 0
    averages = {
        "precision": right / np.where(predicted > 0, predicted, 1.0),
        "recall": right / np.where(present, true, 1.0),
        "f1": 2 * right / np.where(true + predicted > 0, true + predicted, 1.0),
    }
    return {name: float(values[present].mean()) if present.any() else 0.0 for name, values in averages.items()}


def compute_rank_error(matrix: NDArray[np.float64]) -> float:
    """Return the mean absolute error in ranks between true and predicted class, from a confusion matrix (k, k)."""
    ranks = np.arange(len(matrix))
    return float((np.abs(ranks[:, None] - ranks) * matrix).sum() / max(matrix.sum(), 1.0))


def _compute_label_metrics(
    targets: NDArray[np.float32], probabilities: NDArray[np.float32], loss: float
) -> dict[str, float]:
    true, predicted = targets >= 0.5, probabilities >= 0.5
    counts = ((true & predicted).sum(axis=0), true.sum(axis=0), predicted.sum(axis=0))
    averages = average_over_classes(*(count.astype(np.float64) for count in counts))
    accuracy = float((true == predicted).all(axis=1).mean()) if len(targets) else 0.0
    return {"loss": loss, "accuracy": accuracy, **averages}


def _compute_value_metrics(
    targets: NDArray[np.float32], predictions: NDArray[np.float32], loss: float
) -> dict[str, float]:
    if not len(targets):
        return {"loss": 0.0, "mae": 0.0, "r2": 0.0}
    true, predicted = targets[:, 0].astype(np.float64), predictions[:, 0].astype(np.float64)
    gap = np.abs(predicted - true)
    spread = float(np.square(true - true.mean()).sum())
    return {"loss": loss, "mae": float(gap.mean()), "r2": _compute_r2(float((gap**2).sum()), spread)}


def _compute_r2(squared_error: float, spread: float) -> float:
    """Return R squared; 0 where all labels are the same, so that there is no variance to explain."""
    return 1.0 - squared_error / spread if spread > 1e-12 else 0.0
