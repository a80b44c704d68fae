"""Thumbnails of images as ``data:`` addresses, so that a page carries its images itself."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from imagetune.data.loading.decode import load_image
from imagetune.errors import BadImageError
from imagetune.recipe.sections.data import DataConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

JPEG_QUALITY = 80


def make_thumbnail(path: str | Path, config: DataConfig, *, pixels: int) -> tuple[str | None, str]:
    """Return a square thumbnail of a whole image, padded, as a JPEG inside a ``data:`` address.

    Args:
        path: The image file.
        config: The background of the padding and the limit of pixels when an image is decoded.
        pixels: Width and height of the square.

    Returns:
        The address and an empty text; or None and what is wrong with the file.
    """
    size = config.image.model_copy(update={"height": pixels, "width": pixels, "resize": "pad"})
    try:
        image = load_image(str(path), size, max_pixels=config.max_pixels)
    # The file may have vanished or changed since the run: the page then says so in the image's place.
    except BadImageError as error:
        return None, error.what
    # OpenCV expects BGR.
    encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return jpeg_address(encoded.tobytes()), ""


def jpeg_address(jpeg: bytes) -> str:
    """Return the bytes of a JPEG file as a ``data:`` address."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def view_thumbnail(path: str, *, root: Path, config: DataConfig, pixels: int) -> Mapping[str, str | None]:
    """Return what a template needs to show an image: its ``path``, its thumbnail ``image``, or its ``problem``.

    Args:
        path: Absolute, or relative to the root.
        root: Where relative paths start.
        config: See `make_thumbnail`.
        pixels: See `make_thumbnail`.
    """
    image, problem = make_thumbnail(root / path, config, pixels=pixels)
    full = root / path
    return {
        "path": str(full.relative_to(root) if full.is_relative_to(root) else full),
        "image": image,
        "problem": problem,
    }
