"""Blended images with blended labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imagetune.recipe.learning import MixConfig

Images = NDArray[np.uint8]
Targets = NDArray[np.float32]


def mix_batch(
    images: Images, targets: Targets, config: MixConfig, random: np.random.Generator
) -> tuple[Images, Targets]:
    """Return images that are each blended with another one of the batch, and their labels blended alike.

    mixup (Zhang et al. 2018, arXiv 1710.09412) takes a weighted mean of the pixels; CutMix (Yun et al. 2019,
    arXiv 1905.04899) pastes a rectangle and weighs the labels by area.

    Args:
        images: (b, height, width, 3) uint8.
        targets: (b, t) labels; rows that sum to one still do afterwards.
        config: Which of the two, how strongly, how often.
        random: Source of all choices.

    Returns:
        New arrays of the same shapes and dtypes; the given ones where the batch is left alone.
    """
    if config.name == "none" or len(images) < 2 or random.random() >= config.probability:
        return images, targets
    kind = random.choice(["mixup", "cutmix"]) if config.name == "both" else config.name
    partner = random.permutation(len(images))
    kept = random.beta(config.alpha, config.alpha, len(images))
    if kind == "cutmix":
        images, kept = _cut(images, partner, kept, random)
    else:
        images = _blend(images, partner, kept)
    share = kept[:, None].astype(np.float32)
    return images, share * targets + (1.0 - share) * targets[partner]


def _blend(images: Images, partner: NDArray[np.int64], kept: NDArray[np.float64]) -> Images:
    share = kept.astype(np.float32)[:, None, None, None]
    return np.rint(share * images + (1.0 - share) * images[partner]).astype(np.uint8)


def _cut(
    images: Images, partner: NDArray[np.int64], kept: NDArray[np.float64], random: np.random.Generator
) -> tuple[Images, NDArray[np.float64]]:
    """Paste a rectangle of 1 - kept of the area, cut off at the border; return the shares really kept, too."""
    height, width = images.shape[1:3]
    result, shares = images.copy(), np.empty(len(images))
    for index, share in enumerate(kept):
        half = 0.5 * np.sqrt(1.0 - share)
        row, column = random.random(2)
        top, bottom = (round(float(np.clip(row + side * half, 0, 1)) * height) for side in (-1, 1))
        left, right = (round(float(np.clip(column + side * half, 0, 1)) * width) for side in (-1, 1))
        # From the images as they came: a partner may have been pasted over already.
        result[index, top:bottom, left:right] = images[partner[index], top:bottom, left:right]
        shares[index] = 1.0 - (bottom - top) * (right - left) / (height * width)
    return result, shares
