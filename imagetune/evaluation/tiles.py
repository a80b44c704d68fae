"""Small pictures that evaluation leaves in the run folder, and the report shows."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from imagetune.core.files import disk_errors

QUALITY = 78


def write_tile(image: NDArray[np.uint8], folder: Path, name: str) -> str:
    """Write a picture (height, width, 3), uint8 RGB, as JPEG into a folder; return its name there."""
    encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    path = folder / name
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.tobytes())
    return name


def tile_address(folder: Path, name: str) -> str | None:
    """Return a tile as a ``data:`` address; None where the file is gone, or is named outside the folder."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        return None
    return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
