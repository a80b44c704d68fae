"""Labels as numbers that a loss can work with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imagetune.data.sources.labels import number_of, split_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imagetune.recipe.data import Task


@dataclass(frozen=True)
class ValueScale:
    """Mean and standard deviation of the training targets of a regression, in the labels' units.

    A model learns ``(value - mean) / std``: its rates and losses then don't depend on the units.
    """

    mean: float = 0.0
    std: float = 1.0


def encode_targets(
    labels: Sequence[str], class_names: Sequence[str], task: Task, *, separator: str = ";"
) -> NDArray[np.float32]:
    """Return what the model should prediction for each label.

    Args:
        labels: n labels, as records have them.
        class_names: k names, in the order of the model's outputs.
        task: What a label is.
        separator: What stands between the labels of an image, for multi_label.

    Returns:
        (n, k) one-hot rows for one class, zeros where the label is not one of the classes; (n, k) zeros and ones for
        multi_label, labels that are no classes left out; (n, 1) numbers in the labels' units for regression, NaN where
        a label is no number.
    """
    if task == "regression":
        numbers = [number_of(label) for label in labels]
        return np.array([np.nan if number is None else number for number in numbers], np.float32).reshape(-1, 1)
    position = {name: index for index, name in enumerate(class_names)}
    targets = np.zeros((len(labels), len(class_names)), np.float32)
    for row, label in enumerate(labels):
        for name in split_labels(label, separator) if task == "multi_label" else (label,):
            if name in position:
                targets[row, position[name]] = 1.0
    return targets


def value_scale(labels: Iterable[str]) -> ValueScale:
    """Return mean and standard deviation of the numbers in training labels; a standard deviation of 0 becomes 1.

    Raises:
        ValueError: There is no number among them.
    """
    numbers = [number for label in labels if (number := number_of(label)) is not None]
    if not numbers:
        raise ValueError("no label is a number")
    values = np.array(numbers, np.float64)
    return ValueScale(float(values.mean()), float(values.std()) or 1.0)


def median_class(probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return (n,) the class at which half of the predicted distribution (n, k) is reached.

    The median has the least expected distance in ranks, as the likeliest class has the fewest expected mistakes.
    """
    below = np.cumsum(probabilities, axis=1) < 0.5
    median: NDArray[np.int64] = np.minimum(below.sum(axis=1), probabilities.shape[1] - 1).astype(np.int64)
    return median
