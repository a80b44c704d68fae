"""Test-time augmentation (TTA): deterministic transforms of images whose predictions are averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.recipe.sections.data import ImageSettings
from imagetune.recipe.sections.evaluate import TTATransform

ZOOM_SHARE = 0.875
"""Share of each side that `zoom_in` keeps: 224 of 256 pixels, the crop that ImageNet models are tested with."""

Pixels = NDArray[np.uint8]


def apply_tta(transform: TTATransform, images: Pixels) -> Pixels:
    """Return a batch of images, each changed by a transform of test-time augmentation.

    Flips and rotations move pixels; rotations are counter-clockwise. ``zoom_in`` is the centre of the image, 87.5% of
    each side, enlarged by bilinear interpolation to the old size; being NumPy, its pixels are the same on every
    backend.

    Args:
        transform: Name of the transform.
        images: (batch, height, width, 3) uint8, RGB; square for ``rotate_90`` and ``rotate_270``.

    Returns:
        (batch, height, width, 3) uint8, RGB.

    Raises:
        ValueError: The transform would change the shape.
    """
    transformed = _TRANSFORMS[transform](images)
    if transformed.shape != images.shape:
        raise ValueError(f"{transform} makes {transformed.shape} of images of the shape {images.shape}")
    # Flips are views with negative strides, which not every backend takes.
    return np.ascontiguousarray(transformed)


def find_unfit_tta(tta: Iterable[TTATransform], image: ImageSettings) -> tuple[TTATransform, ...]:
    """Return the transforms that images of this size don't allow: quarter rotations of images that aren't square."""
    rotations = ("rotate_90", "rotate_270") if image.height != image.width else ()
    return tuple(transform for transform in tta if transform in rotations)


def _rotate(quarters: int) -> Callable[[Pixels], Pixels]:
    return lambda images: np.rot90(images, quarters, axes=(1, 2))


def _zoom_in(images: Pixels) -> Pixels:
    rows = _enlarge_centre(images.astype(np.float32), axis=1)
    return np.rint(_enlarge_centre(rows, axis=2)).astype(np.uint8)


def _enlarge_centre(images: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return the central part of one axis, stretched to the whole axis by linear interpolation."""
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


_TRANSFORMS: Mapping[TTATransform, Callable[[Pixels], Pixels]] = {
    "horizontal_flip": lambda images: images[:, :, ::-1],
    "vertical_flip": lambda images: images[:, ::-1],
    "rotate_90": _rotate(1),
    "rotate_180": _rotate(2),
    "rotate_270": _rotate(3),
    "zoom_in": _zoom_in,
}
