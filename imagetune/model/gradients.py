"""Gradients of logits by the last feature map or tokens, for saliency (Grad-CAM), with Keras alone on every backend.

Keras has no function for gradients that all backends share, but every backend's ``train_on_batch`` follows them: a
zero variable that is added to a tensor becomes the tensor's gradient by one step of gradient descent with learning
rate 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.model.backbones.preprocessing import add_preprocessing
from imagetune.model.backbones.table import get_backbone
from imagetune.model.backbones.vision_transformer import find_last_tokens
from imagetune.model.build import LOGITS, POOLING, find_backbone
from imagetune.model.fold_batch_norm import fold_batch_norm_layers

Floats = NDArray[np.float32]

PASS_SIZE = 32
"""Images in a forward pass; fewer are padded to it, so that the model is compiled once."""


@dataclass(frozen=True)
class SaliencyModel:
    """A model split in two where its features have places for the last time.

    Attributes:
        features: Model from images (n, height, width, 3), RGB, 0..255, to the backbone's last feature map
            (n, rows, columns, channels); where the head reads a class token, to the tokens (n, 1 + rows * columns,
            channels) that the last block of the vision transformer reads.
        head: Model from these features to logits (n, outputs), without dropout; a copy of the layers in float32,
            frozen.
        grid: Rows and columns of the tokens; None for feature maps.
    """

    features: keras.Model
    head: keras.Model
    grid: tuple[int, int] | None = None

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the features."""
        rows, columns = self.grid or self.features.output_shape[1:3]
        return int(rows), int(columns)

    def arrange(self, features: Floats) -> Floats:
        """Return features, or gradients by them, as maps (n, rows, columns, channels), without the class token."""
        if self.grid is None:
            return features
        return features[:, 1:].reshape(len(features), *self.grid, features.shape[-1])


def split_for_saliency(model: keras.Model) -> SaliencyModel:
    """Return a model made by ``build_model`` split after its backbone, or before the last block that mixes tokens.

    The model itself stays as it is. Both parts have copies of the weights as they are now, those of tokens excepted.
    """
    network = find_backbone(model)
    if found := find_last_tokens(network):
        tokens, grid = found
        lower = keras.Model(network.input, tokens)
        pixels = add_preprocessing(model.input, get_backbone(network.name).preprocessing)
        upper = _copy_in_float32(keras.Model(tokens, network.output))
        return SaliencyModel(keras.Model(model.input, lower(pixels), name="features"), _build_head(model, upper), grid)
    features = keras.Model(model.input, model.get_layer(POOLING).input, name="features")
    return SaliencyModel(fold_batch_norm_layers(features), _build_head(model))


def _build_head(model: keras.Model, upper: keras.Model | None = None) -> keras.Model:
    """Return the layers from pooling to logits, after the upper part of the backbone if it is given."""
    shape = model.get_layer(POOLING).input.shape[1:] if upper is None else upper.input_shape[1:]
    inputs = keras.Input(shape, name="features")
    x: Any = inputs if upper is None else upper(inputs)
    for layer in _list_head_layers(model):
        config = {key: value for key, value in layer.get_config().items() if key != "name"}
        # Float32, as small gradients would underflow in half precision.
        copy = type(layer).from_config({**config, "dtype": "float32"})
        x = copy(x)
        copy.set_weights(layer.get_weights())
    head = keras.Model(inputs, x, name="head")
    # The step of gradient descent may change nothing but the shift.
    head.trainable = False
    return head


def _copy_in_float32(part: keras.Model) -> keras.Model:
    """Return a copy of a part of a backbone in float32, without dropout."""

    def copy(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer):  # an operation, which has neither weights nor a format
            return layer
        if isinstance(layer, keras.layers.Dropout):
            return keras.layers.Dropout(0.0, name=layer.name)
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    copied = keras.models.clone_model(part, clone_function=copy)
    copied.set_weights(part.get_weights())
    return copied


def compute_feature_maps(split: SaliencyModel, images: NDArray[np.uint8]) -> Floats:
    """Return the features of images (n, height, width, 3), as `SaliencyModel` describes them; see `PASS_SIZE`."""
    # Padded to whole passes, so that the model is compiled once.
    filling = np.zeros((-len(images) % PASS_SIZE, *images.shape[1:]), images.dtype)
    parts = np.concatenate([images, filling]).reshape(-1, PASS_SIZE, *images.shape[1:])
    maps = [np.asarray(split.features.predict_on_batch(part), np.float32) for part in parts]
    return np.concatenate(maps)[: len(images)] if maps else np.zeros((0, *split.features.output_shape[1:]), np.float32)


def compute_logits(split: SaliencyModel, features: Floats) -> Floats:
    """Return the logits (n, outputs) of features."""
    return np.asarray(keras.ops.convert_to_numpy(split.head(features, training=False)), np.float32)


def compute_logit_gradients(split: SaliencyModel, features: Floats, targets: NDArray[np.int64]) -> Floats:
    """Return the gradient of one logit by each value of the features.

    Args:
        split: The split model.
        features: Of n images, from `compute_feature_maps`.
        targets: (n,) index of the output whose gradient is wanted.

    Returns:
        d logit / d feature, of the shape of the features, exact up to float32.
    """
    inputs = keras.Input(batch_shape=features.shape)
    shift = _Shift()
    stepped = keras.Model(inputs, split.head(shift(inputs)))
    # A step down the negative logit is a step up the logit. Eager, as tracing a graph for one step takes longer.
    stepped.compile(keras.optimizers.SGD(1.0), loss=_NegativeLogit(), run_eagerly=True)
    wanted = np.eye(split.head.output_shape[-1], dtype=np.float32)[targets]
    stepped.train_on_batch(features, wanted)
    return np.asarray(keras.ops.convert_to_numpy(shift.shift), np.float32)


def _list_head_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers from pooling to logits, which form a chain, without dropout: it only acts in training."""
    names = [layer.name for layer in model.layers]
    for layer in model.layers[names.index(find_backbone(model).name) + 1 : names.index(LOGITS) + 1]:
        if not isinstance(layer, keras.layers.Dropout):
            yield layer


class _Shift(keras.layers.Layer):
    """Layer that adds a zero variable to a batch of fixed size; a training step turns it into the gradient."""

    def __init__(self) -> None:
        super().__init__(dtype="float32")

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Create the variable, of the shape of the whole batch."""
        self.shift = self.add_weight(shape=input_shape, initializer="zeros", name="shift")

    def call(self, inputs: Any) -> Any:
        """Return the batch plus the variable: the same values as long as that is zero."""
        return inputs + self.shift


class _NegativeLogit(keras.losses.Loss):
    """Loss that is the negative sum over the batch of one logit of each image."""

    def __init__(self) -> None:
        super().__init__(reduction="sum", dtype="float32")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the negative chosen logit (n,) of each image; ``y_true`` is its one-hot index."""
        return -keras.ops.sum(y_true * y_pred, axis=-1)
