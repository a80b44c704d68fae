"""Named blocks of the backbones: the rules that group the layers of each architecture, from input to output."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlockScheme:
    r"""The rule that names the block of each layer of an architecture.

    Attributes:
        by_name: Pairs (block name, pattern). A layer whose name matches goes into that block (``\1`` in the block name
            stands for the pattern's group); one that matches none goes with the layer before it.
        by_end: Pairs (block name, pattern of its last layer), for architectures whose layer names don't mention a
            block. Layers after the last end belong to the last block.
    """

    by_name: tuple[tuple[str, str], ...] = ()
    by_end: tuple[tuple[str, str], ...] = ()

    def assign(self, layer_names: Sequence[str]) -> list[str]:
        """Return the name of the block of each layer.

        Args:
            layer_names: Names of the layers, from input to output.
        """
        return self._assign_by_end(layer_names) if self.by_end else self._assign_by_name(layer_names)

    def _assign_by_name(self, layer_names: Sequence[str]) -> list[str]:
        found = [self._find_block(name) for name in layer_names]
        current = next((block for block in found if block), self.by_name[0][0])
        blocks = []
        for block in found:
            current = block or current
            blocks.append(current)
        return blocks

    def _find_block(self, layer_name: str) -> str | None:
        for block, pattern in self.by_name:
            if match := re.search(pattern, layer_name):
                return match.expand(block)
        return None

    def _assign_by_end(self, layer_names: Sequence[str]) -> list[str]:
        blocks, position = [], 0
        for name in layer_names:
            block, end = self.by_end[position]
            blocks.append(block)
            if re.fullmatch(end, name) and position + 1 < len(self.by_end):
                position += 1
        return blocks


VGG = BlockScheme(by_name=((r"block\1", r"^block(\d+)_"),))
RESNET = BlockScheme(by_name=((r"conv\1", r"^conv(\d+)_"),))
DENSENET = BlockScheme(by_name=((r"conv\1", r"^(?:conv|pool)(\d+)_"),))
INCEPTION_V3 = BlockScheme(
    by_end=(("stem", r"max_pooling2d_1"), *((f"mixed{index}", f"mixed{index}") for index in range(11)))
)
INCEPTION_RESNET_V2 = BlockScheme(
    by_end=(
        ("stem", r"max_pooling2d_1"),
        ("mixed_5b", r"mixed_5b"),
        ("block35", r"block35_10_ac"),
        ("mixed_6a", r"mixed_6a"),
        ("block17", r"block17_20_ac"),
        ("mixed_7a", r"mixed_7a"),
        # The tenth repeat of block8 has no activation: its scaled sum is what conv_7b reads.
        ("block8", r"custom_scale_layer_39"),
        ("top", r"conv_7b_ac"),
    )
)
XCEPTION = VGG
MOBILENET = BlockScheme(by_name=(("stem", r"^conv1"), (r"block\1", r"^conv_(?:dw|pw|pad)_(\d+)")))
MOBILENET_V2 = BlockScheme(
    by_name=(
        ("stem", r"^(?:bn_)?Conv1"),
        ("top", r"^(?:Conv_1|out_relu)"),
        (r"block\1", r"^block_(\d+)_"),
        ("block0", r"^expanded_conv_"),
    )
)
MOBILENET_V3 = BlockScheme(
    by_name=(
        ("top", r"^conv_1"),
        ("stem", r"^conv(?:_bn)?$"),
        (r"block\1", r"^expanded_conv_(\d+)_"),
        # After the pattern with a number, because the first that matches decides.
        ("block0", r"^expanded_conv_"),
    )
)
NASNET = BlockScheme(
    by_name=(
        ("stem", r"^stem_(?:conv|bn)1$"),
        (r"stem\1", r"_stem_(\d+)$"),
        (r"reduce\1", r"_reduce_(\d+)$"),
        (r"cell\1", r"^(?:normal|separable|adjust)_.*_(\d+)$"),
    )
)
EFFICIENTNET = BlockScheme(by_name=(("stem", r"^stem_"), (r"block\1", r"^block(\d+)"), ("top", r"^top_")))
TRANSFORMER = BlockScheme(
    by_name=(
        ("stem", r"^(?:patch_embedding|class_token|position_|tokens)"),
        (r"block\1", r"^block(\d+)_"),
        ("top", r"^top_"),
    )
)
CONVNEXT = BlockScheme(
    by_name=(
        ("stem", r"_stem$"),
        # A stage begins with the downsampling in front of it, as in timm.
        *((f"stage{index + 1}", rf"_downsampling_block_{index}$") for index in range(3)),
        (r"stage\1", r"_stage_(\d+)_"),
    )
)
