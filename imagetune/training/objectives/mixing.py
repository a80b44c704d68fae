"""Mixup and CutMix: images of a batch blended with each other, and their labels alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imagetune.recipe.sections.learning import MixConfig

Images = NDArray[np.uint8]
Targets = NDArray[np.float32]


def mix_batch(
    images: Images, targets: Targets, config: MixConfig, random: np.random.Generator
) -> tuple[Images, Targets]:
    """Return the images of a batch, each blended with another one by mixup or CutMix, and their labels blended alike.

    Mixup (Zhang et al. 2018, arXiv 1710.09412) takes a weighted mean of the pixels; CutMix (Yun et al. 2019,
    arXiv 1905.04899) pastes a rectangle and weighs the labels by area.

    Args:
        images: (b, height, width, 3) uint8.
        targets: (b, t) labels; rows that sum to one still do afterwards.
        config: Kind, strength and share of the batches.
        random: Generator of all random choices.

    Returns:
        New arrays of the same shapes and dtypes; the arguments themselves where the batch isn't blended.
    """
    if config.name == "none" or len(images) < 2 or random.random() >= config.probability:
        return images, targets
    kind = random.choice(["mixup", "cutmix"]) if config.name == "both" else config.name
    partner = random.permutation(len(images))
    kept = random.beta(config.alpha, config.alpha, len(images))
    if kind == "cutmix":
        images, kept = _apply_cutmix(images, partner, kept, random)
    else:
        images = _apply_mixup(images, partner, kept)
    share = kept[:, None].astype(np.float32)
    return images, share * targets + (1.0 - share) * targets[partner]


def _apply_mixup(images: Images, partner: NDArray[np.int64], kept: NDArray[np.float64]) -> Images:
    share = kept.astype(np.float32)[:, None, None, None]
    # astype alone would cut off, which darkens images by half a level on average.
    return np.rint(share * images + (1.0 - share) * images[partner]).astype(np.uint8)


def _apply_cutmix(
    images: Images, partner: NDArray[np.int64], kept: NDArray[np.float64], random: np.random.Generator
) -> tuple[Images, NDArray[np.float64]]:
    """Return images with a rectangle of 1 - kept of the area pasted from partners, and the shares really kept.

    A rectangle is clipped at the border, so that it may be smaller than drawn.
    """
    height, width = images.shape[1:3]
    result, shares = images.copy(), np.empty(len(images))
    for index, share in enumerate(kept):
        half = 0.5 * np.sqrt(1.0 - share)
        row, column = random.random(2)
        top, bottom = (round(float(np.clip(row + side * half, 0, 1)) * height) for side in (-1, 1))
        left, right = (round(float(np.clip(column + side * half, 0, 1)) * width) for side in (-1, 1))
        # From the original images: the partner's copy may have been pasted over already.
        result[index, top:bottom, left:right] = images[partner[index], top:bottom, left:right]
        shares[index] = 1.0 - (bottom - top) * (right - left) / (height * width)
    return result, shares
