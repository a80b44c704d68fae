"""Images with more than 8 bits a channel: their levels, how many bits those need, and their conversion to bytes.

Medical and scientific images often store 10, 12 or 14 bits in 16. Divided by 256 as if all were used, they turn black;
stretched each by itself, a darker image would look like a brighter one. So the depth is one number for a set of images,
and every image of the set is scaled by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from imagetune.data.loading.rows import split_rows

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

_DEPTHS = (8, 10, 12, 14, 16, 20, 24, 32)
_PHOTOMETRIC, _BITS, _MAX_VALUE, _EXTRA_SAMPLES = 262, 258, 281, 338
_MIN_IS_WHITE, _RGB = 0, 2
_RGB_BANDS = 3
_COLOUR_MODES = ("RGB", "RGBA", "RGBX", "LA")
_OPAQUE_BITS = 16
# Share of a fourth band's pixels that are wholly clear or wholly opaque, from which on it is transparency.
_ENDS = 0.5


def is_deep(header: Image.Image, data: bytes) -> bool:
    """Return whether an opened image stores more than 8 bits a channel.

    Args:
        header: The opened image.
        data: The bytes of its file.
    """
    # Pillow's mode of a 16-bit colour PNG is RGB as well, so the depth is read from the IHDR chunk.
    if header.format == "PNG":
        return data[24:25] == b"\x10"
    bits = _read_tag(header, _BITS, (8,))
    return header.mode.startswith("I") or (header.mode != "F" and max(bits) > 8)


def has_unmarked_band(header: Image.Image, pixels: npt.NDArray[np.generic] | None = None) -> bool:
    """Return whether a TIFF has a fourth band beside RGB that isn't transparency, such as infrared.

    Args:
        header: The opened image.
        pixels: ``(h, w, 4)``. Where the file doesn't say what its fourth band is, it is transparency if at least half
            of it is at either end of its range; without pixels only the file counts.
    """
    if header.format != "TIFF" or len(_read_tag(header, _BITS, ())) != _RGB_BANDS + 1:
        return False
    if _read_tag(header, _PHOTOMETRIC, (0,)) != (_RGB,):
        return False
    kinds = getattr(header, "tag_v2", {}).get(_EXTRA_SAMPLES)
    if kinds is not None:
        return not any(_read_tag(header, _EXTRA_SAMPLES, (0,)))
    if pixels is None or pixels.shape[2] == _RGB_BANDS:
        return False
    band = pixels[:, :, _RGB_BANDS]
    opaque = 255 if band.dtype == np.uint8 else 65535
    return bool(np.mean((band == 0) | (band == opaque)) < _ENDS)


def read_levels(header: Image.Image, data: bytes) -> npt.NDArray[np.generic] | None:
    """Return the levels of a deep image, as stored but with black as 0: ``(h, w)`` or ``(h, w, 3 or 4)`` integers.

    None where no decoder gives more than 8 bits of them. The EXIF orientation is not undone.

    Raises:
        OSError, SyntaxError, ValueError: The image is corrupted, as from Pillow.
    """
    if not header.mode.startswith("I"):
        # OpenCV would give the inks of CMYK as colours with transparency.
        if header.mode not in _COLOUR_MODES:
            return None
        levels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if levels is None or levels.dtype != np.uint16 or levels.ndim != 3:
            return None
        order = cv2.COLOR_BGR2RGB if levels.shape[2] == _RGB_BANDS else cv2.COLOR_BGRA2RGBA
        for rows in split_rows(levels):
            rows[...] = cv2.cvtColor(rows, order)
        colour: npt.NDArray[np.generic] = levels
        return colour[:, :, :_RGB_BANDS] if has_unmarked_band(header, colour) else colour
    header.load()
    return np.asarray(header)


def measure_depth(levels: npt.NDArray[np.generic], header: Image.Image) -> int:
    """Return the bits that the levels of an image need: 8, 10, 12, 14, 16 or more; transparency doesn't count."""
    colour = levels[:, :, :_RGB_BANDS] if levels.ndim == 3 else levels
    largest = max(int(colour.max(initial=0)), *_read_tag(header, _MAX_VALUE, (0,)))
    return next(depth for depth in _DEPTHS if largest < 1 << depth or depth == _DEPTHS[-1])


def convert_levels(levels: npt.NDArray[np.generic], header: Image.Image, bit_depth: int) -> npt.NDArray[np.uint8]:
    """Return levels as bytes: the upper 8 of their bits, upside down where the file says that 0 is white.

    Args:
        levels: As from `read_levels`.
        header: The opened image.
        bit_depth: The bits of the set of images; levels beyond them become white.

    Returns:
        ``(h, w, 3)`` RGB or ``(h, w, 4)`` RGBA.
    """
    shift = max(bit_depth - 8, 0)
    inverted = levels.ndim == 2 and _read_tag(header, _PHOTOMETRIC, (1,))[0] == _MIN_IS_WHITE
    # A grey image has its one value three times.
    converted = np.empty((*levels.shape[:2], _RGB_BANDS if levels.ndim == 2 else levels.shape[2]), np.uint8)
    for rows, place in zip(split_rows(levels), split_rows(converted), strict=True):
        bands: npt.NDArray[Any] = rows[:, :, None] if levels.ndim == 2 else rows
        colour = (bands[:, :, :_RGB_BANDS].astype(np.int64) >> shift).clip(0, 255)
        place[:, :, :_RGB_BANDS] = 255 - colour if inverted else colour
        # Opacity uses all bits, whatever the colours use.
        place[:, :, _RGB_BANDS:] = bands[:, :, _RGB_BANDS:] >> (_OPAQUE_BITS - 8)
    return converted


def _read_tag(header: Image.Image, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    """Return a tag of a TIFF as whole numbers; the default for other files and without it."""
    tags: Any = getattr(header, "tag_v2", {})
    value = tags.get(tag, default)
    values: Iterable[Any] = value if isinstance(value, tuple) else (value,)
    return tuple(int(number) for number in values if isinstance(number, int)) or default
