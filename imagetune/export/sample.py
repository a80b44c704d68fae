"""The image that travels with an export, and what is predicted for it: whoever gets the export can try it at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagetune.model.manifest import Manifest

SAMPLE = "sample.png"
# Neither square nor of a size that models have, so that resizing is tried, too.
_ROWS, _COLUMNS = 150, 200
TOLERANCE = 0.02
"""Largest difference of a probability at which a prediction counts as repeated: other processors round otherwise, and
int8 models have outputs in steps of 0.004. For regression in standard deviations of the training labels."""


def write_sample(folder: Path) -> Path:
    """Write the sample image, a disc and a bar on a gradient, and return its path.

    It is drawn, as an image of the training set may be private.
    """
    rows, columns = np.mgrid[:_ROWS, :_COLUMNS]
    pixels = np.stack([40 + rows, 60 + columns // 2, 200 - rows // 2], axis=-1)
    pixels[(rows - 70) ** 2 + (columns - 80) ** 2 < 45**2] = (230, 120, 40)
    pixels[100:120, 90:180] = (40, 150, 90)
    path = folder / SAMPLE
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def describe_sample(manifest: Manifest, outputs: NDArray[np.float64]) -> dict[str, Any]:
    """Return what an export's manifest.json says of the sample image.

    Args:
        manifest: That of the model.
        outputs: (k,) the export's outputs for it, by its own runtime and example.py.
    """
    return {
        "file": SAMPLE,
        "outputs": [float(value) for value in outputs],
        "tolerance": TOLERANCE * (manifest.value_std if manifest.task == "regression" else 1.0),
    }
