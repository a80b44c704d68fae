"""Splitting a model at the end of its frozen layers: images to features, and features to predictions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np

from imagetune.model.backbones.preprocessing import add_preprocessing
from imagetune.model.backbones.table import Backbone
from imagetune.model.build import LOGITS, POOLING, find_backbone
from imagetune.model.trainable import find_unfrozen_layers, list_block_outputs

# By whole model, weakly: a model must be freed when nothing else uses it.
_lower_parts: WeakKeyDictionary[keras.Model, keras.Model] = WeakKeyDictionary()
# Suffixes of layer settings that don't change the output of a layer with given weights.
_TRAINING_SETTINGS = ("name", "trainable", "regularizer", "initializer", "constraint")


@dataclass(frozen=True)
class SplitModel:
    """A model split in two parts, which share its layers and therefore its weights.

    Attributes:
        boundary: ``pooling``, or the block after which the model is split.
        lower: Model from images (batch, height, width, 3), 0..255, to features (batch, ...).
        logits: Model from features to logits (batch, outputs).
        predictions: Model from features to the whole model's predictions (batch, outputs).
    """

    boundary: str
    lower: keras.Model
    logits: keras.Model
    predictions: keras.Model

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of the features of one image."""
        return tuple(int(size) for size in self.lower.output_shape[1:])


def list_frozen_boundaries(model: keras.Model, backbone: Backbone, unfreeze: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the places where a model can be split with only frozen layers below, from input to output.

    Args:
        model: A model made by ``build_model``.
        backbone: Its row in the table.
        unfreeze: Trainable part of the backbone, as in a stage of the recipe.

    Returns:
        Names of blocks, the last one ``pooling`` where the whole backbone is frozen. Skip connections may lead around
        some of them, which only `split_model_at` finds out.

    Raises:
        RecipeError: ``unfreeze`` names what the backbone doesn't have.
    """
    chosen = find_unfrozen_layers(model, backbone, unfreeze)
    frozen: list[str] = []
    for block, layers, _ in list_block_outputs(model, backbone):
        if chosen.intersection(layers):
            return tuple(frozen)
        frozen.append(block)
    # Behind the last block comes the pooling, whose output is the smaller one.
    return (*frozen[:-1], POOLING)


def split_model_at(model: keras.Model, backbone: Backbone, boundary: str) -> SplitModel | None:
    """Return a model split after a block or after the pooling of its head.

    Args:
        model: A model made by ``build_model``.
        backbone: Its row in the table.
        boundary: A name from `list_frozen_boundaries`.

    Returns:
        The two parts; None where skip connections lead around that block.
    """
    if boundary == POOLING:
        return _build_halves(boundary, _build_pooled_model(model), None, model)
    network = find_backbone(model)
    end = next(tensor for block, _, tensor in list_block_outputs(model, backbone) if block == boundary)
    try:
        upper = keras.Model(end, network.output, name="upper")
    except ValueError:  # Keras: the output can't be computed from this tensor alone
        return None
    features = keras.Model(network.input, end)(add_preprocessing(model.input, backbone.preprocessing))
    return _build_halves(boundary, keras.Model(model.input, features, name="lower"), upper, model)


def hash_weights(model: keras.Model) -> str:
    """Return the SHA-256 of a model's architecture and weights, the key under which its features are cached."""
    digest = hashlib.sha256()
    digest.update(json.dumps(_describe_layers(model), sort_keys=True, default=str).encode())
    for weight in model.weights:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(value.data.cast("B") if value.size else b"")
    return digest.hexdigest()


def _build_pooled_model(model: keras.Model) -> keras.Model:
    """Return the model from images to pooled features, the same object each time, so that it is compiled once."""
    if model not in _lower_parts:
        _lower_parts[model] = keras.Model(model.input, model.get_layer(POOLING).output, name="lower")
    return _lower_parts[model]


def _build_halves(boundary: str, lower: keras.Model, upper: keras.Model | None, model: keras.Model) -> SplitModel:
    inputs = keras.Input(lower.output_shape[1:], name="features")
    x = inputs if upper is None else upper(inputs)
    logits = None
    for layer in _list_head_layers(model, after_pooling=upper is None):
        x = layer(x)
        if layer.name == LOGITS:
            logits = x
    return SplitModel(
        boundary,
        lower,
        keras.Model(inputs, logits, name="logits_of_features"),
        keras.Model(inputs, x, name="predictions_of_features"),
    )


def _list_head_layers(model: keras.Model, *, after_pooling: bool) -> Iterator[keras.layers.Layer]:
    """Yield the layers after the backbone, which form a chain."""
    names = [layer.name for layer in model.layers]
    first = names.index(POOLING) + 1 if after_pooling else names.index(find_backbone(model).name) + 1
    yield from model.layers[first:]


def _describe_layers(model: keras.Model) -> list[Any]:
    """Return class and settings of each layer, those left out that only matter in training."""
    settings: list[Any] = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            settings.append(_describe_layers(layer))
        elif not isinstance(layer, keras.layers.Dropout):
            config = {key: value for key, value in layer.get_config().items() if not key.endswith(_TRAINING_SETTINGS)}
            settings.append([type(layer).__name__, config])
    return settings
