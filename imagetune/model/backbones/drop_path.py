"""Stochastic depth (drop path): residual branches dropped at random while training."""

from __future__ import annotations

import re

import keras

# Keras builds ConvNeXt without stochastic depth and leaves an identity layer in its place.
_IDENTITY = re.compile(r"convnext_.*_identity")


def set_drop_path(network: keras.Model, rate: float) -> keras.Model:
    """Return the backbone with stochastic depth (Huang et al. 2016, arXiv 1603.09382).

    The rate rises linearly from the first residual branch to ``rate`` at the last. A branch is dropped for single
    images, by a Dropout with one random number an image, so that the saved model opens in plain Keras.

    Args:
        network: A backbone with random weights, of an architecture that has stochastic depth.
        rate: Probability that the last branch is dropped for an image, 0 to 1 (1 excluded).
    """
    if any(_IDENTITY.fullmatch(layer.name) for layer in network.layers):
        network = keras.models.clone_model(network, clone_function=_replace_identity)
    branches = [layer for layer in network.layers if isinstance(layer, keras.layers.Dropout) and layer.noise_shape]
    for number, layer in enumerate(branches, start=1):
        layer.rate = rate * number / len(branches)
    return network


def _replace_identity(layer: keras.layers.Layer) -> keras.layers.Layer:
    if not _IDENTITY.fullmatch(layer.name):
        return layer.__class__.from_config(layer.get_config())
    # Any rate but 0, with which Keras gives the layer no random generator; `set_drop_path` sets the real one.
    return keras.layers.Dropout(0.5, noise_shape=(None, 1, 1, 1), name=layer.name)
