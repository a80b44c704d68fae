"""The delete-one jackknife: standard errors from the metric without each image, or without each group of images.

See Shao and Tu, The Jackknife and Bootstrap, 1995, chapter 2. Leaving out whole groups, it gives what survey
statisticians call CR3 (Bell and McCaffrey, Survey Methodology 28, 2002; MacKinnon, Nielsen and Webb, Journal of Applied
Econometrics 38, 2023): unlike a cluster bootstrap, it gives intervals that are long enough where some groups are large.

A variance that a few images or groups decide is itself uncertain, so the interval must reach further: by Student's t,
whose degrees of freedom follow from the scatter of the variance's terms (Satterthwaite's, as Pan and Wall estimate
them, Statistics in Medicine 21, 2002). Coverage by simulation: ``tests/evaluation/statistics/test_coverage.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, inf, log

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from imagetune.recipe.metrics import Scale

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# With one degree of freedom an interval would be six times as long as with many, and say nothing.
MIN_FREEDOM = 2.0
# An error that may be a thousand times as large as the one that was found is unknown.
_LARGEST_POWER = log(1000)


@dataclass(frozen=True)
class Units:
    """The jackknife's units: sets of images that are left out together.

    Attributes:
        codes: (n,) number of the unit that each image belongs to, from 0.
        strata: (u,) class of each unit where the sampling is stratified; else zeros.
    """

    codes: Ints
    strata: Ints


@dataclass(frozen=True)
class LeftOut:
    """The leave-one-out values of a metric.

    Attributes:
        values: (u,) the metric without each unit; NaN where it would not be defined.
        strata: (u,) class of each unit.
    """

    values: Floats
    strata: Ints


@dataclass(frozen=True)
class Spread:
    """The standard error of a metric, and the degrees of freedom that it was estimated with.

    Attributes:
        error: Standard error of the metric.
        freedom: Degrees of freedom of the standard error.
    """

    error: float
    freedom: float

    def quantile(self, confidence: float) -> float:
        """Return how many standard errors a two-sided interval reaches."""
        return float(stdtrit(self.freedom, 1 - (1 - confidence) / 2))


def build_units(labels: Ints, *, groups: Ints | None, stratified: bool, most: int, seed: int) -> Units:
    """Return the jackknife's units: each image or each group, several of them in one unit where there are very many.

    Args:
        labels: (n,) class of each image.
        groups: (n,) number of each image's group, from 0; None where there are none.
        stratified: Whether the number of images of each class is fixed by design; ignored for groups.
        most: Largest number of units; more images or groups are dealt to that many at random (the delete-a-group
            jackknife: Kott, Journal of Official Statistics 17, 2001).
        seed: Seed of that dealing.
    """
    codes = np.arange(len(labels)) if groups is None else groups
    count = int(codes.max()) + 1
    strata = labels if stratified and groups is None else np.zeros(count, np.int64)
    if count <= most:
        return Units(codes, strata)
    order = np.random.default_rng(seed).permutation(count)
    # By class after the shuffle, so that units hold images of one class as far as possible: strata need that.
    order = order[np.argsort(strata[order], kind="stable")]
    dealt = np.empty(count, np.int64)
    dealt[order] = np.arange(count) * most // count
    # A unit on the border of two classes counts as of the first.
    firsts = order[np.searchsorted(dealt[order], np.arange(most))]
    return Units(dealt[codes], strata[firsts])


def build_jackknife_weights(
    units: Units, *, chunk_cells: int, cells_a_sample: int = 0
) -> Iterator[NDArray[np.float32]]:
    """Yield weights (n, b) in chunks, one column for each unit: 0 for its images, 1 for all others.

    Args:
        units: From `build_units`.
        chunk_cells: Numbers in memory at once.
        cells_a_sample: Numbers that the caller holds for each column.
    """
    count = len(units.strata)
    chunk = max(1, chunk_cells // max(len(units.codes), cells_a_sample, 1))
    for start in range(0, count, chunk):
        columns = np.arange(start, min(start + chunk, count))
        yield (units.codes[:, None] != columns).astype(np.float32)


def compute_jackknife_means(values: Floats, among: Floats, units: Units) -> LeftOut:
    """Return the weighted mean ``(values * among).sum() / among.sum()`` without each unit.

    Args:
        values: (n,) value of each image.
        among: (n,) weight of each image.
        units: From `build_units`.
    """
    count = len(units.strata)
    over = np.bincount(units.codes, weights=values * among, minlength=count)
    under = np.bincount(units.codes, weights=among, minlength=count)
    rest = under.sum() - under
    means = np.divide(over.sum() - over, rest, out=np.full(count, np.nan), where=rest > 0)
    return LeftOut(means, units.strata)


def compute_spread(left_out: LeftOut) -> Spread | None:
    """Return the jackknife's standard error of a metric; None where one unit alone defines the metric."""
    values, count = left_out.values, len(left_out.values)
    if count < 2 or not np.isfinite(values).all():
        return None
    _, place, sizes = np.unique(left_out.strata, return_inverse=True, return_counts=True)
    own = np.bincount(place, weights=values) / sizes
    # A stratum with a single image has no spread of its own; its distance from the overall mean stands in for it.
    centre = np.where(sizes > 1, own, values.mean())
    factors = np.where(sizes > 1, sizes / np.maximum(sizes - 1, 1), count / (count - 1))
    # With a single stratum this is the textbook's (n - 1) / n times the squares; strata only have their own factors.
    parts = ((count - 1) / count) ** 2 * factors[place] * (values - centre[place]) ** 2
    variance = float(parts.sum())
    # The mean of each stratum costs one degree of freedom.
    most = max(count - len(sizes), 1)
    scatter = float(((parts - parts.mean()) ** 2).sum()) * count / (count - 1)
    # Without scatter among the terms no few images decide the variance, and all degrees of freedom remain.
    freedom = 2 * variance**2 / scatter if scatter > 0 else most
    return Spread(variance**0.5, float(min(max(freedom, MIN_FREEDOM), most)))


def _exponentiate(power: float) -> float:
    """Return e to a power; infinite from a factor of a thousand on, of which no metric tells anything."""
    return exp(power) if power < _LARGEST_POWER else inf


def compute_scaled_interval(value: float, reach: float, scale: Scale) -> tuple[float, float]:
    """Return the ends of the interval that is symmetric on a transformed scale (delta method).

    Args:
        value: The metric, not at an end of the scale.
        reach: Standard error times quantile, on the metric's own scale.
        scale: Name of the scale.
    """
    if scale == "loss":
        # On the logarithm the lower end stays above 0, as an error does.
        factor = _exponentiate(reach / value)
        return value / factor, value * factor
    if scale == "shortfall":
        # What is missing to 1 stays above 0, so that the upper end stays below 1.
        missing = 1 - value
        factor = _exponentiate(reach / missing)
        return 1 - missing * factor, 1 - missing / factor
    if scale == "correlation":
        # Fisher's z keeps both ends between -1 and 1.
        middle, half = float(np.arctanh(value)), reach / (1 - value**2)
        return float(np.tanh(middle - half)), float(np.tanh(middle + half))
    return value - reach, value + reach
