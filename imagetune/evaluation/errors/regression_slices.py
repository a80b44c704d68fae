"""Slices of the test on which regression errors are significantly larger.

Like `imagetune.evaluation.errors.slices`, with absolute errors in place of right and wrong: each slice is tested
against the rest by Mann and Whitney's rank test (Annals of Mathematical Statistics 18, 1947), one-sided, corrected by
Holm's method. A test of ranks isn't decided by a few huge errors. A slice may only look bad because the hard numbers
are in it: the same test within ranges of the true number (van Elteren, Bulletin of the Institute of International
Statistics 37, 1960) rules that out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import mannwhitneyu, rankdata

from imagetune.core.multiple_testing import adjust_p_values
from imagetune.evaluation.errors.slices import LEVEL, Slice, list_slice_notes, list_slices
from imagetune.evaluation.statistics.bootstrap import Bootstrap
from imagetune.evaluation.statistics.intervals import estimate_mean
from imagetune.evaluation.statistics.verdict import subtract_estimates

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def compare_errors(
    errors: Floats, ranges: Ints, attributes: Mapping[str, NDArray[Any]], *, bootstrap: Bootstrap, grouped: bool
) -> dict[str, Any] | None:
    """Return every slice compared with the rest, as `imagetune.evaluation.errors.slices.compare_slices` does.

    Rows have ``error`` (mean absolute error) in place of ``right``, and ranges of numbers in place of classes.

    Args:
        errors: (n,) absolute errors.
        ranges: (n,) the range that each true number lies in.
        attributes: Texts or numbers (n,) by name.
        bootstrap: Settings of the intervals.
        grouped: Whether images come in groups, which the tests ignore.
    """
    found = list_slices(attributes)
    if not found:
        return None
    plain = [
        float(mannwhitneyu(errors[one.inside], errors[~one.inside], alternative="greater").pvalue) for one in found
    ]
    within = [compute_van_elteren_p_value(errors, one.inside, ranges) for one in found]
    rows = [
        _describe_slice(one, errors, ranges, bootstrap) | {"p": p, "p_holm": held, "p_ranges": q, "p_ranges_holm": kept}
        for one, p, held, q, kept in zip(
            found, plain, adjust_p_values(plain), within, adjust_p_values(within), strict=True
        )
    ]
    for row in rows:
        row |= {"worse": row["p_holm"] < LEVEL, "worse_ranges": row["p_ranges_holm"] < LEVEL}
    # By the uncorrected p, as Holm's correction makes many of them 1.
    rows.sort(key=lambda row: (row["p"], -row["difference"]["value"]))
    return {
        "images": len(errors),
        "error": float(errors.mean()),
        "looked_at": len(rows),
        "attributes": list(dict.fromkeys(name for one in found for name in one.attributes)),
        "text": _summarise(rows, len(errors), several_ranges=bool(ranges.any())),
        "notes": list_slice_notes(grouped=grouped),
        "slices": rows,
    }


def compute_van_elteren_p_value(errors: Floats, inside: NDArray[np.bool_], strata: Ints) -> float:
    """Return the one-sided p-value of van Elteren's stratified rank test that a slice's errors are larger.

    Images are only compared within their stratum; with one stratum it is Mann and Whitney's test. The sum of the
    strata's rank sums, each divided by its images plus one, is taken to be normal, with its permutation variance, which
    allows for ties.

    Args:
        errors: (n,) absolute errors.
        inside: (n,) which images are in the slice.
        strata: (n,) stratum of each image.
    """
    surplus = variance = 0.0
    for stratum in np.unique(strata):
        own, some = rankdata(errors[strata == stratum]), inside[strata == stratum]
        size, taken = len(own), int(some.sum())
        # A stratum that lies wholly inside or outside the slice has nothing to compare.
        if 0 < taken < size:
            surplus += (own[some].sum() - taken * (size + 1) / 2) / (size + 1)
            variance += taken * (size - taken) / size * float(own.var(ddof=1)) / (size + 1) ** 2
    # Without a stratum that has images on both sides, or with equal errors only, nothing speaks against the slice.
    return float(ndtr(-surplus / np.sqrt(variance))) if variance else 1.0


def _describe_slice(one: Slice, errors: Floats, ranges: Ints, bootstrap: Bootstrap) -> dict[str, Any]:
    inside, rest = (estimate_mean(errors[own], bootstrap, scale="loss") for own in (one.inside, ~one.inside))
    return {
        "name": one.name,
        "attributes": list(one.attributes),
        "images": int(one.inside.sum()),
        "error": inside.to_dict(),
        "rest": rest.to_dict(),
        "difference": subtract_estimates(inside, rest).to_dict(),
        "expected": float(
            (np.bincount(ranges, errors) / np.maximum(np.bincount(ranges), 1))[ranges[one.inside]].mean()
        ),
    }


def _summarise(rows: list[dict[str, Any]], images: int, *, several_ranges: bool) -> str:
    worse = [row for row in rows if row["worse"]]
    if not worse:
        return (
            f"None of {len(rows)} slices has significantly larger errors than the rest. With {images:,} test images "
            "only large differences would show."
        )
    first = worse[0]
    means = f"mean absolute error {first['error']['value']:.4g}, the rest {first['rest']['value']:.4g}"
    count = f"{len(worse)} of {len(rows)} slices {'has' if len(worse) == 1 else 'have'}"
    text = f"{count} significantly larger errors than the rest. Most significant: {first['name']} ({means})."
    if not several_ranges:
        return text
    if first["worse_ranges"]:
        return f"{text} Its errors are also significantly larger than those of images with about the same number."
    return f"{text} Its numbers may just be harder: within ranges of numbers the difference is not significant."
