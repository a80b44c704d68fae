"""Labels as numbers that a loss can work with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imagetune.recipe.data import Task


def encode_targets(labels: Sequence[str], class_names: Sequence[str], task: Task) -> NDArray[np.float32]:
    """Return what the model should answer for each label.

    Args:
        labels: n labels, as records have them.
        class_names: k names, in the order of the model's outputs.
        task: What a label is.

    Returns:
        (n, k) one-hot rows; a row of zeros where the label is not one of the classes.
    """
    del task
    position = {name: index for index, name in enumerate(class_names)}
    targets = np.zeros((len(labels), len(class_names)), np.float32)
    for row, label in enumerate(labels):
        if label in position:
            targets[row, position[label]] = 1.0
    return targets
