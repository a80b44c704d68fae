"""Views of images for test-time augmentation: other looks at the same image, made without chance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.recipe.data import ImageSettings
from imagetune.recipe.evaluate import TTA

ZOOM_SHARE = 0.875
"""Share of each side that `zoom_in` keeps: 224 of 256 pixels, the crop that ImageNet models are tested with."""

Pixels = NDArray[np.uint8]


def apply_tta(transform: TTA, images: Pixels) -> Pixels:
    """Return one transform of every image of a batch.

    Flips and turns move pixels; turns are counter-clockwise. ``zoom_in`` is the middle of the image, 87.5% of each
    side, enlarged by bilinear interpolation to the old size; being NumPy, its pixels are the same on every backend.

    Args:
        transform: Which transform.
        images: (batch, height, width, 3) uint8, RGB; square for ``rotate_90`` and ``rotate_270``.

    Returns:
        (batch, height, width, 3) uint8, RGB.

    Raises:
        ValueError: The transform would change the shape.
    """
    seen = _MAKERS[transform](images)
    if seen.shape != images.shape:
        raise ValueError(f"{transform} makes {seen.shape} of images of the shape {images.shape}")
    return np.ascontiguousarray(seen)


def unfit_tta(tta: Iterable[TTA], image: ImageSettings) -> tuple[TTA, ...]:
    """Return those of ``TTA transforms`` that an image of this size can't have: quarter turns where it isn't square."""
    turning = ("rotate_90", "rotate_270") if image.height != image.width else ()
    return tuple(transform for transform in tta if transform in turning)


def _turned(quarters: int) -> Callable[[Pixels], Pixels]:
    return lambda images: np.rot90(images, quarters, axes=(1, 2))


def _zoomed_in(images: Pixels) -> Pixels:
    rows = _enlarged(images.astype(np.float32), axis=1)
    return np.rint(_enlarged(rows, axis=2)).astype(np.uint8)


def _enlarged(images: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return the middle of one axis, stretched to the whole; pixel centres lie half a pixel from the edges."""
    size = images.shape[axis]
    middle = (size - 1) / 2
    places = middle + (np.arange(size) - middle) * ZOOM_SHARE
    low = np.floor(places).astype(np.int64)
    high = np.minimum(low + 1, size - 1)
    shape: list[Any] = [1] * images.ndim
    shape[axis] = size
    share = (places - low).astype(np.float32).reshape(shape)
    stretched: NDArray[np.float32] = images.take(low, axis) * (1 - share) + images.take(high, axis) * share
    return stretched


_MAKERS: Mapping[TTA, Callable[[Pixels], Pixels]] = {
    "horizontal_flip": lambda images: images[:, :, ::-1],
    "vertical_flip": lambda images: images[:, ::-1],
    "rotate_90": _turned(1),
    "rotate_180": _turned(2),
    "rotate_270": _turned(3),
    "zoom_in": _zoomed_in,
}
