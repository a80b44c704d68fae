"""Operations that a converter has no equal of, replaced by equal ones that it has, while a model is traced."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np

from imagetune.model.trainable import list_leaf_layers


@contextmanager
def plain_operations(model: keras.Model) -> Iterator[None]:
    """Let the model's layers compute the same by operations that tf2onnx has, inside the block.

    - Normalization holds its constants as arrays: tensors would become inputs of the ONNX graph, which nothing feeds.
    - GELU is computed by erf: TensorFlow computes it by erfc, which ONNX doesn't have.
    - A convolution with a group for each channel is a depthwise one: Keras compiles grouped ones by XLA, whose call
      tf2onnx leaves in the graph as it is.

    Args:
        model: A functional model; layers of nested models are changed, too.
    """
    with ExitStack() as changes:
        for layer in list_leaf_layers(model):
            if isinstance(layer, keras.layers.Normalization):
                arrays = {"mean": np.asarray(layer.mean), "variance": np.asarray(layer.variance)}
                changes.enter_context(_hold(layer, **arrays))
            if getattr(layer, "activation", None) is keras.activations.gelu:
                changes.enter_context(_hold(layer, activation=compute_gelu))
            if isinstance(layer, keras.layers.Conv2D) and layer.groups == layer.filters > layer.kernel.shape[2] == 1:
                changes.enter_context(_hold(layer, convolution_op=_build_depthwise(layer)))
        yield


@contextmanager
def multiplied_scales(model: keras.Model) -> Iterator[None]:
    """Let DINOv2's layer scales multiply inside the block: LiteRT prepares no Einsum of a vector.

    Args:
        model: A functional model; layers of nested models are changed, too.
    """
    with ExitStack() as changes:
        for layer in list_leaf_layers(model):
            if isinstance(layer, keras.layers.EinsumDense) and layer.equation == "abc,c->abc":
                changes.enter_context(_hold(layer, call=partial(_multiply, layer)))
        yield


def _multiply(layer: keras.layers.EinsumDense, inputs: Any, **_: Any) -> Any:
    return inputs * layer.kernel


def compute_gelu(x: Any) -> Any:
    """Return x times the normal distribution's share below x (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    return 0.5 * x * (1.0 + keras.ops.erf(x * math.sqrt(0.5)))


def _build_depthwise(layer: keras.layers.Conv2D) -> Any:
    """Return a function from (batch, rows, columns, channels) and a grouped kernel to the layer's convolution."""

    def convolve(inputs: Any, kernel: Any) -> Any:
        return keras.ops.depthwise_conv(
            inputs,
            keras.ops.transpose(kernel, (0, 1, 3, 2)),
            strides=layer.strides,
            padding=layer.padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
        )

    return convolve


@contextmanager
def _hold(layer: keras.layers.Layer, **values: Any) -> Iterator[None]:
    """Let a layer have other attributes inside the block."""
    before = {name: layer.__dict__[name] for name in values if name in layer.__dict__}
    for name, value in values.items():
        setattr(layer, name, value)
    try:
        yield
    finally:
        for name in values:
            # A method of its class comes back to light.
            setattr(layer, name, before[name]) if name in before else delattr(layer, name)
