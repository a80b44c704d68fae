"""Backbones, their layers and their weights as tables of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from imagetune.cli.render.tables import format_table

if TYPE_CHECKING:
    from imagetune.model.describe import LayerRow, ModelRow
    from imagetune.model.weights.imagenet import WeightsStatus

_TRAINABLE = "  (trainable)"


def format_models(rows: Iterable[ModelRow]) -> list[str]:
    """Return a table of backbones: parameters, top-1 accuracy, image size, state and licence of the weights."""
    table = [("backbone", "parameters", "top-1 %", "pixels", "weights", "licence")]
    for row in rows:
        top1 = f"{row.top1:.1f}" if row.top1 is not None else "-"
        millions = f"{row.parameters / 1e6:.1f} M"
        table.append((row.name, millions, top1, str(row.image_size), row.weights, row.license or "unknown"))
    return format_table(table, align="<>>><<", indent=0)


def format_layers(rows: Sequence[LayerRow], *, every_layer: bool) -> list[str]:
    """Return a table of a backbone's blocks from input to output, with the sums in the last row.

    Args:
        rows: The blocks.
        every_layer: Whether the layers of each block follow it.
    """
    table = [("block", "layers", "parameters", "trainable"), *((row.block, *_counts([row])) for row in rows)]
    head, *blocks, total = format_table([*table, ("in all", *_counts(rows))], indent=0)
    lines = [head]
    for block, row in zip(blocks, rows, strict=True):
        lines.append(block)
        if every_layer:
            lines += [f"  {layer}{_TRAINABLE if layer in row.trainable_layers else ''}" for layer in row.layers]
    return [*lines, total]


def format_weights(statuses: Iterable[WeightsStatus]) -> list[str]:
    """Return a row for the weights of each backbone: name, state, file, and what is wrong with the file."""
    rows = [(status.backbone, status.state, status.path, status.detail) for status in statuses]
    return format_table(rows, align="<<<<", indent=0)


def _counts(rows: Sequence[LayerRow]) -> tuple[str, str, str]:
    layers = sum(len(row.layers) for row in rows)
    return (
        str(layers),
        f"{sum(row.parameters for row in rows):,}",
        f"{sum(row.trainable_parameters for row in rows):,}",
    )
