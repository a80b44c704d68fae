"""How alike two thumbnails are once one is laid over the other, many pairs at a time.

A cropped copy is its original, shifted and enlarged by a few percent. Shift and scale of each axis are found by Gauss
and Newton's method on blurred thumbnails, the steps being undone on the moved one so that the normal equations of a
pair are made once (inverse composition: Baker and Matthews, "Lucas-Kanade 20 Years On", 2004).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    TrainingImages = npt.NDArray[np.float32]

# Most that an image is enlarged and shifted by (pixels of a thumbnail).
MAX_SCALE = 0.16
MAX_SHIFT = 3.0

_SOFTEN = 0.6
_BLURS = ((2.0, 3), (1.0, 3))
# Keeps steps short where a thumbnail says nothing about a direction: scale and shift of columns, then of rows.
_DAMPING = (30.0, 0.3, 30.0, 0.3)


def edge_strengths(thumbnails: TrainingImages) -> TrainingImages:
    """Return the strength of the edges (Sobel) at each pixel of the softened thumbnails.

    Args:
        thumbnails: ``(n, side, side)`` float32.

    Returns:
        ``(n, side, side)`` float32.
    """
    # What was moved by parts of a pixel is a little softer than what was not.
    softened = _blurred(thumbnails, _blur(thumbnails.shape[1], _SOFTEN))
    padded = np.pad(softened, ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = padded[:, :, 2:] - padded[:, :, :-2]
    down = padded[:, 2:] - padded[:, :-2]
    strengths: TrainingImages = np.hypot(
        across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:], down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    )
    return strengths


def correlations(
    ones: TrainingImages, others: TrainingImages, weights: TrainingImages | None = None
) -> npt.NDArray[np.float32]:
    """Return the Pearson correlation of each pair, over the pixels whose weight is 1; 0 where one of them is plain.

    Args:
        ones: ``(n, side, side)`` float32.
        others: The same shape.
        weights: The same shape, zeros and ones; all pixels by default.
    """
    weights = np.ones_like(ones) if weights is None else weights
    total = weights.sum(axis=(1, 2), keepdims=True)
    one = (ones - (ones * weights).sum(axis=(1, 2), keepdims=True) / total) * weights
    other = (others - (others * weights).sum(axis=(1, 2), keepdims=True) / total) * weights
    scale = np.sqrt((one * one).sum(axis=(1, 2)) * (other * other).sum(axis=(1, 2)))
    products: npt.NDArray[np.float32] = (one * other).sum(axis=(1, 2)) / np.maximum(scale, 1e-6)
    return products


def standard(images: TrainingImages) -> TrainingImages:
    """Return each of ``(n, side, side)`` with mean 0 and standard deviation 1; zeros for a plain one."""
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    scaled: TrainingImages = centred / np.maximum(centred.std(axis=(1, 2), keepdims=True), 1e-6)
    return scaled


def overlaid(fixed: TrainingImages, moved: TrainingImages) -> tuple[TrainingImages, TrainingImages]:
    """Lay each moved thumbnail over its fixed one, as well as a shift and a scale of each axis can.

    Args:
        fixed: ``(n, side, side)`` float32.
        moved: The same shape.

    Returns:
        The moved ones where they came to lie, and 1 where they cover the fixed one, both ``(n, side, side)`` float32.
    """
    side = fixed.shape[1]
    steps = np.zeros((len(fixed), 4), np.float32)
    for sigma, count in _BLURS:
        blur = _blur(side, sigma)
        steps = _refined(_blurred(fixed, blur), _blurred(moved, blur), steps, count)
    columns, rows = _places(steps, side)
    covered = _within(rows, side)[:, :, None] * _within(columns, side)[:, None, :]
    return _sampled(moved, columns, rows), covered


def _refined(fixed: TrainingImages, moved: TrainingImages, steps: TrainingImages, count: int) -> TrainingImages:
    """Return the scales and shifts (n, 4) after some more steps: of columns, then of rows."""
    number, side = fixed.shape[:2]
    fixed = standard(fixed)
    slopes = _slopes(fixed)
    hessian = slopes.transpose(0, 2, 1) @ slopes + np.diag(np.array(_DAMPING, np.float32))
    solve = np.linalg.inv(hessian) @ slopes.transpose(0, 2, 1)
    for _ in range(count):
        columns, rows = _places(steps, side)
        error = standard(_sampled(moved, columns, rows)) - fixed
        steps = _undone(steps, (solve @ error.reshape(number, -1, 1))[:, :, 0])
    return steps


def _undone(steps: TrainingImages, delta: TrainingImages) -> TrainingImages:
    """Return the step that is ``delta`` undone, then ``steps``."""
    scale, shift = steps[:, 0::2], steps[:, 1::2]
    ratio = (1 + scale) / (1 + delta[:, 0::2])
    new = np.empty_like(steps)
    new[:, 0::2] = np.clip(ratio - 1, -MAX_SCALE, MAX_SCALE)
    new[:, 1::2] = np.clip(shift - delta[:, 1::2] * ratio, -MAX_SHIFT, MAX_SHIFT)
    return new


def _slopes(fixed: TrainingImages) -> TrainingImages:
    """Return how each pixel changes with scale and shift of columns and rows: (n, side * side, 4)."""
    number, side = fixed.shape[:2]
    across, down = np.gradient(fixed, axis=2), np.gradient(fixed, axis=1)
    away = _from_centre(side)
    stacked = np.stack([across * away, across, down * away[:, None], down], axis=-1)
    slopes: TrainingImages = stacked.reshape(number, side * side, 4).astype(np.float32, copy=False)
    return slopes


def _places(steps: TrainingImages, side: int) -> tuple[TrainingImages, TrainingImages]:
    """Return from which columns and which rows (n, side) of the moved thumbnail the pixels come."""
    away = _from_centre(side)
    middle = np.float32((side - 1) / 2)
    columns = middle + away * (1 + steps[:, 0:1]) + steps[:, 1:2]
    rows = middle + away * (1 + steps[:, 2:3]) + steps[:, 3:4]
    return columns, rows


def _from_centre(side: int) -> npt.NDArray[np.float32]:
    return np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)


def _within(places: TrainingImages, side: int) -> TrainingImages:
    return ((places >= -0.5) & (places <= side - 0.5)).astype(np.float32)


def _sampled(images: TrainingImages, columns: TrainingImages, rows: TrainingImages) -> TrainingImages:
    """Return the images at these places, bilinear; beyond the border the nearest pixel."""
    upright: TrainingImages = np.matmul(_tents(rows, images.shape[1]), images)
    sampled: TrainingImages = np.matmul(upright, _tents(columns, images.shape[2]).transpose(0, 2, 1))
    return sampled


def _tents(places: TrainingImages, side: int) -> TrainingImages:
    inside = np.clip(places, 0, side - 1)[:, :, None]
    tents: TrainingImages = np.maximum(0, 1 - np.abs(inside - np.arange(side, dtype=np.float32)))
    return tents


def _blurred(images: TrainingImages, blur: TrainingImages) -> TrainingImages:
    """Return them blurred along columns and rows by a matrix of `_blur`."""
    blurred: TrainingImages = np.matmul(np.matmul(blur, images), blur.T)
    return blurred


def _blur(side: int, sigma: float) -> TrainingImages:
    """Return the matrix that blurs columns of ``side`` pixels, the border repeated."""
    kernel = cv2.getGaussianKernel(9, sigma, cv2.CV_32F).ravel()
    matrix = np.zeros((side, side), np.float32)
    for row in range(side):
        for at, weight in enumerate(kernel, start=row - 4):
            matrix[row, min(max(at, 0), side - 1)] += weight
    return matrix
