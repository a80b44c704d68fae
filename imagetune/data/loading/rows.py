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
_RGB = slice(0, _BANDS)


def split_rows(image: npt.NDArray[_Value]) -> Iterator[npt.NDArray[_Value]]:
    """Yield an image in strips of whole rows, from the top, as views of its memory."""
    step = max(1, _PIXELS_AT_ONCE // max(1, image.shape[1]))
    for top in range(0, image.shape[0], step):
        yield image[top : top + step]


def composite(pixels: Pixels, background: tuple[int, int, int], *, bands: slice = _RGB) -> Pixels:
    """Return RGBA composited on the background, rounded: ``(a * rgb + (255 - a) * background) / 255``.

    Args:
        pixels: ``(h, w, 3)`` RGB, which is returned as it is, or ``(h, w, 4)``.
        background: RGB, 0 to 255.
        bands: Where red, green and blue are among four bands.
    """
    if pixels.shape[2] == _BANDS:
        return pixels
    mixed = np.empty((*pixels.shape[:2], _BANDS), np.uint8)
    under = np.array(background, np.uint16)
    for strip, place in zip(split_rows(pixels), split_rows(mixed), strict=True):
        colour, alpha = strip[:, :, bands], strip[:, :, _BANDS:]
        if alpha.min() < 255:
            # The largest sum is 255 * 255 + 127, which 16 bits hold.
            weight = alpha.astype(np.uint16)
            colour = (colour * weight + under * (255 - weight) + 127) // 255
        place[...] = colour
    return mixed
