"""Parts of the test on which predicted numbers are further off, told from chance.

As `imagetune.evaluation.slices`, with absolute errors for right and wrong answers: each slice is tested against the
rest by Mann and Whitney's rank test (Annals of Mathematical Statistics 18, 1947), one-sided, corrected by Holm's
method. It looks at ranks, so that a few errors that are far off decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from imagetune.data.shift import holm
from imagetune.evaluation.intervals import Bootstrap, Estimate, estimate, precision_of, resampled_weights
from imagetune.evaluation.slices import LEVEL, Slice, all_slices, slice_notes
from imagetune.evaluation.verdict import difference

Floats = NDArray[np.float64]


def compare_errors(
    errors: Floats, attributes: Mapping[str, NDArray[Any]], *, bootstrap: Bootstrap, grouped: bool
) -> dict[str, Any] | None:
    """Return every slice beside the rest, as `imagetune.evaluation.slices.compare_slices` does.

    Rows have ``error`` (mean absolute error) in the place of ``right``, and nothing of classes.

    Args:
        errors: (n,) absolute errors.
        attributes: Texts or numbers (n,) by name.
        bootstrap: How intervals are made.
        grouped: Whether pictures come in groups, which the tests don't know.
    """
    found = all_slices(attributes)
    if not found:
        return None
    plain = [
        float(mannwhitneyu(errors[part.inside], errors[~part.inside], alternative="greater").pvalue) for part in found
    ]
    rows = [
        _row(part, errors, bootstrap) | {"p": p, "p_holm": held, "worse": held < LEVEL}
        for part, p, held in zip(found, plain, holm(plain), strict=True)
    ]
    rows.sort(key=lambda row: (row["p"], -row["difference"]["value"]))
    return {
        "pictures": len(errors),
        "error": float(errors.mean()),
        "looked_at": len(rows),
        "attributes": list(dict.fromkeys(name for part in found for name in part.attributes)),
        "text": _text(rows, len(errors)),
        "notes": slice_notes(grouped=grouped),
        "slices": rows,
    }


def _row(part: Slice, errors: Floats, bootstrap: Bootstrap) -> dict[str, Any]:
    inside, rest = _mean(errors[part.inside], bootstrap), _mean(errors[~part.inside], bootstrap)
    return {
        "name": part.name,
        "attributes": list(part.attributes),
        "pictures": int(part.inside.sum()),
        "error": inside.to_dict(),
        "rest": rest.to_dict(),
        "difference": difference(inside, rest).to_dict(),
    }


def _mean(errors: Floats, bootstrap: Bootstrap) -> Estimate:
    strata = np.zeros(len(errors), np.int64)
    samples = [errors @ weights / len(errors) for weights in resampled_weights(strata, bootstrap)]
    precision = precision_of(strata, bootstrap)
    return estimate(float(errors.mean()), np.concatenate(samples), bootstrap, pictures=None, precision=precision)


def _text(rows: list[dict[str, Any]], pictures: int) -> str:
    worse = [row for row in rows if row["worse"]]
    if not worse:
        return (
            f"On none of {len(rows)} slices is the model further off than on the rest by more than chance. With "
            f"{pictures:,} test pictures only large differences would show."
        )
    first = worse[0]
    told = f"{first['error']['value']:.4g} off in the mean, the rest {first['rest']['value']:.4g}"
    count = f"{len(worse)} of {len(rows)} slices {'is' if len(worse) == 1 else 'are'}"
    return f"{count} worse by more than chance. The most certain one: {first['name']} ({told})."
