"""Occlusion sensitivity: how a prediction falls when a patch of the image is covered (Zeiler and Fergus, ECCV 2014).

It needs no gradients, only predictions, and so is an independent check on Grad-CAM.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from imagetune.model.gradients import PASS_SIZE, SaliencyModel, compute_feature_maps, compute_logits

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

# Each place costs a forward pass: 25 for every explained image.
GRID = 5
"""Places along each side at which an image is covered."""
PATCH_SHARE = 0.3
"""Side of the cover as a share of the image's; neighbouring covers overlap."""


def compute_occlusion(split: SaliencyModel, images: Pixels, targets: NDArray[np.int64]) -> Floats:
    """Return occlusion maps: by how much a logit falls when a patch is covered by the image's mean colour.

    Args:
        split: The model, split behind its last feature map.
        images: (n, height, width, 3) uint8, RGB.
        targets: (n, t) indices of the outputs to explain.

    Returns:
        (n, t, `GRID`, `GRID`): the logit of the whole image minus that of the image covered around that place.
    """
    versions = chain.from_iterable(chain((image,), cover_patches(image)) for image in images)
    passes = []
    while part := list(islice(versions, PASS_SIZE)):
        passes.append(compute_logits(split, compute_feature_maps(split, np.stack(part))))
    logits = np.concatenate(passes).reshape(len(images), 1 + GRID**2, -1)
    wanted = np.take_along_axis(logits, targets[:, None], axis=2)
    falls: Floats = (wanted[:, :1] - wanted[:, 1:]).transpose(0, 2, 1).reshape(*targets.shape, GRID, GRID)
    return falls


def cover_patches(image: Pixels) -> Iterator[Pixels]:
    """Yield copies of an image (height, width, 3) with a patch covered at each place of the grid, row by row."""
    height, width = image.shape[:2]
    # The mean colour is nearer to what the model knows than black, which may itself be evidence for a class.
    colour = np.rint(image.mean(axis=(0, 1))).astype(np.uint8)
    for row in _compute_spans(height):
        for column in _compute_spans(width):
            copy = image.copy()
            copy[row, column] = colour
            yield copy


def _compute_spans(side: int) -> list[slice]:
    """Return the rows or columns that each place of the grid covers."""
    half = PATCH_SHARE * side / 2
    centres = (np.arange(GRID) + 0.5) * side / GRID
    return [slice(max(0, round(centre - half)), max(1, round(centre + half))) for centre in centres.tolist()]
