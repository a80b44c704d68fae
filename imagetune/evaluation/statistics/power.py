"""What a test can tell apart: the gaps between the splits, and how large a difference of two models must be.

Two models are compared on the same images, so that only the images matter on which just one of them is right. How
many those will be isn't known before there is a second model. It is assumed that the other one is about as often wrong,
and shares half of these mistakes; McNemar's test and Connor's formula (Biometrics 43, 1987) say the rest. Numbers are
compared by their paired absolute errors, of which the like is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import ceil, sqrt
from typing import Any

from imagetune.evaluation.statistics.intervals import Estimate
from imagetune.evaluation.statistics.paired_tests import (
    POWER,
    deviations_to_tell,
    images_to_tell,
    min_detectable_difference,
)
from imagetune.evaluation.statistics.verdict import difference

# Two differences that people ask about: a small improvement, and one that nobody would want to miss.
DIFFERENCES = (0.02, 0.05)
# The same of errors of numbers, as shares of the mean one.
ERROR_SHARES = (0.05, 0.1)
SHARED_MISTAKES = 0.5


def gap_documents(metrics: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
    """Return the differences between splits with their intervals, as JSON values.

    Args:
        metrics: The headline metrics of each split, in the order train, val, test.

    Returns:
        By ``train_val``, ``train_test`` and ``val_test``, where both are there: each metric of the first split minus
        that of the second.
    """
    return {
        f"{first}_{second}": {
            name: difference(one, metrics[second][name]).to_dict()
            for name, one in metrics[first].items()
            if one.value is not None and name in metrics[second] and metrics[second][name].value is not None
        }
        for first, second in combinations(metrics, 2)
    }


def resolution_document(right: Estimate, images: int, *, confidence: float) -> dict[str, Any] | None:
    """Return how different two models must be for this test to tell, and how many images it would take.

    Args:
        right: Share of test images that are right, with its interval.
        images: Test images.
        confidence: One minus the level of the test.

    Returns:
        ``images``, ``power``, ``level``, ``discordant`` (share of images on which just one of two models is right,
        as assumed), ``min_detectable_difference``, ``needed`` (a list of ``difference`` and ``images``) and ``text``;
        None without a metric.
    """
    if right.value is None:
        return None
    # Without a mistake among few images there may be some among others.
    wrong = 1 - right.value or 1 - (right.low or 0.0)
    discordant = 2 * (1 - SHARED_MISTAKES) * wrong
    needed = [
        {"difference": points, "images": _needed(points, discordant, confidence=confidence)} for points in DIFFERENCES
    ]
    least = min_detectable_difference(images, discordant, confidence=confidence)
    return {
        "images": images,
        "power": POWER,
        "level": round(1 - confidence, 9),
        "discordant": discordant,
        "min_detectable_difference": least,
        "needed": needed,
        "text": _text(images, least, needed),
    }


def value_resolution_document(
    mae: Estimate, rmse: Estimate, images: int, *, confidence: float
) -> dict[str, Any] | None:
    """Return how different the mean absolute errors of two models must be for this test to tell.

    Two models are compared by their paired errors. It is assumed that the other one's vary as much, and correlate with
    this one's by half, so that their difference has the standard deviation of the errors themselves.

    Args:
        mae: Mean absolute error on the test.
        rmse: Root mean squared error.
        images: Test images.
        confidence: One minus the level of the test.

    Returns:
        ``images``, ``power``, ``level``, ``min_detectable_difference`` and ``needed`` in the labels' units, with their
        share of the error, and ``text``; None without an error.
    """
    if not mae.value or not rmse.value or images < 2:
        return None
    spread = sqrt(max(0.0, rmse.value**2 - mae.value**2) * 2 * (1 - SHARED_MISTAKES))
    reach = deviations_to_tell(confidence=confidence) * spread
    least = reach / sqrt(images)
    needed = [
        {"share": share, "difference": share * mae.value, "images": ceil((reach / (share * mae.value)) ** 2)}
        for share in ERROR_SHARES
    ]
    told = [f"{_rounded(row['images'])} for {100 * row['share']:g}%" for row in needed]
    return {
        "images": images,
        "power": POWER,
        "level": round(1 - confidence, 9),
        "min_detectable_difference": least,
        "share_of_error": least / mae.value,
        "needed": needed,
        "text": (
            f"With {images:,} test images, two models like this one can be told apart if their mean absolute "
            f"errors differ by about {least:.3g}, {100 * least / mae.value:.0f}% of this one's; it would take about "
            f"{' and '.join(told)} of it (found four times of five by paired errors, if those of both correlate by "
            "half)."
        ),
    }


def _needed(points: float, discordant: float, *, confidence: float) -> int:
    # A difference can't be larger than the share of images that make it.
    found = images_to_tell(points, max(discordant, points), confidence=confidence)
    return round(found or 0)


def _text(images: int, least: float, needed: list[dict[str, float]]) -> str:
    told = [f"{_rounded(row['images'])} for {100 * row['difference']:g} points" for row in needed]
    return (
        f"With {images:,} test images, two models like this one can be told apart if they differ by about "
        f"{100 * least:.1f} points; it would take about {' and '.join(told)} (found four times of five by McNemar's "
        "test, if half of the mistakes are shared)."
    )


def _rounded(count: float) -> str:
    """Return a number that claims no more digits than the assumption has."""
    return f"{float(f'{count:.2g}'):,.0f}"
