"""Building of models: preprocessing, backbone and head in one, from raw pixels to probabilities or a number."""

from __future__ import annotations

from typing import Any

import keras

from imagetune.core.plugins import BACKBONES, convert_plugin_errors
from imagetune.data.loading.targets import ValueScale
from imagetune.errors import RecipeError
from imagetune.model.backbones.architectures import LiteArchitecture
from imagetune.model.backbones.drop_path import set_drop_path
from imagetune.model.backbones.efficientnet_lite import build_efficientnet_lite
from imagetune.model.backbones.naming import renumber_layers
from imagetune.model.backbones.preprocessing import add_preprocessing
from imagetune.model.backbones.table import Backbone, find_size_problem, get_backbone
from imagetune.model.backbones.vision_transformer import build_vision_transformer
from imagetune.model.keras_settings import keras_settings
from imagetune.recipe.sections.model import HeadConfig, ModelConfig
from imagetune.recipe.tasks import Task

IMAGE = "image"
POOLING = "pooling"
LOGITS = "logits"
PROBABILITIES = "probabilities"
VALUE = "value"


@keras_settings()
def build_model(
    config: ModelConfig,
    *,
    num_classes: int,
    image_size: tuple[int, int],
    task: Task = "single_label",
    scale: ValueScale | None = None,
) -> keras.Model:
    """Return the whole model with random weights; ``load_weights`` gives it the pretrained ones.

    The number format follows Keras's global policy, except that preprocessing, logits and probabilities are always
    float32.

    Args:
        config: Backbone and head.
        num_classes: Number of outputs: at least 2, any for multi_label, 1 for regression.
        image_size: Height and width in pixels, fixed from here on.
        task: What a label is.
        scale: For regression: mean and deviation that take the normalised value of the layer ``logits`` to the labels'
            units.

    Returns:
        A functional model. Input ``image``: (batch, height, width, 3) uint8 or float, RGB, 0..255. Output:
        (batch, num_classes) float32: probabilities that sum to 1, independent ones for multi_label, or for regression
        the number in the labels' units. The backbone is one nested layer with its name in the recipe.

    Raises:
        RecipeError: Unknown backbone, images of a size that it doesn't take, or a pooling that it has no token for.
    """
    backbone = get_backbone(config.backbone)
    inputs = keras.Input((*image_size, 3), name=IMAGE)
    network = build_backbone(backbone, image_size, class_token=_wants_class_token(backbone, config.head))
    if config.drop_path is not None:
        network = set_drop_path(network, config.drop_path)
    features = network(add_preprocessing(inputs, backbone.preprocessing))
    logits = _add_head(features, config.head, num_classes)
    return keras.Model(inputs, _build_prediction_layer(task, scale or ValueScale())(logits), name="imagetune")


def find_value_scale(model: keras.Model) -> ValueScale | None:
    """Return the mean and deviation that take a regression's output to the labels' units; None for a classifier."""
    layer = model.layers[-1]
    return ValueScale(float(layer.offset), float(layer.scale)) if layer.name == VALUE else None


def _build_prediction_layer(task: Task, scale: ValueScale) -> keras.layers.Layer:
    if task == "regression":
        # A layer that Keras ships, so that model.keras opens without imagetune.
        return keras.layers.Rescaling(scale.std, offset=scale.mean, dtype="float32", name=VALUE)
    activation = "sigmoid" if task == "multi_label" else "softmax"
    return keras.layers.Activation(activation, dtype="float32", name=PROBABILITIES)


def _wants_class_token(backbone: Backbone, head: HeadConfig) -> bool:
    if head.pooling == "token" and not backbone.has_class_token:
        what = f"pooling: token is for vision transformers, and {backbone.name} has no class token"
        raise RecipeError(what, where="model.head.pooling", hint="use avg or max")
    return head.pooling == "token"


@keras_settings()
def build_backbone(backbone: Backbone, image_size: tuple[int, int], *, class_token: bool = False) -> keras.Model:
    """Return the backbone alone, with random weights and without preprocessing.

    Its layers have the names that they have in a fresh process, however many models were built before.

    Args:
        backbone: Its row in the table.
        image_size: Height and width in pixels.
        class_token: For a vision transformer: whether the output is its class token, as a feature map of one row and
            one column, instead of its patches.

    Returns:
        A functional model: (batch, height, width, 3) preprocessed pixels to a feature map
        (batch, rows, columns, channels).

    Raises:
        RecipeError: It doesn't take images of that size, or a plug-in builds something else than a feature map.
    """
    _check_size(backbone, image_size)
    shape = (*image_size, 3)
    if backbone.build is not None:
        return _build_plugin(backbone, shape)
    if isinstance(backbone.architecture, LiteArchitecture):
        return build_efficientnet_lite(backbone.architecture, shape, backbone.name)
    if backbone.architecture is not None:
        return build_vision_transformer(backbone.architecture, shape, backbone.name, class_token=class_token)
    # The whole model has layers for it already; inside the backbone, it would also keep EfficientNetV2B0 from ONNX.
    options = {"include_preprocessing": False} if backbone.built_in == "optional" else {}
    constructor = getattr(keras.applications, backbone.constructor)
    # Weights are loaded by `load_weights`: offline, Keras deletes a file of the user's whose hash it doesn't expect.
    network = constructor(include_top=False, weights=None, input_shape=shape, **options)
    # EfficientNet can't be built without its preprocessing, which also differs with and without ImageNet weights.
    start = network.get_layer("stem_conv_pad").input if backbone.built_in == "always" else network.input
    return renumber_layers(keras.Model(start, network.output, name=backbone.name))


def _build_plugin(backbone: Backbone, shape: tuple[int, int, int]) -> keras.Model:
    with convert_plugin_errors(BACKBONES, backbone.name):
        network = backbone.build(shape) if backbone.build else None
        if not isinstance(network, keras.Model) or tuple(network.input_shape) != (None, *shape):
            raise TypeError(f"`build` returned {network!r}, expected a functional Keras model for {shape}")
        if len(network.output_shape) != 4:
            raise ValueError(f"its output is {network.output_shape}, expected a feature map of four dimensions")
        # A model file holds no code: a layer of the plug-in's own could not be opened by plain Keras.
        foreign = sorted({type(layer).__name__ for layer in network.layers if not _is_from_keras(layer)})
        if foreign:
            raise TypeError(f"its layers {', '.join(foreign)} are not Keras's own")
    return renumber_layers(keras.Model(network.input, network.output, name=backbone.name))


def _is_from_keras(layer: keras.layers.Layer) -> bool:
    return type(layer).__module__.partition(".")[0] == "keras"


def find_backbone(model: keras.Model) -> keras.Model:
    """Return the backbone inside a model made by ``build_model``."""
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def build_logits_model(model: keras.Model) -> keras.Model:
    """Return the model up to its logits (batch, outputs) float32, before the last layer; weights are shared."""
    # Training takes logits, from which cross-entropy is exact even where probabilities underflow.
    return keras.Model(model.input, model.get_layer(LOGITS).output, name="imagetune_logits")


def append_layer_output(model: keras.Model, name: str) -> keras.Model:
    """Return the model with the output of one of the head's layers beside its predictions; weights are shared.

    Args:
        model: A model made by ``build_model``.
        name: `LOGITS`, or `POOLING` for the features.

    Returns:
        A model from images to (batch, outputs + width of the layer) float32.
    """
    extra = keras.ops.cast(model.get_layer(name).output, "float32")
    return keras.Model(model.input, keras.ops.concatenate([model.output, extra], axis=-1), name=f"imagetune_and_{name}")


def _check_size(backbone: Backbone, image_size: tuple[int, int]) -> None:
    if problem := find_size_problem(backbone, image_size):
        raise RecipeError(problem[0], where="data.image_size", hint=problem[1])


def _add_head(features: Any, head: HeadConfig, num_classes: int) -> Any:
    layers = keras.layers
    pooling = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}
    # The class token is a map of one place.
    x = pooling.get(head.pooling, layers.Flatten)(name=POOLING)(features)
    for number, units in enumerate(head.hidden, start=1):
        x = _dropout(x, head, f"hidden{number}_dropout")
        x = layers.Dense(
            units, activation=head.activation, kernel_regularizer=_build_penalty(head), name=f"hidden{number}"
        )(x)
    x = _dropout(x, head, "dropout")
    # Half-precision logits would round away the difference between similar classes.
    return layers.Dense(num_classes, kernel_regularizer=_build_penalty(head), dtype="float32", name=LOGITS)(x)


def _dropout(x: Any, head: HeadConfig, name: str) -> Any:
    return keras.layers.Dropout(head.dropout, name=name)(x) if head.dropout else x


def _build_penalty(head: HeadConfig) -> keras.regularizers.Regularizer | None:
    return keras.regularizers.L1L2(l1=head.l1, l2=head.l2) if head.l1 or head.l2 else None
