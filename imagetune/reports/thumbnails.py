"""Images for the report: small, and inside the page itself."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from imagetune.data.loading.decode import load_image
from imagetune.errors import BadImageError
from imagetune.recipe.data import DataConfig, ImageSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

JPEG_QUALITY = 80


def thumbnail(path: str | Path, config: DataConfig, *, pixels: int) -> tuple[str | None, str]:
    """Return a whole image, small.

    Args:
        path: The image.
        config: For its background and the limit of pixels.
        pixels: Width and height of the square that it is padded to.

    Returns:
        A ``data:`` address; or None and what is wrong with the image.
    """
    size = ImageSettings(height=pixels, width=pixels, background=config.background)
    try:
        image = load_image(str(path), size, max_pixels=config.max_pixels)
    except BadImageError as error:
        return None, error.what
    encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii"), ""


def shown(path: str, *, root: Path, config: DataConfig, pixels: int) -> Mapping[str, str | None]:
    """Return ``path``, ``image`` and ``problem`` of an image for a template.

    Args:
        path: Absolute, or relative to the root.
        root: Where relative paths start.
        config: See `thumbnail`.
        pixels: See `thumbnail`.
    """
    image, problem = thumbnail(root / path, config, pixels=pixels)
    full = root / path
    return {
        "path": str(full.relative_to(root) if full.is_relative_to(root) else full),
        "image": image,
        "problem": problem,
    }
