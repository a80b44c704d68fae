"""The ``model`` section: backbone, pretrained weights and head."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from imagetune.core.plugins import BACKBONES, list_plugin_names
from imagetune.recipe.sections.base import Fraction, NonNegative, Section, Sequence

DEFAULT_BACKBONE = "efficientnet_lite0"


def _with_plugins(schema: dict[str, Any]) -> None:
    """Add the installed plug-ins to the JSON schema as examples.

    The built-in names are not listed here: their table belongs to ``imagetune.model``, which a recipe can't import.
    """
    schema["examples"] = [DEFAULT_BACKBONE, *list_plugin_names(BACKBONES)]


class HeadConfig(Section):
    """The new layers on top of the backbone, which turn its features into predictions."""

    pooling: Literal["avg", "max", "flatten", "token"] = "avg"
    """How the feature map (height, width, channels) becomes a vector: its mean or maximum by channel, or all its
    values; of a vision transformer also its class token instead."""
    hidden: Annotated[Sequence[Annotated[int, Field(ge=1, le=16_384)]], Field(max_length=32)] = ()
    """Number of units of each hidden layer between pooling and output, up to 16384; by default there is no hidden
    layer."""
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    """Activation function of the hidden layers."""
    dropout: Fraction = 0.2
    """Dropout rate before each dense layer while training, 0 to 1; 0 switches dropout off."""
    l1: NonNegative = 0.0
    """Strength of the L1 penalty on the kernels of the head, 0 or more; 0 switches it off."""
    l2: NonNegative = 0.0
    """Strength of the L2 penalty on the kernels of the head, 0 or more; 0 switches it off."""


class ModelConfig(Section):
    """Which network is fine-tuned: its backbone, the weights that it starts from, and its head."""

    backbone: Annotated[str, Field(json_schema_extra=_with_plugins)] = DEFAULT_BACKBONE
    """Name of the backbone, from `imagetune model list`: a model of keras.applications in snake_case, one of
    efficientnet_lite0 to efficientnet_lite2, a vision transformer such as deit_small, or a plug-in."""
    weights: str = "imagenet"
    """Weights that training starts from: `imagenet`, `random`, `hed` (VGG16 only), a .weights.h5, .keras or .h5 file,
    for a vision transformer a .safetensors file or a folder with model.safetensors and config.json, or an earlier run,
    given by its folder, runs:/ID or models:/NAME/VERSION."""
    drop_path: Fraction | None = None
    """Stochastic depth (Huang et al. 2016): the probability, 0 to 1, that the last residual branch is dropped for an
    image while training; it rises linearly from the first branch. For EfficientNets, ConvNeXts and vision
    transformers; by default as the backbone was published."""
    head: HeadConfig = HeadConfig()
    """The layers on top of the backbone."""
