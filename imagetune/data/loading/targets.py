"""Targets: labels encoded as arrays for the loss, and the scale of regression targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imagetune.data.sources.labels import parse_number, split_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imagetune.recipe.tasks import Task


@dataclass(frozen=True)
class ValueScale:
    """Mean and standard deviation of the training targets of a regression, in the labels' units.

    A model learns ``(value - mean) / std``, so that learning rates and losses don't depend on the units.
    """

    mean: float = 0.0
    std: float = 1.0


def encode_targets(
    labels: Sequence[str], class_names: Sequence[str], task: Task, *, separator: str = ";"
) -> NDArray[np.float32]:
    """Return the target of each label as an array.

    Args:
        labels: n labels, as records have them.
        class_names: k names in the order of the model's outputs.
        task: The task, which determines the encoding.
        separator: The separator between the labels of an image, for multi_label.

    Returns:
        float32: ``(n, k)`` one-hot rows for single labels, zeros where the label is not a class name; ``(n, k)``
        multi-hot rows for multi_label, without labels that are not class names; ``(n, 1)`` numbers in the labels'
        units for regression, NaN where a label is not a number.
    """
    if task == "regression":
        numbers = [parse_number(label) for label in labels]
        return np.array([np.nan if number is None else number for number in numbers], np.float32).reshape(-1, 1)
    position = {name: index for index, name in enumerate(class_names)}
    targets = np.zeros((len(labels), len(class_names)), np.float32)
    for row, label in enumerate(labels):
        for name in split_labels(label, separator) if task == "multi_label" else (label,):
            if name in position:
                targets[row, position[name]] = 1.0
    return targets


def compute_value_scale(labels: Iterable[str]) -> ValueScale:
    """Return mean and standard deviation of the training targets of regression; a deviation of 0 becomes 1.

    Raises:
        ValueError: No label is a number.
    """
    numbers = [number for label in labels if (number := parse_number(label)) is not None]
    if not numbers:
        raise ValueError("no label is a number")
    # float64, because the variance of large numbers, such as years or prices, cancels in float32.
    values = np.array(numbers, np.float64)
    return ValueScale(float(values.mean()), float(values.std()) or 1.0)


def compute_median_class(probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the median class ``(n,)`` of predicted distributions ``(n, k)`` over ordered classes.

    The median minimizes the expected distance in ranks, as the most probable class minimizes the expected errors.
    """
    below = np.cumsum(probabilities, axis=1) < 0.5
    median: NDArray[np.int64] = np.minimum(below.sum(axis=1), probabilities.shape[1] - 1).astype(np.int64)
    return median
