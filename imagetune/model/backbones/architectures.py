"""Our own architectures as values, so that the table of backbones can be read without Keras."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LiteArchitecture:
    """The scaling of an EfficientNet-Lite; see ``imagetune.model.backbones.efficientnet_lite``.

    Attributes:
        width: Factor of the number of filters, those of stem and top excepted.
        depth: Factor of the repeats of a stage, the first and the last stage excepted.
    """

    width: float
    depth: float
