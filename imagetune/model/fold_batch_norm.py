"""The same predictions in fewer steps: BatchNorm that only scales and shifts, folded into the convolution before it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


def folded(model: keras.Model) -> keras.Model:
    """Return a model of the same predictions for inference, BatchNorm folded into convolutions (Jacob et al. 2018).

    Keras computes BatchNorm's inference on its own, once over every feature map to multiply and once to add; as weights
    and bias of the convolution both are free. The new convolutions have copies of the weights as they are now; all
    other layers are the model's own. Only float32 is folded: elsewhere BatchNorm is the more exact one of the two.

    Args:
        model: A functional model; those nested in it are folded, too.

    Returns:
        A model of the same inputs and outputs, equal but for rounding; the model itself where nothing can be folded.
    """
    if not any(_foldable(layer) for layer in _layers(model)):
        return model
    return _folded(model)


def _layers(model: keras.Model) -> list[keras.layers.Layer]:
    nested = (_layers(layer) if isinstance(layer, keras.Model) else [layer] for layer in model.layers)
    return [layer for layers in nested for layer in layers]


def _foldable(layer: keras.layers.Layer) -> bool:
    """Tell whether a layer is a BatchNorm over channels that come last, in float32."""
    if not isinstance(layer, keras.layers.BatchNormalization) or layer.compute_dtype != "float32":
        return False
    return layer.axis in (-1, len(layer.input.shape) - 1)


def _folded(model: keras.Model) -> keras.Model:
    # Of each tensor that a convolution made: the tensor itself, so that its id stays its own; the layer; its input.
    made: dict[int, tuple[Any, keras.layers.Layer, Any]] = {}

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Model):
            return _folded(layer)(*args, **kwargs)
        if _foldable(layer) and id(args[0]) in made:
            # The convolution without BatchNorm stays behind, unless something else needs it.
            _, convolution, source = made[id(args[0])]
            return _convolution_with(layer, convolution)(source)
        output = layer(*args, **kwargs)
        if isinstance(layer, _CONVOLUTIONS) and layer.activation is keras.activations.linear:
            made[id(output)] = (output, layer, args[0])
        return output

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)


def _convolution_with(norm: keras.layers.BatchNormalization, layer: keras.layers.Layer) -> keras.layers.Layer:
    """Return a convolution that does BatchNorm's part: w * s and (b - mean) * s + beta, s = gamma / deviation."""
    config = {key: value for key, value in layer.get_config().items() if key != "name"}
    merged = type(layer).from_config(config | {"use_bias": True})
    merged.build(layer.input.shape)
    kernel, *bias = (np.asarray(value, np.float64) for value in layer.get_weights())
    scale = 1 / np.sqrt(_value(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        scale = scale * _value(norm.gamma)
    shift = ((bias[0] if bias else 0.0) - _value(norm.moving_mean)) * scale
    if norm.center:
        shift = shift + _value(norm.beta)
    # A depthwise kernel counts its outputs in two axes: inputs, and outputs of each.
    by_output = scale.reshape(kernel.shape[2:]) if isinstance(layer, keras.layers.DepthwiseConv2D) else scale
    merged.set_weights([kernel * by_output, shift])
    return merged


def _value(variable: keras.Variable) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)
