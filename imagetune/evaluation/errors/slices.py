"""Slices (subgroups) of the test on which the model is significantly worse than on the rest.

The images of a slice share a value: of a column of the table (``data.columns.slices``), or a third of the numbers in
such a column, of size, brightness or sharpness; or they share two such values. Each slice is tested against the rest
by Fisher's exact test, one-sided. Among many slices one always looks bad, so p-values are corrected by Holm's method
over all tested slices; which slices are tested depends on how many images they have, never on the predictions, so that
the choice doesn't bias the tests. A slice may only look bad because the hard classes are in it: the same exact test
within each class (the conditional test behind Cochran, Mantel and Haenszel's: Agresti, Categorical Data Analysis, 2013,
section 7.3) rules that out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import hypergeom

from imagetune.core.multiple_testing import adjust_p_values
from imagetune.data.audit.image_statistics import ImageStatistics
from imagetune.data.audit.inspection import inspect_images
from imagetune.data.sources.records import Record
from imagetune.evaluation.context import EvaluatedSplit
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.intervals import estimate_share
from imagetune.evaluation.statistics.verdict import subtract_estimates
from imagetune.recipe.sections.data import DataConfig

LEVEL = 0.05
# Fewer images, inside or outside, can hardly differ significantly, and each further test costs the others power.
MIN = 5
MIN_PAIRS = 10
# Limits on the number of tests, for the same reason: the most frequent values, and the largest pairs.
MAX_VALUES = 30
MAX_PAIRS = 100
# A column of numbers with fewer distinct values is taken for categories, such as a camera's number.
_NUMBERS_FROM = 8
# Above this variance the normal approximation with continuity correction is as good as the exact distribution.
_COUNTED_UP_TO = 100.0
_THIRDS = ("low", "middle", "high")

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Slice:
    """A slice (subgroup) of the test images.

    Attributes:
        name: What the images share, in words.
        attributes: Names of the one or two attributes that define the slice.
        inside: (n,) which images are in the slice.
    """

    name: str
    attributes: tuple[str, ...]
    inside: Bools


def find_correct_predictions(predictions: Predictions) -> Bools:
    """Return which predictions are right, (n,) bool; for multi_label those with all labels right."""
    if predictions.rule.task == "multi_label":
        exact: Bools = ((predictions.targets >= 0.5) == predictions.given).all(axis=1)
        return exact
    return np.asarray(predictions.predicted == predictions.labels)


def collect_attributes(split: EvaluatedSplit, config: DataConfig) -> dict[str, NDArray[Any]]:
    """Return the attributes that images are sliced by: texts or numbers (n,) by name; NaN or "" where unknown.

    Size is the geometric mean of width and height in pixels. Brightness and sharpness are image statistics of the data
    check, which reads each file once and caches them.
    """
    columns = {
        name: parse_column([dict(record.slices).get(name, "") for record in split.records])
        for name in config.columns.slices
    }
    statistics = _read_image_statistics(split.records, config)
    appearances = [None if one is None else one.appearance for one in statistics]
    return columns | {
        "size": np.array([np.nan if one is None else (one.width * one.height) ** 0.5 for one in statistics]),
        "brightness": np.array([np.nan if one is None else one.brightness for one in appearances]),
        "sharpness": np.array([np.nan if one is None else one.sharpness for one in appearances]),
    }


def parse_column(cells: Sequence[str]) -> NDArray[Any]:
    """Return a column's cells (n,) as numbers where all are numbers with many distinct values, else as texts."""
    try:
        numbers = np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError:
        return np.array(cells, dtype=object)
    known = numbers[np.isfinite(numbers)]
    return numbers if len(np.unique(known)) >= _NUMBERS_FROM else np.array(cells, dtype=object)


def compare_slices(
    right: Bools,
    classes: NDArray[np.int64],
    attributes: Mapping[str, NDArray[Any]],
    *,
    confidence: float,
    grouped: bool,
) -> dict[str, Any] | None:
    """Return every slice compared with the rest; see `imagetune.evaluation.errors.slices_part` for the document.

    Args:
        right: (n,) which predictions are right.
        classes: (n,) class of each image; any one number where there are no classes.
        attributes: Texts or numbers (n,) by name.
        confidence: Coverage of the intervals.
        grouped: Whether images come in groups, which the tests ignore.
    """
    found = list_slices(attributes)
    if not found:
        return None
    one_stratum = np.zeros(len(right), np.int64)
    plain = [compute_worse_p_value(right, one.inside, one_stratum) for one in found]
    within = [compute_worse_p_value(right, one.inside, classes) for one in found]
    rows = [
        _describe_slice(one, right, classes, confidence)
        | {"p": p, "p_holm": held, "p_classes": q, "p_classes_holm": kept}
        for one, p, held, q, kept in zip(
            found, plain, adjust_p_values(plain), within, adjust_p_values(within), strict=True
        )
    ]
    for row in rows:
        row |= {"worse": row["p_holm"] < LEVEL, "worse_classes": row["p_classes_holm"] < LEVEL}
    # By the uncorrected p, as Holm's correction makes many of them 1.
    rows.sort(key=lambda row: (row["p"], row["difference"]["value"]))
    return {
        "images": len(right),
        "right": float(right.mean()),
        "looked_at": len(rows),
        "attributes": list(dict.fromkeys(name for one in found for name in one.attributes)),
        "text": _summarise(rows, len(right), several_classes=len(np.unique(classes)) > 1),
        "notes": list_slice_notes(grouped=grouped),
        "slices": rows,
    }


def list_slices(attributes: Mapping[str, NDArray[Any]]) -> list[Slice]:
    """Return the slices by each attribute, texts or numbers (n,) by name, and by pairs of them."""
    singles = [one for name, values in attributes.items() for one in iterate_slices(name, values)]
    return [*singles, *intersect_slices(singles)]


def iterate_slices(name: str, values: NDArray[Any]) -> Iterator[Slice]:
    """Yield the slices by one attribute with enough images: one for each value, or for numbers one for each third."""
    if values.dtype == object:
        texts, counts = np.unique(values.astype(str), return_counts=True)
        for text in texts[np.argsort(-counts, kind="stable")][:MAX_VALUES]:
            if _enough(values == text, MIN) and text:
                yield Slice(f"{name}: {text}", (name,), np.asarray(values == text))
        return
    known = values[np.isfinite(values)]
    if not len(known):
        return
    edges = np.quantile(known, [1 / 3, 2 / 3])
    # A third of the numbers or more are equal, so that there are no three parts of about equal size.
    if edges[0] == edges[1]:
        return
    place = np.where(np.isfinite(values), np.searchsorted(edges, values, side="left"), -1)
    spans = (f"up to {edges[0]:.3g}", f"{edges[0]:.3g} to {edges[1]:.3g}", f"above {edges[1]:.3g}")
    for third, word in enumerate(_THIRDS):
        if _enough(place == third, MIN):
            yield Slice(f"{name}: {word} ({spans[third]})", (name,), place == third)


def intersect_slices(singles: Sequence[Slice]) -> list[Slice]:
    """Return the intersections of two slices by different attributes: the largest ones with enough images."""
    shared = [
        Slice(f"{one.name}, {other.name}", one.attributes + other.attributes, one.inside & other.inside)
        for one, other in combinations(singles, 2)
        if one.attributes != other.attributes
    ]
    # An intersection that equals one of the slices would be tested twice.
    large = [
        both
        for both in shared
        if _enough(both.inside, MIN_PAIRS) and not any((both.inside == one.inside).all() for one in singles)
    ]
    return sorted(large, key=lambda both: -int(both.inside.sum()))[:MAX_PAIRS]


def compute_worse_p_value(right: Bools, inside: Bools, strata: NDArray[np.int64]) -> float:
    """Return the one-sided p-value of the exact stratified test that a slice has fewer right predictions.

    With one stratum it is Fisher's exact test. With several, images are only exchanged within their stratum, and the
    number of right ones in the slice is a sum of hypergeometric numbers, whose exact distribution is their convolution.
    Where its variance is large, the normal approximation with continuity correction is used, as in Mantel and
    Haenszel's test.

    Args:
        right: (n,) which predictions are right.
        inside: (n,) which images are in the slice.
        strata: (n,) stratum of each image, such as its class.
    """
    _, codes = np.unique(strata, return_inverse=True)
    sizes, hits, drawn = (
        np.bincount(codes, weights=weights).round().astype(np.int64) for weights in (np.ones(len(right)), right, inside)
    )
    found = int((right & inside).sum())
    mean, variance = _compute_moments(sizes, hits, drawn)
    # In every stratum all images are right, all are wrong, or all are on one side: nothing else could have come out.
    if variance == 0:
        return 1.0
    if variance > _COUNTED_UP_TO:
        return float(ndtr((found + 0.5 - mean) / np.sqrt(variance)))
    chances = reduce(np.convolve, _compute_probabilities(sizes, hits, drawn))
    return float(min(1.0, chances[: found + 1].sum()))


def _compute_moments(
    sizes: NDArray[np.int64], hits: NDArray[np.int64], drawn: NDArray[np.int64]
) -> tuple[float, float]:
    """Return mean and variance of the number of hits among those drawn from each stratum."""
    shares = hits / sizes
    rest = (sizes - drawn) / np.maximum(sizes - 1, 1)
    return float((drawn * shares).sum()), float((drawn * shares * (1 - shares) * rest).sum())


def _compute_probabilities(sizes: NDArray[np.int64], hits: NDArray[np.int64], drawn: NDArray[np.int64]) -> list[Floats]:
    """Return for each stratum the hypergeometric probabilities of 0, 1, ..., all hits among those drawn from it."""
    counts = drawn + 1
    ends = np.cumsum(counts)
    found = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
    # One call for all strata, as SciPy's overhead for a call exceeds the time for a hundred strata.
    chances = hypergeom.pmf(found, *(np.repeat(values, counts) for values in (sizes, hits, drawn)))
    return np.split(chances, ends[:-1])


def _describe_slice(one: Slice, right: Bools, classes: NDArray[np.int64], confidence: float) -> dict[str, Any]:
    inside, rest = (
        estimate_share(float(right[own].sum()), int(own.sum()), confidence) for own in (one.inside, ~one.inside)
    )
    _, codes = np.unique(classes, return_inverse=True)
    elsewhere = np.bincount(codes, weights=right) / np.bincount(codes)
    return {
        "name": one.name,
        "attributes": list(one.attributes),
        "images": int(one.inside.sum()),
        "right": inside.to_dict(),
        "rest": rest.to_dict(),
        "difference": subtract_estimates(inside, rest).to_dict(),
        "expected": float(elsewhere[codes[one.inside]].mean()),
    }


def _enough(inside: Bools, minimum: int) -> bool:
    """Return whether a slice has enough images inside and outside."""
    return bool(minimum <= inside.sum() <= len(inside) - minimum)


def _read_image_statistics(records: Sequence[Record], config: DataConfig) -> list[ImageStatistics | None]:
    """Return the image statistics of each record; None for a file that can't be read."""
    inspected = inspect_images(
        list(dict.fromkeys(record.path for record in records)),
        background=config.background,
        max_pixels=config.max_pixels,
        descriptors=config.audit.near_duplicates,
        keep=config.cache != "off",
    )
    known = {one.statistics.path: one.statistics for one in inspected if one.statistics.error is None}
    return [known.get(record.path) for record in records]


def _summarise(rows: Sequence[Mapping[str, Any]], images: int, *, several_classes: bool) -> str:
    worse = [row for row in rows if row["worse"]]
    if not worse:
        return (
            f"None of {len(rows)} slices is significantly worse than the rest. With {images:,} test images only large "
            "differences would show."
        )
    first = worse[0]
    shares = f"{100 * first['right']['value']:.1f}% right, the rest {100 * first['rest']['value']:.1f}%"
    text = f"{len(worse)} of {len(rows)} slices {'is' if len(worse) == 1 else 'are'} significantly worse than the rest."
    text = f"{text} Most significant: {first['name']} ({shares})."
    if not several_classes:
        return text
    if first["worse_classes"]:
        return f"{text} It is also significantly worse than other images of the same classes."
    return f"{text} Its classes may just be harder: within classes the difference is not significant."


def list_slice_notes(*, grouped: bool) -> list[str]:
    """Return the note that the tests ignore groups; empty where images come in none."""
    if not grouped:
        return []
    return ["images come in groups, but the tests treat them as independent: p-values are too small"]
