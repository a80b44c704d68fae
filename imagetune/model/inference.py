"""Probabilities for batches of pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import keras
import numpy as np


class PictureBatch(Protocol):
    """Anything with pictures; ``imagetune.data.pipeline.Batch`` is one."""

    @property
    def images(self) -> np.ndarray:
        """(batch, height, width, 3) uint8, RGB."""


def predict_probabilities(model: keras.Model, batches: Iterable[PictureBatch]) -> np.ndarray:
    """Return the probabilities of every picture, in the order of the batches.

    Smaller batches, such as the last one, are filled up to the size of the first, so that the model is compiled once.

    Args:
        model: (batch, height, width, 3) uint8 RGB to (batch, classes) probabilities.
        batches: Batches of at most the first one's size.

    Returns:
        (pictures, classes) float32.
    """
    results = []
    size = 0
    for batch in batches:
        size = size or len(batch.images)
        results.append(_predict(model, batch.images, size))
    return np.concatenate(results) if results else np.zeros((0, model.output_shape[-1]), np.float32)


def _predict(model: keras.Model, images: np.ndarray, size: int) -> np.ndarray:
    filling = np.zeros((max(size - len(images), 0), *images.shape[1:]), images.dtype)
    outputs = model.predict_on_batch(np.concatenate([images, filling]) if len(filling) else images)
    return np.asarray(outputs, np.float32)[: len(images)]
