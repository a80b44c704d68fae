"""Image alignment (Lucas-Kanade) and correlation of thumbnails, many pairs at a time.

A cropped copy is its original, shifted and enlarged by a few percent. Shift and scale of each axis are found by the
Gauss-Newton method on blurred thumbnails, with inverse composition, so that the normal equations of a pair are set up
only once (Baker and Matthews, "Lucas-Kanade 20 Years On", 2004).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Thumbnails = npt.NDArray[np.float32]

# Limits of scale and of shift (pixels of a thumbnail): beyond them different images begin to match.
MAX_SCALE = 0.16
MAX_SHIFT = 3.0

_SOFTENING_SIGMA = 0.6
# Coarse first: Gauss-Newton can't find a shift that is wider than the structures it sees.
_BLURS = ((2.0, 3), (1.0, 3))
# Damping keeps steps short where a thumbnail has no structure: scale and shift of columns, then of rows.
_DAMPING = (30.0, 0.3, 30.0, 0.3)


def compute_edge_strengths(thumbnails: Thumbnails) -> Thumbnails:
    """Return the strength of the edges (Sobel) at each pixel of the softened thumbnails.

    Args:
        thumbnails: ``(n, side, side)`` float32.

    Returns:
        ``(n, side, side)`` float32.
    """
    # Interpolation softens the moved thumbnail a little, so both are softened.
    softened = _apply_blur(thumbnails, _build_blur(thumbnails.shape[1], _SOFTENING_SIGMA))
    padded = np.pad(softened, ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = padded[:, :, 2:] - padded[:, :, :-2]
    down = padded[:, 2:] - padded[:, :-2]
    strengths: Thumbnails = np.hypot(
        across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:], down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    )
    return strengths


def compute_correlations(
    ones: Thumbnails, others: Thumbnails, weights: Thumbnails | None = None
) -> npt.NDArray[np.float32]:
    """Return the Pearson correlation of each pair, over the pixels whose weight is 1; 0 where one thumbnail is plain.

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


def standardize(images: Thumbnails) -> Thumbnails:
    """Return thumbnails ``(n, side, side)`` with mean 0 and standard deviation 1 each; zeros for a plain one."""
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    scaled: Thumbnails = centred / np.maximum(centred.std(axis=(1, 2), keepdims=True), 1e-6)
    return scaled


def align_thumbnails(fixed: Thumbnails, moved: Thumbnails) -> tuple[Thumbnails, Thumbnails]:
    """Align each moved thumbnail with its fixed one by a shift and a scale of each axis.

    Args:
        fixed: ``(n, side, side)`` float32.
        moved: The same shape.

    Returns:
        The aligned thumbnails, and masks that are 1 where they cover the fixed ones, both ``(n, side, side)`` float32.
    """
    side = fixed.shape[1]
    steps = np.zeros((len(fixed), 4), np.float32)
    for sigma, count in _BLURS:
        blur = _build_blur(side, sigma)
        steps = _refine(_apply_blur(fixed, blur), _apply_blur(moved, blur), steps, count)
    columns, rows = _compute_sample_points(steps, side)
    covered = _mask_inside(rows, side)[:, :, None] * _mask_inside(columns, side)[:, None, :]
    return _sample(moved, columns, rows), covered


def _refine(fixed: Thumbnails, moved: Thumbnails, steps: Thumbnails, count: int) -> Thumbnails:
    """Return the scales and shifts ``(n, 4)`` of columns, then of rows, after ``count`` more Gauss-Newton steps."""
    number, side = fixed.shape[:2]
    fixed = standardize(fixed)
    jacobian = _compute_jacobian(fixed)
    hessian = jacobian.transpose(0, 2, 1) @ jacobian + np.diag(np.array(_DAMPING, np.float32))
    solve = np.linalg.inv(hessian) @ jacobian.transpose(0, 2, 1)
    for _ in range(count):
        columns, rows = _compute_sample_points(steps, side)
        error = standardize(_sample(moved, columns, rows)) - fixed
        steps = _compose_inverse(steps, (solve @ error.reshape(number, -1, 1))[:, :, 0])
    return steps


def _compose_inverse(steps: Thumbnails, delta: Thumbnails) -> Thumbnails:
    """Return the composition of the inverse of ``delta`` with ``steps``, within the limits."""
    scale, shift = steps[:, 0::2], steps[:, 1::2]
    ratio = (1 + scale) / (1 + delta[:, 0::2])
    new = np.empty_like(steps)
    new[:, 0::2] = np.clip(ratio - 1, -MAX_SCALE, MAX_SCALE)
    new[:, 1::2] = np.clip(shift - delta[:, 1::2] * ratio, -MAX_SHIFT, MAX_SHIFT)
    return new


def _compute_jacobian(fixed: Thumbnails) -> Thumbnails:
    """Return the Jacobian ``(n, side * side, 4)``: derivatives by scale and shift of columns, then of rows."""
    number, side = fixed.shape[:2]
    across, down = np.gradient(fixed, axis=2), np.gradient(fixed, axis=1)
    away = _measure_from_centre(side)
    stacked = np.stack([across * away, across, down * away[:, None], down], axis=-1)
    jacobian: Thumbnails = stacked.reshape(number, side * side, 4).astype(np.float32, copy=False)
    return jacobian


def _compute_sample_points(steps: Thumbnails, side: int) -> tuple[Thumbnails, Thumbnails]:
    """Return the columns and the rows ``(n, side)`` of the moved thumbnail to sample the pixels from."""
    away = _measure_from_centre(side)
    middle = np.float32((side - 1) / 2)
    columns = middle + away * (1 + steps[:, 0:1]) + steps[:, 1:2]
    rows = middle + away * (1 + steps[:, 2:3]) + steps[:, 3:4]
    return columns, rows


def _measure_from_centre(side: int) -> npt.NDArray[np.float32]:
    return np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)


def _mask_inside(places: Thumbnails, side: int) -> Thumbnails:
    return ((places >= -0.5) & (places <= side - 0.5)).astype(np.float32)


def _sample(images: Thumbnails, columns: Thumbnails, rows: Thumbnails) -> Thumbnails:
    """Return the thumbnails sampled at these columns and rows, bilinearly; beyond the border the nearest pixel."""
    upright: Thumbnails = np.matmul(_build_weights(rows, images.shape[1]), images)
    sampled: Thumbnails = np.matmul(upright, _build_weights(columns, images.shape[2]).transpose(0, 2, 1))
    return sampled


def _build_weights(places: Thumbnails, side: int) -> Thumbnails:
    inside = np.clip(places, 0, side - 1)[:, :, None]
    weights: Thumbnails = np.maximum(0, 1 - np.abs(inside - np.arange(side, dtype=np.float32)))
    return weights


def _apply_blur(images: Thumbnails, blur: Thumbnails) -> Thumbnails:
    """Return thumbnails blurred along columns and rows by a matrix of `_build_blur`."""
    blurred: Thumbnails = np.matmul(np.matmul(blur, images), blur.T)
    return blurred


def _build_blur(side: int, sigma: float) -> Thumbnails:
    """Return the ``(side, side)`` matrix of a Gaussian blur with the border repeated."""
    kernel = cv2.getGaussianKernel(9, sigma, cv2.CV_32F).ravel()
    matrix = np.zeros((side, side), np.float32)
    for row in range(side):
        for at, weight in enumerate(kernel, start=row - 4):
            matrix[row, min(max(at, 0), side - 1)] += weight
    return matrix
