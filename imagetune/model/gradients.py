"""Gradients of logits by the last feature map, for saliency (Grad-CAM), with Keras alone on every backend.

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

from imagetune.model.build import LOGITS, POOLING, find_backbone
from imagetune.model.fold_batch_norm import fold_batch_norm_layers

Floats = NDArray[np.float32]

PASS_SIZE = 32
"""Images in a forward pass; fewer are padded to it, so that the model is compiled once."""


@dataclass(frozen=True)
class SaliencyModel:
    """A model split in two after its backbone.

    Attributes:
        features: Model from images (n, height, width, 3), RGB, 0..255, to the backbone's last feature map
            (n, rows, columns, channels).
        head: Model from feature maps to logits (n, outputs), without dropout; a copy of the layers in float32, frozen.
    """

    features: keras.Model
    head: keras.Model


def split_for_saliency(model: keras.Model) -> SaliencyModel:
    """Return a model made by ``build_model`` split after its backbone; the model itself stays as it is.

    Both parts have copies of the weights as they are now.
    """
    tensor = model.get_layer(POOLING).input
    inputs = keras.Input(tensor.shape[1:], name="features")
    x: Any = inputs
    for layer in _list_head_layers(model):
        config = {key: value for key, value in layer.get_config().items() if key != "name"}
        # Float32, as small gradients would underflow in half precision.
        copy = type(layer).from_config({**config, "dtype": "float32"})
        x = copy(x)
        copy.set_weights(layer.get_weights())
    head = keras.Model(inputs, x, name="head")
    # The step of gradient descent may change nothing but the shift.
    head.trainable = False
    return SaliencyModel(fold_batch_norm_layers(keras.Model(model.input, tensor, name="features")), head)


def compute_feature_maps(split: SaliencyModel, images: NDArray[np.uint8]) -> Floats:
    """Return the last feature map (n, rows, columns, channels) of images (n, height, width, 3); see `PASS_SIZE`."""
    # Padded to whole passes, so that the model is compiled once.
    filling = np.zeros((-len(images) % PASS_SIZE, *images.shape[1:]), images.dtype)
    parts = np.concatenate([images, filling]).reshape(-1, PASS_SIZE, *images.shape[1:])
    maps = [np.asarray(split.features.predict_on_batch(part), np.float32) for part in parts]
    return np.concatenate(maps)[: len(images)] if maps else np.zeros((0, *split.features.output_shape[1:]), np.float32)


def compute_logits(split: SaliencyModel, features: Floats) -> Floats:
    """Return the logits (n, outputs) of feature maps (n, rows, columns, channels)."""
    return np.asarray(keras.ops.convert_to_numpy(split.head(features, training=False)), np.float32)


def compute_logit_gradients(split: SaliencyModel, features: Floats, targets: NDArray[np.int64]) -> Floats:
    """Return the gradient of one logit by each value of each feature map.

    Args:
        split: The split model.
        features: (n, rows, columns, channels) feature maps.
        targets: (n,) index of the output whose gradient is wanted.

    Returns:
        (n, rows, columns, channels) d logit / d feature, exact up to float32.
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
