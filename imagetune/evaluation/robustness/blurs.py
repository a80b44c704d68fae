"""Blurs that a lens, a pane or a movement makes, on images of floats: parts of the common corruptions.

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

# Beyond so many deviations a Gaussian trail adds nothing that eight bits could show.
_TRAIL_DEVIATIONS = 4.0


def gaussian_blurred(image: Floats, sigma: float) -> Floats:
    """Return an image (h, w) or (h, w, 3) blurred by a Gaussian of ``sigma`` pixels, edges mirrored."""
    blurred: Floats = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    return blurred


def defocused(image: Floats, radius: float, softness: float) -> Floats:
    """Return an image (h, w, 3) as a lens out of focus draws it: each point becomes a disc.

    Args:
        image: 0..1.
        radius: Of the disc in pixels.
        softness: Deviation in pixels of the Gaussian that smooths the disc's edge.
    """
    reach = int(np.ceil(radius + 3 * softness)) + 1
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    # A pixel that the edge crosses counts by about its covered part, so that small discs differ, too.
    disc = np.clip(radius + 0.5 - np.hypot(rows, columns), 0.0, 1.0)
    disc = gaussian_blurred(disc / disc.sum(), softness)
    return _filtered(image, disc / disc.sum())


def seen_through_glass(
    image: Floats, *, sigma: float, reach: int, rounds: int, generator: np.random.Generator
) -> Floats:
    """Return an image (h, w, 3) as seen through frosted glass: blurred, pixels swapped nearby, and blurred again.

    Pixels of one round are swapped in an order in which those that are handled together can't meet; the result is as
    random as from row to row, and needs no loop over pixels.

    Args:
        image: 0..1.
        sigma: Of both blurs, in pixels.
        reach: How far a pixel moves at most, at least 1.
        rounds: How often every pixel is swapped.
        generator: Draws where to.
    """
    mixed = gaussian_blurred(image, sigma)
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
    return gaussian_blurred(mixed, sigma)


def motion_blurred(image: Floats, *, length: float, sigma: float, degrees: float) -> Floats:
    """Return an image (h, w) or (h, w, 3) drawn along a line, as by a hand that moves.

    The trail lies on one side of each point and fades like half a Gaussian.

    Args:
        image: 0..1.
        length: Of the trail in pixels.
        sigma: Deviation of the Gaussian in pixels.
        degrees: Direction, counter-clockwise from the right.
    """
    length = min(length, _TRAIL_DEVIATIONS * sigma)
    steps = np.arange(0.0, length + 1e-6, 0.5)
    reach = int(np.ceil(length)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    angle = np.deg2rad(degrees)
    for step, weight in zip(steps, np.exp(-0.5 * (steps / sigma) ** 2), strict=True):
        _drop(kernel, reach - step * np.sin(angle), reach + step * np.cos(angle), float(weight))
    return _filtered(image, kernel / kernel.sum())


def zoom_blurred(image: Floats, factors: Sequence[float]) -> Floats:
    """Return the mean of an image (h, w, 3) and its middle enlarged by each factor, as by a zoom while exposing."""
    total = image.copy()
    for factor in factors:
        total += enlarged(image, factor)
    return total / np.float32(len(factors) + 1)


def enlarged(image: Floats, factor: float) -> Floats:
    """Return the middle of an image (h, w) or (h, w, 3) enlarged by ``factor`` to its old size, bilinearly."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 0.0, factor)
    shown: Floats = cv2.warpAffine(
        image, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return shown


def _filtered(image: Floats, kernel: Floats) -> Floats:
    filtered: Floats = cv2.filter2D(image, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT_101)
    return filtered


def _drop(kernel: Floats, row: float, column: float, weight: float) -> None:
    """Add a weight between four cells of a kernel, by its distance from them."""
    top, left = int(np.floor(row)), int(np.floor(column))
    down, right = row - top, column - left
    for at_row, by_row in ((top, 1 - down), (top + 1, down)):
        for at_column, by_column in ((left, 1 - right), (left + 1, right)):
            kernel[at_row, at_column] += weight * by_row * by_column
