"""Blur corruptions on float images: Gaussian, defocus, frosted glass, motion and zoom.

Lengths are in pixels of the image at hand; the parameters of Hendrycks and Dietterich (ICLR 2019) are for 224 pixels,
and `imagetune.evaluation.robustness.corruptions` scales them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]

# Beyond this many standard deviations a Gaussian trail adds nothing that eight bits could show.
_TRAIL_DEVIATIONS = 4.0


def blur_gaussian(image: Floats, sigma: float) -> Floats:
    """Return an image (h, w) or (h, w, 3) blurred by a Gaussian of ``sigma`` pixels, edges mirrored."""
    blurred: Floats = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    return blurred


def blur_defocus(image: Floats, radius: float, softness: float) -> Floats:
    """Return an image (h, w, 3) with defocus blur: each point becomes a disc, as with a lens out of focus.

    Args:
        image: Pixel values in 0..1.
        radius: Radius of the disc in pixels.
        softness: Standard deviation in pixels of the Gaussian that smooths the disc's edge.
    """
    # Three standard deviations hold 99.7% of the edge's Gaussian.
    reach = int(np.ceil(radius + 3 * softness)) + 1
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    # A pixel that the edge crosses counts by about its covered part, so that small discs differ, too.
    disc = np.clip(radius + 0.5 - np.hypot(rows, columns), 0.0, 1.0)
    disc = blur_gaussian(disc / disc.sum(), softness)
    return _apply_kernel(image, disc / disc.sum())


def blur_glass(image: Floats, *, sigma: float, reach: int, rounds: int, generator: np.random.Generator) -> Floats:
    """Return an image (h, w, 3) with glass blur: blurred, nearby pixels swapped, and blurred again.

    Pixels that are swapped at once lie too far apart to meet; the result is as random as swapping row by row, and needs
    no loop over pixels.

    Args:
        image: Pixel values in 0..1.
        sigma: Standard deviation of both blurs, in pixels.
        reach: Largest distance that a pixel moves in each direction, at least 1.
        rounds: How often every pixel is swapped.
        generator: Draws the distances.
    """
    mixed = blur_gaussian(image, sigma)
    height, width = mixed.shape[:2]
    apart = 2 * reach + 1
    for _ in range(rounds):
        for place in generator.permutation(apart * apart):
            first_row, first_column = divmod(int(place), apart)
            rows = np.arange(reach + first_row, height - reach, apart)[:, None]
            columns = np.arange(reach + first_column, width - reach, apart)[None]
            steps = generator.integers(-reach, reach, (2, rows.size, columns.size))
            there = rows + steps[0], columns + steps[1]
            mixed[rows, columns], mixed[there] = mixed[there], mixed[rows, columns]
    return blur_gaussian(mixed, sigma)


def blur_motion(image: Floats, *, length: float, sigma: float, degrees: float) -> Floats:
    """Return an image (h, w) or (h, w, 3) with motion blur along a line, as by a moving hand.

    The trail lies on one side of each point and fades like half a Gaussian.

    Args:
        image: Pixel values in 0..1.
        length: Length of the trail in pixels.
        sigma: Standard deviation of the Gaussian in pixels.
        degrees: Direction of the trail, counter-clockwise from the right.
    """
    length = min(length, _TRAIL_DEVIATIONS * sigma)
    # Half a pixel apart, so that a slanted trail has no gaps.
    steps = np.arange(0.0, length + 1e-6, 0.5)
    reach = int(np.ceil(length)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    angle = np.deg2rad(degrees)
    for step, weight in zip(steps, np.exp(-0.5 * (steps / sigma) ** 2), strict=True):
        _add_weight(kernel, reach - step * np.sin(angle), reach + step * np.cos(angle), float(weight))
    return _apply_kernel(image, kernel / kernel.sum())


def blur_zoom(image: Floats, factors: Sequence[float]) -> Floats:
    """Return an image (h, w, 3) with zoom blur: the mean of the image and its centre enlarged by each factor."""
    total = image.copy()
    for factor in factors:
        total += enlarge_middle(image, factor)
    return total / np.float32(len(factors) + 1)


def enlarge_middle(image: Floats, factor: float) -> Floats:
    """Return the centre of an image (h, w) or (h, w, 3), enlarged bilinearly by ``factor`` to the image's size."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 0.0, factor)
    shown: Floats = cv2.warpAffine(
        image, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return shown


def _apply_kernel(image: Floats, kernel: Floats) -> Floats:
    # Mirrored, as black beyond the edges would darken the border besides.
    filtered: Floats = cv2.filter2D(image, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT_101)
    return filtered


def _add_weight(kernel: Floats, row: float, column: float, weight: float) -> None:
    """Add a weight at a fractional position of a kernel, split bilinearly among its four cells."""
    # Rounding to whole cells would give nearby angles the same trail.
    top, left = int(np.floor(row)), int(np.floor(column))
    down, right = row - top, column - left
    for at_row, by_row in ((top, 1 - down), (top + 1, down)):
        for at_column, by_column in ((left, 1 - right), (left + 1, right)):
            kernel[at_row, at_column] += weight * by_row * by_column
