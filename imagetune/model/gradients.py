"""What the backbone sees last, and how each logit depends on it: gradients on every backend with Keras alone.

Keras has no function for gradients that all backends share, but every backend's ``train_on_batch`` follows them: from a
variable that is zero and added to a tensor, a step of plain gradient descent with rate 1 leads to the tensor's
gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.model.build import LOGITS, POOLING, backbone_of
from imagetune.model.fold_batch_norm import folded

Floats = NDArray[np.float32]

PASS_SIZE = 32
"""Images that go through the model together; fewer take as long."""


@dataclass(frozen=True)
class SaliencyModel:
    """A model cut in two behind its backbone.

    Attributes:
        features: Images (n, height, width, 3), RGB, 0..255, to the backbone's last feature map
            (n, rows, columns, channels).
        head: Feature maps to logits (n, outputs), without dropout; a copy of the layers in float32, frozen.
    """

    features: keras.Model
    head: keras.Model


def split_for_saliency(model: keras.Model) -> SaliencyModel:
    """Cut a model made by ``build_model`` behind its backbone; the model stays as it is.

    Both parts have the weights as they are now.
    """
    tensor = model.get_layer(POOLING).input
    inputs = keras.Input(tensor.shape[1:], name="features")
    x: Any = inputs
    for layer in _head_layers(model):
        config = {key: value for key, value in layer.get_config().items() if key != "name"}
        copy = type(layer).from_config({**config, "dtype": "float32"})
        x = copy(x)
        copy.set_weights(layer.get_weights())
    head = keras.Model(inputs, x, name="head")
    head.trainable = False
    return SaliencyModel(folded(keras.Model(model.input, tensor, name="features")), head)


def feature_maps(split: SaliencyModel, images: NDArray[np.uint8]) -> Floats:
    """Return the last feature map (n, rows, columns, channels) of images (n, height, width, 3); see `PASS_SIZE`."""
    # Always as many at once, so that the model is compiled once.
    filling = np.zeros((-len(images) % PASS_SIZE, *images.shape[1:]), images.dtype)
    parts = np.concatenate([images, filling]).reshape(-1, PASS_SIZE, *images.shape[1:])
    maps = [np.asarray(split.features.predict_on_batch(part), np.float32) for part in parts]
    return np.concatenate(maps)[: len(images)] if maps else np.zeros((0, *split.features.output_shape[1:]), np.float32)


def logits_of(split: SaliencyModel, features: Floats) -> Floats:
    """Return the logits (n, outputs) of feature maps (n, rows, columns, channels)."""
    return np.asarray(keras.ops.convert_to_numpy(split.head(features, training=False)), np.float32)


def logit_gradients(split: SaliencyModel, features: Floats, targets: NDArray[np.int64]) -> Floats:
    """Return how one logit of each feature map changes with each of its values.

    Args:
        split: The model.
        features: (n, rows, columns, channels).
        targets: (n,) the output whose gradient is wanted.

    Returns:
        (n, rows, columns, channels) d logit / d feature, exact up to float32.
    """
    inputs = keras.Input(batch_shape=features.shape)
    shift = _Shift()
    stepped = keras.Model(inputs, split.head(shift(inputs)))
    # A step down the negative logit is a step up the logit.
    stepped.compile(keras.optimizers.SGD(1.0), loss=_NegativeLogit(), run_eagerly=True)
    wanted = np.eye(split.head.output_shape[-1], dtype=np.float32)[targets]
    stepped.train_on_batch(features, wanted)
    return np.asarray(keras.ops.convert_to_numpy(shift.shift), np.float32)


def _head_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers from the pooling to the logits, a chain, but for those that only act in training."""
    names = [layer.name for layer in model.layers]
    for layer in model.layers[names.index(backbone_of(model).name) + 1 : names.index(LOGITS) + 1]:
        if not isinstance(layer, keras.layers.Dropout):
            yield layer


class _Shift(keras.layers.Layer):
    """Adds a variable that is zero to a batch of fixed size."""

    def __init__(self) -> None:
        super().__init__(dtype="float32")

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Make the variable, of the shape of the whole batch."""
        self.shift = self.add_weight(shape=input_shape, initializer="zeros", name="shift")

    def call(self, inputs: Any) -> Any:
        """Return the batch, which is still the same."""
        return inputs + self.shift


class _NegativeLogit(keras.losses.Loss):
    """The sum over the batch of the wanted logits, negative."""

    def __init__(self) -> None:
        super().__init__(reduction="sum", dtype="float32")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return (n,) the negative logit of each image."""
        return -keras.ops.sum(y_true * y_pred, axis=-1)
