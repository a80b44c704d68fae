"""Tiles: small JPEG images of saliency maps and corruptions that an evaluation leaves in the run folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from imagetune.core.files import convert_disk_errors
from imagetune.evaluation.explain.grad_cam import build_heat_map
from imagetune.reports.thumbnails import jpeg_address

QUALITY = 78
Image = NDArray[np.uint8]
Heat = NDArray[np.float32]

# The share of the image's brightness that is left where the saliency is 0.
_DIMMED = 0.45
_STRONGEST = 0.72
# From faint to strong, light enough to stand out from the dimmed image; brightness rises all the way, so that the scale
# also reads without colour.
_HEAT_RGB = np.array([(90, 20, 110), (200, 40, 90), (245, 125, 20), (252, 215, 70)], np.float32)


@dataclass(frozen=True)
class RunTiles:
    """A writer of tiles into a run folder, which evaluation knows as a `TileWriter`.

    Attributes:
        folder: The run folder.
    """

    folder: Path

    def clear(self, folder: str) -> None:
        """Remove the tiles of an earlier evaluation from a folder below the run folder."""
        shutil.rmtree(self.folder / folder, ignore_errors=True)

    def write(self, image: Image, name: str, *, pixels: int, heat: Heat | None = None) -> str:
        """Write an image as JPEG, its longer side so many pixels, under the heat of a saliency map; return its name.

        Raises:
            ResourceError: The disk is full.
        """
        tile = scale_image(image, pixels)
        return write_tile(tile if heat is None else overlay_heat(tile, heat), self.folder, name)


def write_tile(image: NDArray[np.uint8], folder: Path, name: str) -> str:
    """Write an image (height, width, 3), uint8 RGB, as JPEG into a folder; return its name there."""
    # OpenCV expects BGR.
    encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    path = folder / name
    with convert_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.tobytes())
    return name


def tile_address(folder: Path, name: str) -> str | None:
    """Return a tile as a ``data:`` address; None where the file is gone, or is named outside the folder."""
    path = folder / name
    # The name comes from evaluation.json: it must not bring files from elsewhere into a page that is passed on.
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        return None
    return jpeg_address(path.read_bytes())


def overlay_heat(image: Image, values: Heat) -> Image:
    """Return an image (height, width, 3) in grey under the heat of a saliency map, at the image's size.

    Args:
        image: uint8, RGB.
        values: (rows, columns), of either sign; what is positive is drawn, the highest value strongest.
    """
    heat = build_heat_map(values, image.shape[:2])[:, :, None]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None].astype(np.float32)
    place = heat * (len(_HEAT_RGB) - 1)
    below = np.clip(place.astype(np.int64), 0, len(_HEAT_RGB) - 2)[:, :, 0]
    share = place - below[:, :, None]
    colour = _HEAT_RGB[below] * (1 - share) + _HEAT_RGB[below + 1] * share
    strength = _STRONGEST * np.sqrt(heat)
    dimmed = grey * (_DIMMED + (1 - _DIMMED) * heat)
    shown: Image = np.rint(np.clip(dimmed * (1 - strength) + colour * strength, 0, 255)).astype(np.uint8)
    return shown


def scale_image(image: Image, pixels: int) -> Image:
    """Return an image (height, width, 3) scaled so that its longer side has so many pixels."""
    height, width = image.shape[:2]
    scale = pixels / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Averaging by area shrinks without aliasing, but enlarges to blocks.
    scaled: Image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return scaled
