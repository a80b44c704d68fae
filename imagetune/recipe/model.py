"""The ``model`` section: backbone, weights and head."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from imagetune.core.plugins import BACKBONES, plugin_names
from imagetune.recipe.base import Fraction, NonNegative, PositiveInt, Section, Sequence

DEFAULT_BACKBONE = "efficientnet_lite0"


def _with_plugins(schema: dict[str, Any]) -> None:
    """Name the plug-ins in the JSON schema, as examples: the table of our own is the model's."""
    schema["examples"] = [DEFAULT_BACKBONE, *plugin_names(BACKBONES)]


class HeadConfig(Section):
    """The new layers on top of the backbone."""

    pooling: Literal["avg", "max", "flatten"] = "avg"
    """How the feature map (height, width, channels) becomes a vector."""
    hidden: Sequence[PositiveInt] = ()
    """Units of hidden layers between pooling and output; none by default."""
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    """Activation of the hidden layers."""
    dropout: Fraction = 0.2
    """Share of features dropped before each dense layer while training."""
    l1: NonNegative = 0.0
    """L1 penalty on the kernels of the head."""
    l2: NonNegative = 0.0
    """L2 penalty on the kernels of the head."""


class ModelConfig(Section):
    """Backbone, weights and head."""

    backbone: Annotated[str, Field(json_schema_extra=_with_plugins)] = DEFAULT_BACKBONE
    """A name from `imagetune model list`: keras.applications in snake_case, efficientnet_lite0, or a
    plug-in."""
    weights: str = "imagenet"
    """`imagenet`, `random`, `hed` (VGG16 only), a .weights.h5, .keras or .h5 file, or an earlier run:
    its folder, runs:/ID or models:/NAME/VERSION."""
    drop_path: Fraction | None = None
    """Stochastic depth (Huang et al. 2016): share of the last residual branches dropped an image while training,
    rising linearly from the first; for EfficientNets and ConvNeXts. By default as the backbone is published."""
    head: HeadConfig = HeadConfig()
    """What is put on top of the backbone."""
