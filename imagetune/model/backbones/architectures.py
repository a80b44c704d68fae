"""Architectures as values, so that the table of backbones can be read without Keras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Preprocessing = Literal["caffe", "tf", "torch", "lite", "v2", "none"]
BuiltIn = Literal["none", "optional", "always"]


@dataclass(frozen=True, slots=True)
class LiteArchitecture:
    """The scaling of an EfficientNet-Lite; see ``imagetune.model.backbones.efficientnet_lite``.

    Attributes:
        width: Factor of the number of filters, those of stem and top excepted.
        depth: Factor of the repeats of a stage, the first and the last stage excepted.
    """

    width: float
    depth: float


@dataclass(frozen=True, slots=True)
class TransformerArchitecture:
    """The dimensions of a vision transformer; see ``imagetune.model.backbones.vision_transformer``.

    Attributes:
        width: Number of values of a token.
        depth: Number of blocks.
        heads: Number of attention heads of a block.
        patch: Height and width of a patch in pixels.
        grid: Rows and columns of patches that the position embeddings were trained for.
        epsilon: What layer normalisation adds to the variance.
        layer_scale: Whether each residual branch ends in a trainable factor for each channel, as in DINOv2.
        repository: Hugging Face repository with published weights in the layout of ``transformers``.
    """

    width: int
    depth: int
    heads: int
    patch: int
    grid: int
    epsilon: float
    layer_scale: bool = False
    repository: str = ""

    @property
    def positions(self) -> int:
        """Number of position embeddings: the class token's and one a patch."""
        return 1 + self.grid**2
