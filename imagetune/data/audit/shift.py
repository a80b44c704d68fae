"""Whether the splits that the source gives are alike: size, shape, brightness, file type, classes and so on.

A test split taken from elsewhere than the training split may well be right, but then its metrics tell about elsewhere.
Splits that are made here are drawn by chance, and there is nothing to ask.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imagetune.core.multiple_testing import adjust_p_values
from imagetune.data.audit.shortcuts import tell_class
from imagetune.data.findings import CODES, Finding

if TYPE_CHECKING:
    from imagetune.data.audit.image_statistics import ImageFacts
    from imagetune.data.audit.shortcuts import Matrix
    from imagetune.data.sources.catalog import Catalog

# Fewer images of a split than this can't show a difference that is worth telling.
FEWEST = 20
LARGEST_P = 0.01
# With thousands of images, differences become certain that nobody minds: the greatest distance of two distribution
# functions, and half the sum of differences of shares, must reach this.
MIN_DISTANCE = 0.2
# More of a split don't change the prediction, only the time.
MAX = 20_000
# Rarer words are counted as one: the test of shares is not exact for small counts.
_RARE = 10
_MEASURES = ("size", "shape", "brightness", "contrast", "sharpness", "redness", "blueness", "bytes a pixel")


@dataclass(frozen=True, slots=True)
class Difference:
    """One comparison of a split with the training split.

    Attributes:
        what: What was compared.
        distance: Kolmogorov and Smirnov's D of numbers, total variation of words; 0 to 1.
        p: Of the two-sample test.
    """

    what: str
    distance: float
    p: float


def split_shift(catalog: Catalog, facts: Sequence[ImageFacts], families: Sequence[int]) -> Iterator[Finding]:
    """Yield a finding for validation and for test where it differs from training.

    Numbers are compared by the Kolmogorov-Smirnov test, file types, cameras and labels by the chi-squared test, and all
    p-values of a source are corrected by Holm's method. What is told must also be large.

    Args:
        catalog: With the given splits.
        facts: One a record.
        families: For each record the first that is the same image or nearly so; one of each family in each split
            is used.
    """
    places = _places(catalog, facts, families)
    found = {
        other: differences(catalog, facts, places["train"], places[other])
        for other in ("val", "test")
        if min(len(places.get("train", ())), len(places.get(other, ()))) >= FEWEST
    }
    corrected = iter(adjust_p_values([one.p for compared in found.values() for one in compared]))
    for other, compared in found.items():
        adjusted = [(one, next(corrected)) for one in compared]
        told = [one for one, p in adjusted if p <= LARGEST_P and one.distance >= MIN_DISTANCE]
        if told:
            yield _finding(other, told, _told_apart(facts, places["train"], places[other]))


def differences(
    catalog: Catalog, facts: Sequence[ImageFacts], first: Sequence[int], second: Sequence[int]
) -> list[Difference]:
    """Compare the images at two lists of places in every respect; p-values are not corrected."""
    from scipy.stats import ks_2samp

    one, other = measures(facts, first), measures(facts, second)
    pairs = [(what, one[:, column], other[:, column]) for column, what in enumerate(_MEASURES)]
    words = {"file type": [fact.kind for fact in facts], "camera": [fact.camera for fact in facts]}
    labels = [record.label for record in catalog.records]
    if catalog.rule.task == "regression":
        values = np.array([float(label) for label in labels])
        pairs.append(("labels", values[list(first)], values[list(second)]))
    else:
        words["labels"] = labels
    found = []
    for what, ours, theirs in pairs:
        if np.ptp(np.concatenate([ours, theirs])):
            # The exact p takes seconds for thousands of images, and differs little from twenty on.
            test = ks_2samp(ours, theirs, method="asymp")
            found.append(Difference(what, float(test.statistic), float(test.pvalue)))
    for what, every in words.items():
        if compared := share_difference([every[at] for at in first], [every[at] for at in second]):
            found.append(Difference(what, *compared))
    return found


def measures(facts: Sequence[ImageFacts], places: Sequence[int]) -> Matrix:
    """Return the metrics that splits are compared by, ``(len(places), 8)`` float64."""
    rows = []
    for fact in (facts[at] for at in places):
        look = fact.appearance
        if look is None:
            raise ValueError(f"{fact.path} has no appearance: leave bad images out")
        pixels = fact.width * fact.height
        shape = (np.log(pixels), np.log(look.ratio))
        light = (look.brightness, look.contrast, look.sharpness)
        colour = (look.red - look.green, look.blue - look.green)
        rows.append((*shape, *light, *colour, np.log(max(fact.size_bytes, 1) / pixels)))
    return np.array(rows, np.float64).reshape(-1, len(_MEASURES))


def share_difference(first: Sequence[str], second: Sequence[str]) -> tuple[float, float] | None:
    """Return how much the shares of words differ; None where there is but one word.

    Returns:
        Half the sum of the absolute differences of shares (total variation), 0 to 1; p of the chi-squared test. Words
        that are there fewer than ten times are taken as one.
    """
    from scipy.stats import chi2_contingency

    counts = Counter([*first, *second])
    common = sorted(word for word, count in counts.items() if count >= _RARE)
    parts = [Counter(word if counts[word] >= _RARE else None for word in words) for words in (first, second)]
    columns = [*common, None] if any(part[None] for part in parts) else common
    if len(columns) < 2:
        return None
    table = np.array([[part[word] for word in columns] for part in parts])
    shares = table / table.sum(axis=1, keepdims=True)
    return float(np.abs(shares[0] - shares[1]).sum()) / 2, float(chi2_contingency(table).pvalue)


def _places(catalog: Catalog, facts: Sequence[ImageFacts], families: Sequence[int]) -> dict[str, list[int]]:
    first: dict[tuple[str, int], int] = {}
    for at, (record, fact) in enumerate(zip(catalog.records, facts, strict=True)):
        if record.split is not None and fact.comparable:
            first.setdefault((record.split, families[at]), at)
    places: dict[str, list[int]] = {}
    for (split, _), at in first.items():
        places.setdefault(split, []).append(at)
    return {split: _some(found) for split, found in places.items()}


def _some(places: list[int]) -> list[int]:
    if len(places) <= MAX:
        return places
    return sorted(np.random.default_rng(0).choice(places, MAX, replace=False).tolist())


def _told_apart(facts: Sequence[ImageFacts], first: Sequence[int], second: Sequence[int]) -> float | None:
    """Return the balanced accuracy of a small tree that tells the splits apart (Lopez-Paz and Oquab 2017)."""
    features = np.concatenate([measures(facts, first), measures(facts, second)])
    told = tell_class(features, ["train"] * len(first) + ["other"] * len(second))
    return None if told is None else told.score


def _finding(other: str, differences: Sequence[Difference], accuracy: float | None) -> Finding:
    ranked = sorted(differences, key=lambda one: -one.distance)
    listed = ", ".join(f"{one.what} {one.distance:.2f}" for one in ranked)
    explanation = f"distance of the distributions, 0 to 1: {listed}"
    metrics = {one.what: one.distance for one in ranked}
    if accuracy is not None:
        explanation += f"; a small tree tells {other} from train with balanced accuracy {accuracy:.2f} (0.50 by chance)"
        metrics["told_apart"] = accuracy
    title = f"{other} is not like train: {', '.join(one.what for one in ranked)}"
    hint = "if that is not on purpose, split anew: leave the given splits out, or mix the sources"
    return Finding("split-shift", CODES["split-shift"].severity, title, explanation, hint=hint, metrics=metrics)
