"""Distribution shift between given splits: image statistics and labels of validation and test against training.

A test split from another source than the training split may be intended, but then its metrics describe that other
source. Splits made by imagetune are drawn at random, so they need no such test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imagetune.core.multiple_testing import adjust_p_values
from imagetune.data.audit.shortcuts import score_class_prediction
from imagetune.data.findings import CODES, Finding

if TYPE_CHECKING:
    from imagetune.data.audit.image_statistics import ImageStatistics
    from imagetune.data.audit.shortcuts import Matrix
    from imagetune.data.sources.catalog import Catalog

# Splits with fewer images than this lack the power to show a relevant difference.
MIN_IMAGES = 20
MAX_P = 0.01
# With thousands of images irrelevant differences become statistically significant, so the effect size counts too:
# Kolmogorov and Smirnov's D, or the total variation distance of shares, must reach this.
MIN_DISTANCE = 0.2
# More images of a split than this change the time, but not the result.
MAX_IMAGES = 20_000
# Rarer values are counted as one: the chi-squared test is not exact for small counts.
_MIN_COUNT = 10
_FEATURES = ("size", "shape", "brightness", "contrast", "sharpness", "redness", "blueness", "bytes a pixel")


@dataclass(frozen=True, slots=True)
class Difference:
    """Comparison of one property between a split and the training split.

    Attributes:
        what: The property that was compared.
        distance: Kolmogorov and Smirnov's D for numbers, total variation distance for categories; 0 to 1.
        p: p-value of the two-sample test, not corrected.
    """

    what: str
    distance: float
    p: float


def find_split_shift(
    catalog: Catalog, statistics: Sequence[ImageStatistics], duplicate_groups: Sequence[int]
) -> Iterator[Finding]:
    """Yield a finding for validation and for test where its distribution differs from that of training.

    Numbers are compared by the Kolmogorov-Smirnov test, file types, cameras and labels by the chi-squared test, and all
    p-values of a source are corrected by Holm's method. A reported difference is both significant and large.

    Args:
        catalog: The records with the splits that the source gives.
        statistics: The image statistics of each record.
        duplicate_groups: The near-duplicate group of each record; one image of each is used in each split, because the
            tests assume independent images.
    """
    places = _select_places(catalog, statistics, duplicate_groups)
    found = {
        other: compare_splits(catalog, statistics, places["train"], places[other])
        for other in ("val", "test")
        if min(len(places.get("train", ())), len(places.get(other, ()))) >= MIN_IMAGES
    }
    corrected = iter(adjust_p_values([one.p for compared in found.values() for one in compared]))
    for other, compared in found.items():
        adjusted = [(one, next(corrected)) for one in compared]
        reported = [one for one, p in adjusted if p <= MAX_P and one.distance >= MIN_DISTANCE]
        if reported:
            yield _build_finding(other, reported, _score_split_classifier(statistics, places["train"], places[other]))


def compare_splits(
    catalog: Catalog, statistics: Sequence[ImageStatistics], first: Sequence[int], second: Sequence[int]
) -> list[Difference]:
    """Return the comparisons of two sets of images, given by their positions, in every property that varies."""
    from scipy.stats import ks_2samp

    one, other = compute_split_features(statistics, first), compute_split_features(statistics, second)
    pairs = [(what, one[:, column], other[:, column]) for column, what in enumerate(_FEATURES)]
    words = {"file type": [image.kind for image in statistics], "camera": [image.camera for image in statistics]}
    labels = [record.label for record in catalog.records]
    if catalog.rule.task == "regression":
        values = np.array([float(label) for label in labels])
        pairs.append(("labels", values[list(first)], values[list(second)]))
    else:
        words["labels"] = labels
    found = []
    for what, ours, theirs in pairs:
        if np.ptp(np.concatenate([ours, theirs])):
            # The exact p-value takes seconds for thousands of images and differs little from twenty images on.
            test = ks_2samp(ours, theirs, method="asymp")
            found.append(Difference(what, float(test.statistic), float(test.pvalue)))
    for what, every in words.items():
        if compared := compare_shares([every[at] for at in first], [every[at] for at in second]):
            found.append(Difference(what, *compared))
    return found


def compute_split_features(statistics: Sequence[ImageStatistics], places: Sequence[int]) -> Matrix:
    """Return the features that splits are compared by, ``(len(places), 8)`` float64."""
    rows = []
    for image in (statistics[at] for at in places):
        appearance = image.appearance
        if appearance is None:
            raise ValueError(f"{image.path} has no appearance: leave unusable images out")
        pixels = image.width * image.height
        shape = (np.log(pixels), np.log(appearance.ratio))
        light = (appearance.brightness, appearance.contrast, appearance.sharpness)
        colour = (appearance.red - appearance.green, appearance.blue - appearance.green)
        rows.append((*shape, *light, *colour, np.log(max(image.size_bytes, 1) / pixels)))
    return np.array(rows, np.float64).reshape(-1, len(_FEATURES))


def compare_shares(first: Sequence[str], second: Sequence[str]) -> tuple[float, float] | None:
    """Return how much the shares of categories differ between two samples; None where there is only one category.

    Returns:
        The total variation distance (half the sum of the absolute differences of shares), 0 to 1, and the p-value of
        the chi-squared test. Categories that occur fewer than ten times are counted as one.
    """
    from scipy.stats import chi2_contingency

    counts = Counter([*first, *second])
    common = sorted(word for word, count in counts.items() if count >= _MIN_COUNT)
    tallies = [Counter(word if counts[word] >= _MIN_COUNT else None for word in words) for words in (first, second)]
    columns = [*common, None] if any(tally[None] for tally in tallies) else common
    if len(columns) < 2:
        return None
    table = np.array([[tally[word] for word in columns] for tally in tallies])
    shares = table / table.sum(axis=1, keepdims=True)
    return float(np.abs(shares[0] - shares[1]).sum()) / 2, float(chi2_contingency(table).pvalue)


def _select_places(
    catalog: Catalog, statistics: Sequence[ImageStatistics], duplicate_groups: Sequence[int]
) -> dict[str, list[int]]:
    first: dict[tuple[str, int], int] = {}
    for at, (record, image) in enumerate(zip(catalog.records, statistics, strict=True)):
        if record.split is not None and image.comparable:
            first.setdefault((record.split, duplicate_groups[at]), at)
    places: dict[str, list[int]] = {}
    for (split, _), at in first.items():
        places.setdefault(split, []).append(at)
    return {split: _limit(found) for split, found in places.items()}


def _limit(places: list[int]) -> list[int]:
    if len(places) <= MAX_IMAGES:
        return places
    return sorted(np.random.default_rng(0).choice(places, MAX_IMAGES, replace=False).tolist())


def _score_split_classifier(
    statistics: Sequence[ImageStatistics], first: Sequence[int], second: Sequence[int]
) -> float | None:
    """Return the balanced accuracy of a small tree that predicts an image's split; None with too few images.

    Classifier two-sample test: Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests", 2017.
    """
    features = np.concatenate([compute_split_features(statistics, first), compute_split_features(statistics, second)])
    score = score_class_prediction(features, ["train"] * len(first) + ["other"] * len(second))
    return None if score is None else score.score


def _build_finding(other: str, compare_splits: Sequence[Difference], accuracy: float | None) -> Finding:
    ranked = sorted(compare_splits, key=lambda one: -one.distance)
    listed = ", ".join(f"{one.what} {one.distance:.2f}" for one in ranked)
    explanation = f"distance between the distributions, from 0 to 1: {listed}"
    metrics = {one.what: one.distance for one in ranked}
    if accuracy is not None:
        explanation += f"; a small decision tree distinguishes {other} from train with balanced accuracy {accuracy:.2f}"
        metrics["classifier_accuracy"] = accuracy
    title = f"{other} differs from train in {', '.join(one.what for one in ranked)}"
    hint = "if this is not intended, mix the sources, or drop the given splits so that imagetune makes new ones"
    return Finding("split-shift", CODES["split-shift"].severity, title, explanation, hint=hint, metrics=metrics)
