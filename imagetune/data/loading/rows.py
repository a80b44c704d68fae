"""Work on an image a few rows at a time, so that a large one doesn't take the memory of several."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]

_Value = TypeVar("_Value", bound=np.generic)
# Few enough that what is computed from them stays in the processor's cache.
_PIXELS_AT_ONCE = 1 << 16
_BANDS = 3


def split_rows(image: npt.NDArray[_Value]) -> Iterator[npt.NDArray[_Value]]:
    """Yield an image in strips of whole rows, from the top, as views of its memory."""
    step = max(1, _PIXELS_AT_ONCE // max(1, image.shape[1]))
    for top in range(0, image.shape[0], step):
        yield image[top : top + step]


def composite(pixels: Pixels, background: tuple[int, int, int], *, bgr: bool = False) -> Pixels:
    """Return RGBA composited on the background, rounded: ``(a * rgb + (255 - a) * background) / 255``.

    Args:
        pixels: ``(h, w, 3)`` RGB, which is returned as it is, or ``(h, w, 4)``.
        background: RGB, 0 to 255.
        bgr: Whether four bands are in OpenCV's order, blue first.
    """
    if pixels.shape[2] == _BANDS:
        return pixels
    mixed = np.empty((*pixels.shape[:2], _BANDS), np.uint8)
    for strip, place in zip(split_rows(pixels), split_rows(mixed), strict=True):
        weight = strip[:, :, _BANDS].astype(np.uint16)
        rest = 255 - weight
        # Band by band, because NumPy is slow where the last axis has three values.
        for band, under in enumerate(background):
            # The largest sum is 255 * 255 + 127, which 16 bits hold.
            total = strip[:, :, 2 - band if bgr else band] * weight
            total += rest * np.uint16(under) + np.uint16(127)
            place[:, :, band] = total // np.uint16(255)
    return mixed
