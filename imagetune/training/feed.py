"""Batches as Keras takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.data.pipeline import Batch
from imagetune.errors import DataError, ImagetuneError
from imagetune.recipe.problems import did_you_mean


class Feed:
    """Turns batches into (images, one-hot labels[, weights]) and remembers why it failed.

    TensorFlow runs a Python generator behind its own error types, which keep only the text of what went wrong.

    Args:
        batches: Batches of uint8 pictures.
        weights: (k,) weight of each class, or None.
        num_classes: Number of classes k.
    """

    def __init__(self, batches: Iterable[Batch], weights: NDArray[np.float32] | None, num_classes: int) -> None:
        self.batches = batches
        self.weights = weights
        self.num_classes = num_classes
        self.failure: ImagetuneError | None = None

    def __iter__(self) -> Iterator[tuple[NDArray[Any], ...]]:
        """Yield the batches."""
        one_hot = np.eye(self.num_classes, dtype=np.float32)
        try:
            for batch in self.batches:
                labels = one_hot[batch.labels]
                if self.weights is None:
                    yield batch.images, labels
                else:
                    yield batch.images, labels, self.weights[batch.labels]
        except ImagetuneError as error:
            self.failure = error
            raise


def class_weights(
    setting: str | Mapping[str, float], labels: Iterable[str], class_names: tuple[str, ...]
) -> NDArray[np.float32] | None:
    """Return the (k,) weight of each class, or None when all are 1.

    ``balanced`` is n / (k * count of the class), as in scikit-learn.

    Raises:
        DataError: A weight for a class that doesn't exist.
    """
    if setting == "none":
        return None
    if isinstance(setting, str):
        position = {name: index for index, name in enumerate(class_names)}
        counts = np.bincount([position[label] for label in labels], minlength=len(class_names))
        balanced: NDArray[np.float32] = (counts.sum() / (len(class_names) * np.maximum(counts, 1))).astype(np.float32)
        return balanced
    for name in setting:
        if name not in class_names:
            raise DataError(
                f"no class is called {name!r}", where="train.class_weights", hint=did_you_mean(name, class_names)
            )
    return np.array([setting.get(name, 1.0) for name in class_names], dtype=np.float32)
