"""Parts of the test on which predicted numbers are further off, told from chance.

As `imagetune.evaluation.errors.slices`, with absolute errors for right and wrong predictions: each slice is tested
against the rest by Mann and Whitney's rank test (Annals of Mathematical Statistics 18, 1947), one-sided, corrected by
Holm's method. It looks at ranks, so that a few errors that are far off decide nothing. A slice may only look bad
because the hard numbers are in it: the same test within ranges of the true number (van Elteren, Bulletin of the
Institute of International Statistics 37, 1960) tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import mannwhitneyu, rankdata

from imagetune.core.multiple_testing import adjust_p_values
from imagetune.evaluation.errors.slices import LEVEL, Slice, all_slices, slice_notes
from imagetune.evaluation.statistics.intervals import Bootstrap, Estimate, mean_estimate
from imagetune.evaluation.statistics.verdict import difference

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def compare_errors(
    errors: Floats, ranges: Ints, attributes: Mapping[str, NDArray[Any]], *, bootstrap: Bootstrap, grouped: bool
) -> dict[str, Any] | None:
    """Return every slice beside the rest, as `imagetune.evaluation.errors.slices.compare_slices` does.

    Rows have ``error`` (mean absolute error) in the place of ``right``, and ranges of numbers in that of classes.

    Args:
        errors: (n,) absolute errors.
        ranges: (n,) the range that each true number lies in.
        attributes: Texts or numbers (n,) by name.
        bootstrap: How intervals are made.
        grouped: Whether images come in groups, which the tests don't know.
    """
    found = all_slices(attributes)
    if not found:
        return None
    plain = [
        float(mannwhitneyu(errors[part.inside], errors[~part.inside], alternative="greater").pvalue) for part in found
    ]
    within = [larger_within_p(errors, part.inside, ranges) for part in found]
    rows = [
        _row(part, errors, ranges, bootstrap) | {"p": p, "p_holm": held, "p_ranges": q, "p_ranges_holm": kept}
        for part, p, held, q, kept in zip(
            found, plain, adjust_p_values(plain), within, adjust_p_values(within), strict=True
        )
    ]
    for row in rows:
        row |= {"worse": row["p_holm"] < LEVEL, "worse_ranges": row["p_ranges_holm"] < LEVEL}
    rows.sort(key=lambda row: (row["p"], -row["difference"]["value"]))
    return {
        "images": len(errors),
        "error": float(errors.mean()),
        "looked_at": len(rows),
        "attributes": list(dict.fromkeys(name for part in found for name in part.attributes)),
        "text": _text(rows, len(errors), several_ranges=bool(ranges.any())),
        "notes": slice_notes(grouped=grouped),
        "slices": rows,
    }


def larger_within_p(errors: Floats, inside: NDArray[np.bool_], strata: Ints) -> float:
    """Return van Elteren's one-sided p-value of so large errors in a slice, if they were no larger than the rest's.

    Images are only compared within their stratum; with one stratum it is Mann and Whitney's test. The sum of the
    strata's rank sums, each divided by its images plus one, is taken to be normal, its variance that over all
    exchanges, so that equal errors are counted in.

    Args:
        errors: (n,).
        inside: (n,) which images are in the slice.
        strata: (n,) what is held fixed.
    """
    surplus = variance = 0.0
    for stratum in np.unique(strata):
        own, some = rankdata(errors[strata == stratum]), inside[strata == stratum]
        size, taken = len(own), int(some.sum())
        if 0 < taken < size:
            surplus += (own[some].sum() - taken * (size + 1) / 2) / (size + 1)
            variance += taken * (size - taken) / size * float(own.var(ddof=1)) / (size + 1) ** 2
    return float(ndtr(-surplus / np.sqrt(variance))) if variance else 1.0


def _row(part: Slice, errors: Floats, ranges: Ints, bootstrap: Bootstrap) -> dict[str, Any]:
    inside, rest = _mean(errors[part.inside], bootstrap), _mean(errors[~part.inside], bootstrap)
    return {
        "name": part.name,
        "attributes": list(part.attributes),
        "images": int(part.inside.sum()),
        "error": inside.to_dict(),
        "rest": rest.to_dict(),
        "difference": difference(inside, rest).to_dict(),
        "expected": float(
            (np.bincount(ranges, errors) / np.maximum(np.bincount(ranges), 1))[ranges[part.inside]].mean()
        ),
    }


def _mean(errors: Floats, bootstrap: Bootstrap) -> Estimate:
    return mean_estimate(errors, bootstrap, scale="loss")


def _text(rows: list[dict[str, Any]], images: int, *, several_ranges: bool) -> str:
    worse = [row for row in rows if row["worse"]]
    if not worse:
        return (
            f"On none of {len(rows)} slices is the model further off than on the rest by more than chance. With "
            f"{images:,} test images only large differences would show."
        )
    first = worse[0]
    told = f"{first['error']['value']:.4g} off in the mean, the rest {first['rest']['value']:.4g}"
    count = f"{len(worse)} of {len(rows)} slices {'is' if len(worse) == 1 else 'are'}"
    text = f"{count} worse by more than chance. The most certain one: {first['name']} ({told})."
    if not several_ranges:
        return text
    if first["worse_ranges"]:
        return f"{text} It is worse than images with about the same number elsewhere, too."
    return f"{text} It may be that only its numbers are harder: compared within ranges of numbers, it may be chance."
