"""The EXIF orientation of an image: how the camera was held, and the image upright."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

_ORIENTATION = 0x0112
# From this EXIF orientation on, rows and columns are swapped.
TRANSPOSED = 5


def read_orientation(header: Image.Image) -> int:
    """Return the orientation of an opened image, 1 to 8; 1 without one."""
    # Pillow's getexif also takes the orientation from XMP, so both must be absent to skip it.
    if "exif" not in header.info and "xmp" not in header.info and "XML:com.adobe.xmp" not in header.info:
        return 1
    try:
        value: Any = header.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - readers raise whatever they like for a corrupted file
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def undo_orientation(image: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Return the image upright, with its EXIF orientation (EXIF 2.32, tag Orientation) undone."""
    if orientation == 1:
        return image
    if orientation >= TRANSPOSED:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
