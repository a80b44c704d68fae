"""Re-estimation of BatchNorm statistics (means and variances) on training images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import keras
import numpy as np

from imagetune.model.trainable import list_leaf_layers

# Means over several hundred images are precise enough; all of a large set would take as long as an epoch.
MAX_BATCHES = 32


def reestimate_statistics(
    model: keras.Model, batches: Iterable[np.ndarray], *, only: Sequence[keras.layers.Layer] | None = None
) -> int:
    """Replace the statistics of BatchNorm layers by means over batches; return the number of layers.

    Adaptive BatchNorm (Li et al. 2016, arXiv 1603.04779), and what averaged weights need (Izmailov et al. 2018,
    arXiv 1803.05407). At most ``MAX_BATCHES`` batches are used. Nothing else of the model changes.

    Args:
        model: A model of images (batch, height, width, 3).
        batches: Images (batch, height, width, 3) uint8; at least one batch.
        only: BatchNorm layers to change, while others work as at inference; by default all.

    Returns:
        Number of BatchNorm layers that were changed.
    """
    present = list_batch_norm_layers(model)
    layers = present if only is None else list(only)
    if not layers:
        return 0
    with _update_statistics(present, layers), _silence_dropout(model):
        for index, images in enumerate(batches):
            # Makes the moving average the plain mean over the batches so far.
            for layer in layers:
                layer.momentum = index / (index + 1.0)
            # Called directly: a compiled function would keep the first momentum as a constant.
            model(images, training=True)
            if index + 1 == MAX_BATCHES:
                break
    return len(layers)


def list_batch_norm_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return all BatchNorm layers of a model, nested ones included, from input to output."""
    return [layer for layer in list_leaf_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]


@contextmanager
def _update_statistics(present: list[keras.layers.Layer], learning: list[keras.layers.Layer]) -> Iterator[None]:
    before = [(layer.trainable, layer.momentum) for layer in present]
    for layer in present:
        # In Keras a BatchNorm layer with trainable=False works as at inference, even if called with training=True.
        layer.trainable = any(layer is one for one in learning)
    try:
        yield
    finally:
        for layer, (trainable, momentum) in zip(present, before, strict=True):
            layer.trainable, layer.momentum = trainable, momentum


@contextmanager
def _silence_dropout(model: keras.Model) -> Iterator[None]:
    # The statistics need training=True, which would switch dropout on as well.
    before = [(layer, layer.rate) for layer in list_leaf_layers(model) if isinstance(layer, keras.layers.Dropout)]
    for layer, _ in before:
        layer.rate = 0.0
    try:
        yield
    finally:
        for layer, rate in before:
            layer.rate = rate
