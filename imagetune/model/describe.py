"""Rows of ``imagetune model list`` (backbones) and ``imagetune model layers`` (the blocks of one)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from imagetune.model.backbones.table import get_backbone, list_backbones
from imagetune.model.weights.imagenet import WeightsState, weights_state


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A row of the list of backbones.

    Attributes:
        name: Name in recipes.
        parameters: Number of parameters without the classifier.
        megabytes: Size of its weights as float32.
        top1: Published top-1 accuracy on ImageNet in percent; None where Keras's table has none.
        image_size: Default height and width in pixels.
        weights: Whether its ImageNet weights are available on this machine.
        license: Licence of its ImageNet weights, as an SPDX identifier; None where it is unknown.
    """

    name: str
    parameters: int
    megabytes: float
    top1: float | None
    image_size: int
    weights: WeightsState
    license: str | None


@dataclass(frozen=True, slots=True)
class LayerRow:
    """A row of the list of a backbone's blocks.

    Attributes:
        block: Name in ``unfreeze``.
        layers: Names of its layers with weights, from input to output.
        parameters: Number of the parameters in these layers.
        trainable_layers: Names of the layers that ``unfreeze`` would make trainable.
        trainable_parameters: Number of parameters that ``unfreeze`` would make trainable.
    """

    block: str
    layers: tuple[str, ...]
    parameters: int
    trainable_layers: tuple[str, ...]
    trainable_parameters: int


def list_model_rows(*, verify: bool = False) -> tuple[ModelRow, ...]:
    """Return a row for each backbone, without importing Keras.

    Args:
        verify: Whether to hash the weights on this machine, so that corrupted ones show.
    """
    return tuple(
        ModelRow(
            name=backbone.name,
            parameters=backbone.parameters,
            megabytes=round(backbone.parameters * 4 / 1e6, 1),
            top1=backbone.top1,
            image_size=backbone.default_size,
            weights=weights_state(backbone, verify=verify),
            license=backbone.weights_license,
        )
        for backbone in list_backbones()
    )


def list_layer_rows(
    name: str,
    unfreeze: str | tuple[str, ...] = "none",
    *,
    batch_norm: Literal["frozen", "train"] = "frozen",
) -> tuple[LayerRow, ...]:
    """Return a row for each block of a backbone, with what ``unfreeze`` would train.

    Raises:
        RecipeError: Unknown backbone, or ``unfreeze`` names nothing in it.
    """
    # Imported here, so that listing the backbones doesn't wait for Keras.
    from imagetune.model.build import build_backbone
    from imagetune.model.trainable import list_blocks, set_trainable

    backbone = get_backbone(name)
    # The smallest size will do, because neither layers nor parameters depend on it.
    network = build_backbone(backbone, (backbone.min_size, backbone.min_size))
    blocks = list_blocks(network, backbone)
    states = set_trainable(network, backbone, unfreeze, batch_norm=batch_norm).blocks
    return tuple(
        LayerRow(block.name, block.layers, block.parameters, state.layers, state.trainable_parameters)
        for block, state in zip(blocks, states, strict=True)
    )
