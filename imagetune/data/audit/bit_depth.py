"""Bit depth of a set of images with more than 8 bits a channel: one for all of them, from their values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from imagetune.core.text import format_count
from imagetune.data.findings import CODES, Finding

if TYPE_CHECKING:
    from imagetune.data.audit.image_statistics import ImageStatistics
    from imagetune.recipe.sections.data import DataConfig

# An image that uses so many bits fewer than the set has a sixteenth of its brightness at most: hardly any light is
# left.
_FEWER_BITS = 4


def settle_bit_depth(config: DataConfig, statistics: Iterable[ImageStatistics]) -> DataConfig:
    """Return the settings with the bits that all images together need for ``bit_depth: auto``, where any needs them."""
    if config.bit_depth != "auto":
        return config
    depth = max((image.bit_depth for image in statistics), default=0)
    return config.model_copy(update={"bit_depth": depth}) if depth else config


def find_bit_depths(statistics: Iterable[ImageStatistics], wanted: int | Literal["auto"]) -> Iterator[Finding]:
    """Yield how many bits of such images are read, and a warning where some of them use far fewer.

    Args:
        statistics: The statistics of every image.
        wanted: ``data.bit_depth``.
    """
    deep = {image.path: image.bit_depth for image in statistics if image.bit_depth}
    if not deep:
        return
    depth = max(deep.values()) if wanted == "auto" else wanted
    title = f"{format_count(len(deep), 'image')} with more than 8 bits a channel, read as {depth} bits"
    chosen = "their brightest pixel needs them" if wanted == "auto" else "data.bit_depth says so"
    metrics = {"bit_depth": float(depth)}
    yield Finding("bit-depth", CODES["bit-depth"].severity, title, chosen, tuple(deep), metrics=metrics)
    low = {path: f"{bits} bits" for path, bits in deep.items() if bits <= depth - _FEWER_BITS}
    high = {path: f"{bits} bits" for path, bits in deep.items() if bits > depth}
    for odd, words, explanation in (
        (low, f"use far fewer than {depth} bits", "they are read as nearly black"),
        (high, f"use more than {depth} bits", "what is brighter is read as white"),
    ):
        if odd:
            title = f"{format_count(len(odd), 'image')} that {words}"
            hint = "set data.bit_depth to the bits that the camera or the scanner uses, or save all images alike"
            severity = CODES["mixed-bit-depth"].severity
            yield Finding("mixed-bit-depth", severity, title, explanation, tuple(odd), hint, reasons=odd)
