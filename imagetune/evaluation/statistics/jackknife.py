"""How sure a metric is, from what it would be without each image, or without each group of images.

The delete-one jackknife (Shao and Tu, The Jackknife and Bootstrap, 1995, chapter 2). Leaving out whole groups, it gives
what survey statisticians call CR3 (Bell and McCaffrey, Survey Methodology 28, 2002; MacKinnon, Nielsen and Webb,
Journal of Applied Econometrics 38, 2023): unlike resampled groups it doesn't promise too much where some are large.

A variance that a few images or groups decide is itself unsure, and an interval must reach further. How far is told by
Student's t with as many degrees of freedom as the scatter of the parts of the variance leaves (Satterthwaite's, as Pan
and Wall estimate it, Statistics in Medicine 21, 2002). Coverage by simulation: ``tests/evaluation/test_coverage.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from imagetune.recipe.metrics import Scale

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# With one degree of freedom an interval would be six times as long as with many, and say nothing.
MIN_FREEDOM = 2.0


@dataclass(frozen=True)
class Units:
    """Which images are left out together, unit by unit.

    Attributes:
        codes: (n,) number of the unit that each image is of, from 0.
        strata: (u,) class of each unit, where as many images of each class are kept; else zeros.
    """

    codes: Ints
    strata: Ints


@dataclass(frozen=True)
class LeftOut:
    """The values of a metric when each unit is left out.

    Attributes:
        values: (u,) without each unit; NaN where it would not be defined.
        strata: (u,) class of each unit.
    """

    values: Floats
    strata: Ints


@dataclass(frozen=True)
class Spread:
    """The standard error of a metric, and its degrees of freedom.

    Attributes:
        error: Its standard error.
        freedom: Degrees of freedom of that.
    """

    error: float
    freedom: float

    def quantile(self, confidence: float) -> float:
        """Return how many standard errors a two-sided interval reaches."""
        return float(stdtrit(self.freedom, 1 - (1 - confidence) / 2))


def units_of(labels: Ints, *, groups: Ints | None, stratified: bool, most: int, seed: int) -> Units:
    """Return what is left out: each image, or each group; several of them at once where there are very many.

    Args:
        labels: (n,) class of each image.
        groups: (n,) number of each image's group, from 0; None where there are none.
        stratified: Whether there are as many images of each class as there are on purpose; not so of groups.
        most: Most units; more images or groups are dealt to as many by chance (Kott, Journal of Official Statistics
            17, 2001).
        seed: Of that chance.
    """
    codes = np.arange(len(labels)) if groups is None else groups
    count = int(codes.max()) + 1
    strata = labels if stratified and groups is None else np.zeros(count, np.int64)
    if count <= most:
        return Units(codes, strata)
    order = np.random.default_rng(seed).permutation(count)
    order = order[np.argsort(strata[order], kind="stable")]
    dealt = np.empty(count, np.int64)
    dealt[order] = np.arange(count) * most // count
    # A unit on the border of two classes counts as of the first.
    firsts = order[np.searchsorted(dealt[order], np.arange(most))]
    return Units(dealt[codes], strata[firsts])


def left_out_weights(units: Units, *, chunk_cells: int, cells_a_sample: int = 0) -> Iterator[NDArray[np.float32]]:
    """Yield (n, b) in chunks, a column a unit: 0 for its images, 1 for all others.

    Args:
        units: From `units_of`.
        chunk_cells: Numbers in memory at once.
        cells_a_sample: Numbers that the caller holds for each column.
    """
    count = len(units.strata)
    chunk = max(1, chunk_cells // max(len(units.codes), cells_a_sample, 1))
    for start in range(0, count, chunk):
        columns = np.arange(start, min(start + chunk, count))
        yield (units.codes[:, None] != columns).astype(np.float32)


def left_out_means(values: Floats, among: Floats, units: Units) -> LeftOut:
    """Return ``(values * among).sum() / among.sum()`` without each unit.

    Args:
        values: (n,) of each image.
        among: (n,) how much each counts.
        units: From `units_of`.
    """
    count = len(units.strata)
    over = np.bincount(units.codes, weights=values * among, minlength=count)
    under = np.bincount(units.codes, weights=among, minlength=count)
    rest = under.sum() - under
    means = np.divide(over.sum() - over, rest, out=np.full(count, np.nan), where=rest > 0)
    return LeftOut(means, units.strata)


def spread_of(left_out: LeftOut) -> Spread | None:
    """Return how sure a metric is; None where that can't be told, as one unit alone defines it."""
    values, count = left_out.values, len(left_out.values)
    if count < 2 or not np.isfinite(values).all():
        return None
    _, place, sizes = np.unique(left_out.strata, return_inverse=True, return_counts=True)
    own = np.bincount(place, weights=values) / sizes
    # Of a class with a single image, only how it differs from all others tells something.
    centre = np.where(sizes > 1, own, values.mean())
    factors = np.where(sizes > 1, sizes / np.maximum(sizes - 1, 1), count / (count - 1))
    parts = ((count - 1) / count) ** 2 * factors[place] * (values - centre[place]) ** 2
    variance = float(parts.sum())
    most = max(count - len(sizes), 1)
    scatter = float(((parts - parts.mean()) ** 2).sum()) * count / (count - 1)
    freedom = 2 * variance**2 / scatter if scatter > 0 else most
    return Spread(variance**0.5, float(min(max(freedom, MIN_FREEDOM), most)))


def scaled_interval(value: float, reach: float, scale: Scale) -> tuple[float, float]:
    """Return the interval that is symmetric on a scale.

    Args:
        value: The metric, not at an end of the scale.
        reach: Standard error times quantile, on the metric's own scale.
        scale: Which scale.
    """
    if scale == "loss":
        # On the logarithm the lower end stays above 0, as an error does.
        factor = float(np.exp(reach / value))
        return value / factor, value * factor
    if scale == "shortfall":
        # What is missing to 1 stays above 0, so that the upper end stays below 1.
        missing = 1 - value
        factor = float(np.exp(reach / missing))
        return 1 - missing * factor, 1 - missing / factor
    if scale == "correlation":
        # Fisher's z keeps both ends between -1 and 1.
        middle, half = float(np.arctanh(value)), reach / (1 - value**2)
        return float(np.tanh(middle - half)), float(np.tanh(middle + half))
    return value - reach, value + reach
