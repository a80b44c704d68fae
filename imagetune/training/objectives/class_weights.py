"""Class imbalance: class weights in the loss, and sampling probabilities of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from imagetune.errors import DataError
from imagetune.recipe.problems import suggest_known_word

# Cui et al. 2019 tried 0.9 to 0.9999; with this value classes of a few hundred images still get different weights.
EFFECTIVE_NUMBER_BETA = 0.999


def count_classes(labels: Sequence[str], class_names: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of labels of each class, (k,) int64 in the order of ``class_names``."""
    position = {name: index for index, name in enumerate(class_names)}
    return np.bincount([position[label] for label in labels], minlength=len(class_names)).astype(np.int64)


def class_weights(
    setting: str | Mapping[str, float], counts: NDArray[np.int64], class_names: Sequence[str]
) -> NDArray[np.float32] | None:
    """Return the (k,) weight of each class in the loss, or None when all are 1.

    ``balanced`` is n / (k * count of the class), as in scikit-learn. ``effective_number`` is proportional to (1 - beta)
    / (1 - beta^count) (Cui et al. 2019, arXiv 1901.05555). With both the mean weight of the training images is 1.

    Args:
        setting: ``none``, ``balanced``, ``effective_number``, or a weight by class name; other classes have weight 1.
        counts: (k,) training images of each class.
        class_names: Names of the k classes.

    Raises:
        DataError: A weight for a class that doesn't exist.
    """
    if setting == "none":
        return None
    if isinstance(setting, str):
        # A class without training images would divide by zero; no image uses its weight.
        present = np.maximum(counts, 1)
        rarity = 1.0 / (present if setting == "balanced" else 1.0 - EFFECTIVE_NUMBER_BETA**present)
        weights: NDArray[np.float32] = (rarity * counts.sum() / (rarity * counts).sum()).astype(np.float32)
        return weights
    for name in setting:
        if name not in class_names:
            hint = suggest_known_word(name, class_names)
            raise DataError(f"no class is called {name!r}", where="train.class_weights", hint=hint)
    return np.array([setting.get(name, 1.0) for name in class_names], dtype=np.float32)


def compute_sampling_shares(setting: str, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of an epoch's images that each class gets, (k,) float64 summing to 1.

    Args:
        setting: ``natural`` (proportional to the counts), ``balanced`` (all the same), or ``square_root`` (proportional
            to the square root of the counts, Mahajan et al. 2018, arXiv 1805.00932).
        counts: (k,) training images of each class; one without images gets no share.
    """
    power = {"natural": 1.0, "square_root": 0.5, "balanced": 0.0}[setting]
    weight = np.where(counts > 0, np.maximum(counts, 1).astype(np.float64) ** power, 0.0)
    shares: NDArray[np.float64] = weight / weight.sum()
    return shares


def compute_sampling_weights(
    setting: str, labels: Sequence[str], class_names: Sequence[str]
) -> NDArray[np.float64] | None:
    """Return the sampling probability of each image, (n,) float64 summing to 1; None where each comes once an epoch.

    Args:
        setting: As for ``sampling_shares``.
        labels: Labels of the n images.
        class_names: Names of the k classes.
    """
    if setting == "natural":
        return None
    counts = count_classes(labels, class_names)
    probability = compute_sampling_shares(setting, counts) / np.maximum(counts, 1)
    position = {name: index for index, name in enumerate(class_names)}
    return np.array([probability[position[label]] for label in labels])
