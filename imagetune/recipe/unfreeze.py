"""Parser of ``unfreeze``, the notation for the trainable part of the backbone (``last 3 blocks``, ``last 30%``)."""

from __future__ import annotations

import re
from dataclasses import dataclass

EXPECTED = (
    "expected `none`, `all`, `last N blocks`, `last N%`, or names of blocks or layers "
    "(`block5`, `conv5_*`; see `imagetune model layers BACKBONE`)"
)
_LAST_BLOCKS = re.compile(r"last (?:([0-9]{1,6}) )?blocks?")
_LAST_PERCENT = re.compile(r"last ([0-9]{1,9}(?:\.[0-9]{1,9})?) ?%")
_NAME = re.compile(r"[\w.*?\[\]/-]+")


@dataclass(frozen=True)
class Unfreeze:
    """A parsed ``unfreeze`` value: at most one field is set, and with none the whole backbone stays frozen.

    Attributes:
        everything: Whether the whole backbone is trainable.
        last_blocks: Number of trainable blocks, counted from the output.
        last_fraction: Trainable share (0..1] of the layers with weights, counted from the output.
        names: Trainable blocks or layers, by name or shell pattern.
    """

    everything: bool = False
    last_blocks: int = 0
    last_fraction: float = 0.0
    names: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether the backbone stays frozen."""
        return not (self.everything or self.last_blocks or self.last_fraction or self.names)


def parse_unfreeze(value: str | tuple[str, ...]) -> Unfreeze:
    """Return the trainable part of the backbone that an ``unfreeze`` value means.

    Raises:
        ValueError: The value can't be read; the message says what was expected.
    """
    if isinstance(value, tuple):
        return Unfreeze(names=tuple(_check_name(name) for name in value))
    text = " ".join(value.split())
    if text == "none":
        return Unfreeze()
    if text == "all":
        return Unfreeze(everything=True)
    if match := _LAST_BLOCKS.fullmatch(text):
        count = int(match[1] or 1)
        if count == 0:
            raise ValueError(f"{value!r} trains nothing: write `none`")
        return Unfreeze(last_blocks=count)
    if match := _LAST_PERCENT.fullmatch(text):
        percent = float(match[1])
        if not 0 < percent <= 100:
            raise ValueError(f"{value!r} is outside 0% to 100%")
        return Unfreeze(last_fraction=percent / 100)
    return Unfreeze(names=(_check_name(text),))


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"can't read {name!r}; {EXPECTED}")
    return name
