"""Parts of the test on which the model is worse, told from chance.

A slice is what shares a value: of a column of the table (``data.columns.slices``), or a third of the images by a
number in such a column, by size, brightness or sharpness; and what shares two such values. Each is tested against the
rest by Fisher's exact test, one-sided: is it worse? With so many slices one of them always looks bad, so that p-values
are corrected by Holm's method over all that were looked at; which are looked at depends on how many images they have,
never on the predictions. A slice may only look bad because the hard classes are in it: the same exact test within each
class (the conditional test behind Cochran, Mantel and Haenszel's: Agresti, Categorical Data Analysis, 2013, section
7.3) tells.
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
from imagetune.data.audit.image_statistics import ImageFacts
from imagetune.data.audit.inspection import inspect_images
from imagetune.data.sources.records import Record
from imagetune.evaluation.context import ExaminedSplit
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.intervals import Estimate, share_estimate
from imagetune.evaluation.statistics.verdict import difference
from imagetune.recipe.data import DataConfig

LEVEL = 0.05
# Fewer images than this, inside or outside, can't differ by more than chance.
MIN = 5
MIN_PAIRS = 10
MAX_VALUES = 30
MAX_PAIRS = 100
# A number with fewer different values than this is a name.
_NUMBERS_FROM = 8
# From this variance on, the normal distribution is as good as counting.
_COUNTED_UP_TO = 100.0
_THIRDS = ("low", "middle", "high")

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Slice:
    """Some of the test images.

    Attributes:
        name: What they share, in words.
        attributes: What that is a value of: one name, or two.
        inside: (n,) which images are in it.
    """

    name: str
    attributes: tuple[str, ...]
    inside: Bools


def right_predictions(predictions: Predictions) -> Bools:
    """Return which predictions are right (n,): for multi_label those with all labels right."""
    if predictions.rule.task == "multi_label":
        exact: Bools = ((predictions.targets >= 0.5) == predictions.given).all(axis=1)
        return exact
    return np.asarray(predictions.predicted == predictions.labels)


def attributes_of(split: ExaminedSplit, config: DataConfig) -> dict[str, NDArray[Any]]:
    """Return what images may be sliced by: texts or numbers (n,), by name; NaN and "" where it isn't known.

    The size is the geometric mean of width and height in pixels; brightness and sharpness are those of the check of
    the images, which looks at each file once and remembers.
    """
    columns = {
        name: column_values([dict(record.slices).get(name, "") for record in split.records])
        for name in config.columns.slices
    }
    facts = _facts(split.records, config)
    looks = [fact.appearance if fact is not None else None for fact in facts]
    return columns | {
        "size": np.array([np.nan if fact is None else (fact.width * fact.height) ** 0.5 for fact in facts]),
        "brightness": np.array([np.nan if look is None else look.brightness for look in looks]),
        "sharpness": np.array([np.nan if look is None else look.sharpness for look in looks]),
    }


def column_values(cells: Sequence[str]) -> NDArray[Any]:
    """Return a column's cells as numbers where all of them are and there are many, else as texts."""
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
    """Return every slice beside the rest; see `imagetune.evaluation.errors.slices_part`.

    Args:
        right: (n,) which predictions are right.
        classes: (n,) class of each image; any one number where there are no classes.
        attributes: Texts or numbers (n,) by name.
        confidence: Coverage of the intervals.
        grouped: Whether images come in groups, which the tests don't know.
    """
    found = all_slices(attributes)
    if not found:
        return None
    alike = np.zeros(len(right), np.int64)
    plain = [worse_p(right, part.inside, alike) for part in found]
    within = [worse_p(right, part.inside, classes) for part in found]
    rows = [
        _row(part, right, classes, confidence) | {"p": p, "p_holm": held, "p_classes": q, "p_classes_holm": kept}
        for part, p, held, q, kept in zip(
            found, plain, adjust_p_values(plain), within, adjust_p_values(within), strict=True
        )
    ]
    for row in rows:
        row |= {"worse": row["p_holm"] < LEVEL, "worse_classes": row["p_classes_holm"] < LEVEL}
    rows.sort(key=lambda row: (row["p"], row["difference"]["value"]))
    return {
        "images": len(right),
        "right": float(right.mean()),
        "looked_at": len(rows),
        "attributes": list(dict.fromkeys(name for part in found for name in part.attributes)),
        "text": _text(rows, len(right), several_classes=len(np.unique(classes)) > 1),
        "notes": slice_notes(grouped=grouped),
        "slices": rows,
    }


def all_slices(attributes: Mapping[str, NDArray[Any]]) -> list[Slice]:
    """Return the slices by each attribute, texts or numbers (n,) by name, and by pairs of them."""
    singles = [part for name, values in attributes.items() for part in slices_by(name, values)]
    return [*singles, *pairs_of(singles)]


def slices_by(name: str, values: NDArray[Any]) -> Iterator[Slice]:
    """Yield the slices by one attribute that have enough images: its values, or for numbers its thirds."""
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
    if edges[0] == edges[1]:
        return
    place = np.where(np.isfinite(values), np.searchsorted(edges, values, side="left"), -1)
    told = (f"up to {edges[0]:.3g}", f"{edges[0]:.3g} to {edges[1]:.3g}", f"above {edges[1]:.3g}")
    for third, word in enumerate(_THIRDS):
        if _enough(place == third, MIN):
            yield Slice(f"{name}: {word} ({told[third]})", (name,), place == third)


def pairs_of(singles: Sequence[Slice]) -> list[Slice]:
    """Return what two slices by different attributes share: those with the most images, of enough."""
    shared = [
        Slice(f"{one.name}, {other.name}", one.attributes + other.attributes, one.inside & other.inside)
        for one, other in combinations(singles, 2)
        if one.attributes != other.attributes
    ]
    # One that is all of another slice asks the same question twice.
    large = [
        part
        for part in shared
        if _enough(part.inside, MIN_PAIRS) and not any((part.inside == one.inside).all() for one in singles)
    ]
    return sorted(large, key=lambda part: -int(part.inside.sum()))[:MAX_PAIRS]


def worse_p(right: Bools, inside: Bools, strata: NDArray[np.int64]) -> float:
    """Return the one-sided p-value of so few right images in a slice, if it were no worse than the rest.

    With one stratum it is Fisher's exact test. With several, images are only exchanged within theirs, and the number
    of right ones in the slice is a sum of hypergeometric numbers, whose distribution is counted; where its variance is
    large, it is the normal one with continuity correction, as in Mantel and Haenszel's test.

    Args:
        right: (n,) which predictions are right.
        inside: (n,) which images are in the slice.
        strata: (n,) what is held fixed.
    """
    _, codes = np.unique(strata, return_inverse=True)
    sizes, hits, drawn = (
        np.bincount(codes, weights=weights).round().astype(np.int64) for weights in (np.ones(len(right)), right, inside)
    )
    found = int((right & inside).sum())
    mean, variance = _moments(sizes, hits, drawn)
    if variance == 0:
        return 1.0
    if variance > _COUNTED_UP_TO:
        return float(ndtr((found + 0.5 - mean) / np.sqrt(variance)))
    chances = reduce(np.convolve, _chances(sizes, hits, drawn))
    return float(min(1.0, chances[: found + 1].sum()))


def _moments(sizes: NDArray[np.int64], hits: NDArray[np.int64], drawn: NDArray[np.int64]) -> tuple[float, float]:
    """Return mean and variance of the number of hits among those drawn from each stratum."""
    shares = hits / sizes
    rest = (sizes - drawn) / np.maximum(sizes - 1, 1)
    return float((drawn * shares).sum()), float((drawn * shares * (1 - shares) * rest).sum())


def _chances(sizes: NDArray[np.int64], hits: NDArray[np.int64], drawn: NDArray[np.int64]) -> list[Floats]:
    """Return for each stratum how likely each number of hits, from 0 to all drawn, is among those drawn from it."""
    counts = drawn + 1
    ends = np.cumsum(counts)
    found = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
    # One call for all strata: a call takes longer than the numbers of a hundred strata.
    chances = hypergeom.pmf(found, *(np.repeat(values, counts) for values in (sizes, hits, drawn)))
    return np.split(chances, ends[:-1])


def _row(part: Slice, right: Bools, classes: NDArray[np.int64], confidence: float) -> dict[str, Any]:
    inside, rest = _share(right[part.inside], confidence), _share(right[~part.inside], confidence)
    _, codes = np.unique(classes, return_inverse=True)
    elsewhere = np.bincount(codes, weights=right) / np.bincount(codes)
    return {
        "name": part.name,
        "attributes": list(part.attributes),
        "images": int(part.inside.sum()),
        "right": inside.to_dict(),
        "rest": rest.to_dict(),
        "difference": difference(inside, rest).to_dict(),
        "expected": float(elsewhere[codes[part.inside]].mean()),
    }


def _share(right: Bools, confidence: float) -> Estimate:
    return share_estimate(float(right.sum()), len(right), confidence)


def _enough(inside: Bools, least: int) -> bool:
    return bool(least <= inside.sum() <= len(inside) - least)


def _facts(records: Sequence[Record], config: DataConfig) -> list[ImageFacts | None]:
    inspected = inspect_images(
        list(dict.fromkeys(record.path for record in records)),
        background=config.background,
        max_pixels=config.max_pixels,
        look=config.audit.near_duplicates,
        keep=config.cache != "off",
    )
    known = {one.facts.path: one.facts for one in inspected if one.facts.error is None}
    return [known.get(record.path) for record in records]


def _text(rows: Sequence[Mapping[str, Any]], images: int, *, several_classes: bool) -> str:
    worse = [row for row in rows if row["worse"]]
    if not worse:
        return (
            f"None of {len(rows)} slices is worse than the rest by more than chance. With {images:,} test images "
            "only large differences would show."
        )
    first = worse[0]
    told = f"{100 * first['right']['value']:.1f}% right, the rest {100 * first['rest']['value']:.1f}%"
    text = f"{len(worse)} of {len(rows)} slices {'is' if len(worse) == 1 else 'are'} worse than the rest by more than "
    text += f"chance. The most certain one: {first['name']} ({told})."
    if not several_classes:
        return text
    if first["worse_classes"]:
        return f"{text} It is worse than images of the same classes elsewhere, too."
    return f"{text} It may be that only its classes are harder: compared within classes, it may be chance."


def slice_notes(*, grouped: bool) -> list[str]:
    """Return what a reader should know about the tests."""
    if not grouped:
        return []
    return ["images come in groups, and the tests take them for independent: p-values are too small"]
