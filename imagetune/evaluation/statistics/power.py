"""Power analysis of a test split: its minimum detectable difference between two models, and gaps between splits.

Two models are compared on the same images, so only the discordant images count: those on which just one of the two is
right. Their share isn't known before there is a second model. It is assumed that the second model is wrong about as
often, and shares half of these mistakes; the power of McNemar's test then follows from Connor's formula (Biometrics 43,
1987). Regression models are compared by their paired absolute errors, which are assumed to correlate by one half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import ceil, sqrt
from typing import Any

from imagetune.evaluation.statistics.intervals import Estimate
from imagetune.evaluation.statistics.paired_tests import (
    POWER,
    compute_detectable_deviations,
    compute_images_needed,
    compute_min_detectable_difference,
)
from imagetune.evaluation.statistics.verdict import subtract_estimates

# Two differences that people ask about: a small improvement, and one that nobody would want to miss.
DIFFERENCES = (0.02, 0.05)
# The same two for regression, as shares of the mean absolute error, because labels come in any unit.
ERROR_SHARES = (0.05, 0.1)
# Assumed, as there is no second model yet. The more mistakes two models share, the fewer images are discordant, and the
# smaller a difference the test detects.
SHARED_MISTAKES = 0.5


def describe_gaps(metrics: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
    """Return the differences between splits with their intervals, as JSON values.

    Args:
        metrics: The headline metrics of each split, in the order train, val, test.

    Returns:
        By ``train_val``, ``train_test`` and ``val_test``, where both are there: each metric of the first split minus
        that of the second.
    """
    return {
        f"{first}_{second}": {
            name: subtract_estimates(one, metrics[second][name]).to_dict()
            for name, one in metrics[first].items()
            if one.value is not None and name in metrics[second] and metrics[second][name].value is not None
        }
        for first, second in combinations(metrics, 2)
    }


def describe_power(right: Estimate, images: int, *, confidence: float) -> dict[str, Any] | None:
    """Return the power analysis of a classification test: its minimum detectable difference, and images needed.

    Args:
        right: Share of test images that are predicted correctly, with its interval.
        images: Number of test images.
        confidence: One minus the significance level of the test.

    Returns:
        ``images``, ``power``, ``level``, ``discordant`` (assumed share of images on which just one of two models is
        right), ``min_detectable_difference``, ``needed`` (a list of ``difference`` and ``images``) and ``text``;
        None if accuracy is not defined.
    """
    if right.value is None:
        return None
    # A test without a mistake would claim to detect any difference: the interval's pessimistic end stands in.
    wrong = 1 - right.value or 1 - (right.low or 0.0)
    # Twice, as an image is discordant where either of the two models makes a mistake that the other doesn't make.
    discordant = 2 * (1 - SHARED_MISTAKES) * wrong
    needed = [
        {"difference": points, "images": _needed(points, discordant, confidence=confidence)} for points in DIFFERENCES
    ]
    detectable = compute_min_detectable_difference(images, discordant, confidence=confidence)
    amounts = _describe_needed([(f"{100 * row['difference']:g} points", row["images"]) for row in needed])
    return {
        "images": images,
        "power": POWER,
        # Rounded, as 1 - 0.95 isn't 0.05 in binary.
        "level": round(1 - confidence, 9),
        "discordant": discordant,
        "min_detectable_difference": detectable,
        "needed": needed,
        "text": (
            f"With {images:,} test images, the minimum detectable difference between two models like this one is about "
            f"{100 * detectable:.1f} points. {amounts} "
            f"(McNemar's test with {POWER:.0%} power, assuming that the two models share half of their mistakes)."
        ),
    }


def describe_regression_power(
    mae: Estimate, rmse: Estimate, images: int, *, confidence: float
) -> dict[str, Any] | None:
    """Return the power analysis of a regression test: the minimum detectable difference of mean absolute errors.

    Two models are compared by their paired errors. It is assumed that the other model's errors vary as much, and
    correlate with this one's by half, so that their difference has the standard deviation of the errors themselves.

    Args:
        mae: Mean absolute error on the test.
        rmse: Root mean squared error.
        images: Number of test images.
        confidence: One minus the significance level of the test.

    Returns:
        ``images``, ``power``, ``level``, ``min_detectable_difference`` and ``needed`` in the labels' units, with their
        share of the error, and ``text``; None if there is no error to speak of, or fewer than two images.
    """
    if not mae.value or not rmse.value or images < 2:
        return None
    # The variance of absolute errors follows from both metrics: E[e^2] - E[|e|]^2.
    spread = sqrt(max(0.0, rmse.value**2 - mae.value**2) * 2 * (1 - SHARED_MISTAKES))
    reach = compute_detectable_deviations(confidence=confidence) * spread
    detectable = reach / sqrt(images)
    needed = [
        {"share": share, "difference": share * mae.value, "images": ceil((reach / (share * mae.value)) ** 2)}
        for share in ERROR_SHARES
    ]
    amounts = _describe_needed([(f"{100 * row['share']:g}%", row["images"]) for row in needed])
    return {
        "images": images,
        "power": POWER,
        "level": round(1 - confidence, 9),
        "min_detectable_difference": detectable,
        "share_of_error": detectable / mae.value,
        "needed": needed,
        "text": (
            f"With {images:,} test images, the minimum detectable difference between the mean absolute errors of two "
            f"models like this one is about {detectable:.3g}, {100 * detectable / mae.value:.0f}% of this model's. "
            f"{amounts} "
            f"(paired test with {POWER:.0%} power, assuming that the errors of the two models correlate by 0.5)."
        ),
    }


def _needed(points: float, discordant: float, *, confidence: float) -> int:
    # A difference can't be larger than the share of images that make it.
    found = compute_images_needed(points, max(discordant, points), confidence=confidence)
    return round(found or 0)


def _describe_needed(needed: Sequence[tuple[str, float]]) -> str:
    """Return how many images would detect each difference, in words.

    Two digits claim no more precision than the assumption about the second model has.
    """
    (first, images), *others = [(amount, f"{float(f'{count:.2g}'):,.0f}") for amount, count in needed]
    more = "".join(f" and {amount} about {count}" for amount, count in others)
    return f"Detecting {first} would take about {images} images{more}"
