"""Images as arguments of the Python API: paths or uint8 RGB arrays, one or many."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from imagetune.errors import DataError

Images: TypeAlias = (
    str | os.PathLike[str] | NDArray[np.uint8] | Sequence[str | os.PathLike[str]] | Sequence[NDArray[np.uint8]]
)
"""A file, a folder, a pattern or a table of paths, or a list of them; an array (h, w, 3) or (n, h, w, 3) uint8 RGB, or
a list of the former, of any sizes."""
_HINT = "give paths, or uint8 RGB arrays of shape (height, width, 3) or (n, height, width, 3)"


def as_paths_or_arrays(images: Images) -> list[str] | list[NDArray[np.uint8]]:
    """Return images as a list of paths, or as a list of arrays (h, w, 3) uint8.

    Raises:
        DataError: It is neither, or both, or an array has another shape or dtype.
    """
    if isinstance(images, (str, os.PathLike)):
        return [os.fspath(images)]
    if isinstance(images, np.ndarray):
        return [_check_array(image) for image in (images if images.ndim == 4 else [images])]
    if not isinstance(images, Iterable):
        raise DataError(f"{type(images).__name__} is no image", where="images", hint=_HINT)
    # A list, as an iterator could be looked through only once.
    given: list[Any] = list(images)
    if all(isinstance(image, (str, os.PathLike)) for image in given):
        return [os.fspath(image) for image in given]
    return [_check_array(image, f"images[{index}]") for index, image in enumerate(given)]


def _check_array(image: Any, where: str = "images") -> NDArray[np.uint8]:
    """Return an image as a contiguous (h, w, 3) uint8 array, or raise DataError where it is none."""
    if not isinstance(image, np.ndarray):
        raise DataError(f"{type(image).__name__} among arrays", where=where, hint=_HINT)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(_describe_array(image), where=where, hint=_suggest_conversion(image) or _HINT)
    # OpenCV refuses views with negative strides, such as a flipped array.
    return np.ascontiguousarray(image)


def _describe_array(image: NDArray[Any]) -> str:
    """Return dtype, range and shape of an array that is no image of ours."""
    known = image.size and np.issubdtype(image.dtype, np.number) and not np.issubdtype(image.dtype, np.complexfloating)
    values = f" with values {image.min():g} to {image.max():g}" if known else ""
    return f"an array of dtype {image.dtype}{values} and shape {image.shape}"


def _suggest_conversion(image: NDArray[Any]) -> str:
    """Return how an image of floating-point numbers becomes one of ours; "" where the shape or the range is wrong."""
    if image.ndim != 3 or image.shape[2] != 3 or not image.size or not np.issubdtype(image.dtype, np.floating):
        return ""
    low, high = float(image.min()), float(image.max())
    # Not below 0: those pixels were normalised, and nobody knows how.
    if not 0 <= low <= high <= 255:
        return "give the pixels before they were normalised: uint8 RGB, 0 to 255"
    scaled = "(image * 255)" if high <= 1 else "image"
    return f"give uint8 RGB, 0 to 255: {scaled}.round().astype('uint8')"
