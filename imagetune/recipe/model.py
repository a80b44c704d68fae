"""The ``model`` section: backbone, weights and head."""

from __future__ import annotations

from typing import Literal

from imagetune.recipe.base import Fraction, NonNegative, PositiveInt, Section, Sequence


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

    backbone: str = "efficientnet_lite0"
    """A name from `imagetune model list`: keras.applications in snake_case, or efficientnet_lite0."""
    weights: str = "imagenet"
    """`imagenet`, `random`, `hed` (VGG16 only), a .weights.h5, .keras or .h5 file, or an earlier run:
    its folder, runs:/ID or models:/NAME/VERSION."""
    drop_path: Fraction | None = None
    """Stochastic depth (Huang et al. 2016): share of the last residual branches dropped a picture while training,
    rising linearly from the first; for EfficientNets and ConvNeXts. By default as the backbone is published."""
    head: HeadConfig = HeadConfig()
    """What is put on top of the backbone."""
