"""Probabilities for batches of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import keras
import numpy as np

from imagetune.model.views import apply_view
from imagetune.recipe.tracking import View


class PictureBatch(Protocol):
    """Anything with pictures; ``imagetune.data.pipeline.Batch`` is one."""

    @property
    def images(self) -> np.ndarray:
        """(batch, height, width, 3) uint8, RGB."""


def predict_probabilities(
    model: keras.Model, batches: Iterable[PictureBatch], *, views: Sequence[View] = ()
) -> np.ndarray:
    """Return the probabilities of every picture, in the order of the batches.

    Smaller batches, such as the last one, are filled up to the size of the first, so that the model is compiled once.
    With views, the answer is the mean of what the model says of the picture and of each view (test-time augmentation;
    Krizhevsky et al., NIPS 2012, averaged ten crops so), at the cost of a forward pass each.

    Args:
        model: (batch, height, width, 3) uint8 RGB to (batch, classes) probabilities.
        batches: Batches of at most the first one's size.
        views: Versions of each picture beside itself.

    Returns:
        (pictures, classes) float32.
    """
    results = []
    size = 0
    for batch in batches:
        size = size or len(batch.images)
        results.append(predict_filled(model, batch.images, size, views))
    return np.concatenate(results) if results else np.zeros((0, model.output_shape[-1]), np.float32)


def predict_filled(model: keras.Model, images: np.ndarray, size: int, views: Sequence[View] = ()) -> np.ndarray:
    """Return a model's outputs (batch, ...) float32 for a batch that is filled up to ``size`` on the way."""
    filling = np.zeros((max(size - len(images), 0), *images.shape[1:]), images.dtype)
    filled = np.concatenate([images, filling]) if len(filling) else images
    outputs = np.asarray(model.predict_on_batch(filled), np.float32)
    for view in views:
        outputs = outputs + np.asarray(model.predict_on_batch(apply_view(view, filled)), np.float32)
    return (outputs / (1 + len(views)))[: len(images)]
