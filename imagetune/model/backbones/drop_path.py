"""Stochastic depth: residual branches left out at random while training."""

from __future__ import annotations

import re

import keras

# ConvNeXt is built without stochastic depth and leaves a layer that does nothing in its place.
_PLACE = re.compile(r"convnext_.*_identity")


def with_drop_path(network: keras.Model, rate: float) -> keras.Model:
    """Return the backbone with stochastic depth (Huang et al. 2016, arXiv 1603.09382).

    The rate rises linearly from the first residual branch to ``rate`` at the last. A branch is left out for one image
    at a time, by a Dropout whose noise is one number an image, so that the file opens in plain Keras.

    Args:
        network: A backbone with random weights, of a family that has it.
        rate: Share of the images for which the last branch is left out, 0 to 1 (1 excluded).
    """
    if any(_PLACE.fullmatch(layer.name) for layer in network.layers):
        network = keras.models.clone_model(network, clone_function=_with_place)
    branches = [layer for layer in network.layers if isinstance(layer, keras.layers.Dropout) and layer.noise_shape]
    for number, layer in enumerate(branches, start=1):
        layer.rate = rate * number / len(branches)
    return network


def _with_place(layer: keras.layers.Layer) -> keras.layers.Layer:
    if not _PLACE.fullmatch(layer.name):
        return layer.__class__.from_config(layer.get_config())
    return keras.layers.Dropout(0.5, noise_shape=(None, 1, 1, 1), name=layer.name)
