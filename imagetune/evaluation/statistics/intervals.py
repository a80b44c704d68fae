"""Confidence intervals of metrics: bootstrap, jackknife and Wilson's interval, each where it keeps its coverage.

The bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13): draw as many images as there
are, with replacement, compute the metric, repeat. Where images come in groups (of one patient, one film), whole groups
are drawn, because images of a group are not independent. A resampling is a column of how often each image was drawn,
and metrics are computed from such weights.

The kind of interval depends on the metric. A share, or a mean of shares, gets Wilson's interval for its effective
number of images, which follows from its variance. Losses, errors and correlations, and every metric of images in
groups, get the jackknife (`imagetune.evaluation.statistics.jackknife`), because the bootstrap's intervals of these are
too short in simulations. Any other metric gets expanded percentiles of the bootstrap: the middle 95% of the
resamplings, a little widened, as drawing n of n varies less than n new images would (Hesterberg, The American
Statistician 69, 2015).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from imagetune.evaluation.statistics.jackknife import (
    LeftOut,
    Units,
    build_jackknife_weights,
    build_units,
    compute_jackknife_means,
    compute_scaled_interval,
    compute_spread,
)
from imagetune.evaluation.statistics.proportions import (
    compute_effective_count,
    compute_exact_bound,
    compute_two_sided_quantile,
    compute_wilson_interval,
)
from imagetune.recipe.metrics import Scale

# Weights (float32) in memory at once, 8 MB: long enough for fast vector operations, small enough for caches.
CHUNK_CELLS = 2_000_000
# Metrics that differ by less, relative to their size, differ by rounding only.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the bootstrap: number of resamplings, coverage of the intervals, seed, and stratification.

    Attributes:
        samples: Number of resamplings.
        confidence: Coverage of the intervals, in (0, 1).
        seed: The same seed gives the same intervals.
        stratified: Keep the number of images of each class, as in a test set that was put together class by class.
    """

    samples: int = 1000
    confidence: float = 0.95
    seed: int = 0
    stratified: bool = True


@dataclass(frozen=True)
class Estimate:
    """A metric's value with its confidence interval and the method that made it.

    Attributes:
        value: The metric; None where it is not defined, and ``reason`` says why.
        low: Lower end of the interval; None where there is none.
        high: Upper end of the interval; None where there is none.
        reason: Why the value or the interval is missing, or what is special about the interval.
        method: How the interval was made: wilson, effective wilson, jackknife, percentile, clopper-pearson, newcombe
            (area under the ROC curve), mover (difference of two metrics).
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    method: str = ""

    def to_dict(self) -> dict[str, float | str | None]:
        """Return the JSON value: ``value``, ``low``, ``high``; ``reason`` and ``method`` where there are such."""
        numbers: dict[str, float | str | None] = {"value": self.value, "low": self.low, "high": self.high}
        texts = {"reason": self.reason, "method": self.method}
        return {**numbers, **{name: text for name, text in texts.items() if text}}


@dataclass(frozen=True)
class Precision:
    """Small-sample corrections of a bootstrap: what its draws can't show, and its intervals must make up for.

    Attributes:
        inflation: Variance with new images over variance of the resamplings, at least 1.
        quantile: How many standard errors an interval reaches; more where there are few groups.
        worth: How many independent images one image counts as where no mistake was made. Less than 1 in groups, as
            without mistakes nothing shows how much the images of a group are alike.
    """

    inflation: float
    quantile: float
    worth: float = 1.0


def encode_groups(groups: Sequence[str | None]) -> NDArray[np.int64] | None:
    """Return the group of each image as a number (n,) from 0; None where no two images share a group.

    An image without a group is a group of its own.
    """
    # Prefixed, so that a group whose name is a number can't be mistaken for an image.
    named = [f"group {group}" if group is not None else f"image {place}" for place, group in enumerate(groups)]
    if not named:
        return None
    names, codes = np.unique(np.array(named, dtype=object), return_inverse=True)
    return codes.astype(np.int64) if len(names) < len(named) else None


def list_group_notes(groups: NDArray[np.int64] | None) -> list[str]:
    """Return the note that intervals resample whole groups; empty where images come in none."""
    count = 0 if groups is None else int(groups.max()) + 1
    if not count:
        return []
    return [f"the images come in {count} groups, and intervals resample whole groups"]


def compute_precision(
    labels: NDArray[np.int64], bootstrap: Bootstrap, groups: NDArray[np.int64] | None = None
) -> Precision:
    """Return the small-sample corrections of a bootstrap that draws these images or groups.

    Args:
        labels: (n,) class of each image; the strata.
        bootstrap: Whether strata are kept, and the confidence.
        groups: (n,) from `encode_groups`, or None.
    """
    if groups is not None:
        sizes = np.unique(groups, return_counts=True)[1]
        count = len(sizes)
        # The design effect of a mean of alike images (Kish, Survey Sampling, 1965), half of whose variance lies
        # between groups; an image's own group is larger than the mean group.
        worth = 1 / (1 + ((sizes**2).sum() / sizes.sum() - 1) / 2)
        return Precision(
            count / max(count - 1, 1), compute_two_sided_quantile(bootstrap.confidence, count), float(worth)
        )
    counts = np.unique(labels, return_counts=True)[1] if bootstrap.stratified else np.array([len(labels)])
    # A class's share of a mean varies as 1 / images; with one image of it, resampling shows nothing at all.
    inflation = (1 / np.maximum(counts - 1, 0.5)).sum() / (1 / counts).sum()
    return Precision(float(inflation), compute_two_sided_quantile(bootstrap.confidence))


def draw_weights(
    labels: NDArray[np.int64],
    bootstrap: Bootstrap,
    *,
    groups: NDArray[np.int64] | None = None,
    cells_a_sample: int = 0,
) -> Iterator[NDArray[np.float32]]:
    """Yield the bootstrap's weights (n, b) in chunks: how often each image is drawn in each resampling.

    Args:
        labels: (n,) class of each image; the strata.
        bootstrap: Number of resamplings, seed and stratification.
        groups: (n,) from `encode_groups`: whole groups are drawn then, whatever their classes.
        cells_a_sample: Numbers that the caller holds for each resampling, to keep the chunks small enough.

    Yields:
        (n, b) float32: how often each image was drawn, in each of b resamplings.
    """
    if groups is not None:
        yield from draw_group_weights(groups, bootstrap, cells_a_sample=cells_a_sample)
        return
    count = len(labels)
    strata = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if not bootstrap.stratified:
        strata = [np.arange(count)]
    generator = np.random.default_rng(bootstrap.seed)
    chunk = max(1, CHUNK_CELLS // max(count, cells_a_sample, 1))
    for start in range(0, bootstrap.samples, chunk):
        size = min(chunk, bootstrap.samples - start)
        weights = np.empty((count, size), dtype=np.float32)
        for members in strata:
            weights[members] = _draw_counts(generator, len(members), size)
        yield weights


def list_units(labels: NDArray[np.int64], bootstrap: Bootstrap, groups: NDArray[np.int64] | None = None) -> Units:
    """Return the jackknife's units, the images or groups that are left out one at a time.

    There are at most as many units as resamplings, so that the jackknife takes no longer than the bootstrap.
    """
    return build_units(
        labels, groups=groups, stratified=bootstrap.stratified, most=bootstrap.samples, seed=bootstrap.seed
    )


def leave_out_weights(units: Units, *, cells_a_sample: int = 0) -> Iterator[NDArray[np.float32]]:
    """Yield the jackknife's weights (n, b) in chunks: in each column all images but those of one unit."""
    yield from build_jackknife_weights(units, chunk_cells=CHUNK_CELLS, cells_a_sample=cells_a_sample)


def draw_group_weights(
    groups: NDArray[np.int64], bootstrap: Bootstrap, *, cells_a_sample: int = 0
) -> Iterator[NDArray[np.float32]]:
    """Yield the weights (n, b) of a cluster bootstrap in chunks, drawing whole groups, as their images are dependent.

    See Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8. It is not stratified: a group
    may hold several classes.

    Args:
        groups: (n,) number of each image's group, from 0.
        bootstrap: Number of resamplings, and seed.
        cells_a_sample: Numbers that the caller holds for each resampling, to keep the chunks small enough.

    Yields:
        (n, b) float32: how often each image was drawn, in each of b resamplings.
    """
    generator = np.random.default_rng(bootstrap.seed)
    count = int(groups.max()) + 1
    chunk = max(1, CHUNK_CELLS // max(len(groups), cells_a_sample, 1))
    for start in range(0, bootstrap.samples, chunk):
        yield _draw_counts(generator, count, min(chunk, bootstrap.samples - start))[groups]


def compute_percentile_interval(samples: NDArray[np.float64], confidence: float) -> tuple[float, float] | None:
    """Return the percentile interval: the middle ``confidence`` of (m,) resampled metrics; None where all are NaN.

    Resamplings in which the metric is not defined (NaN) are left out.
    """
    defined = samples[np.isfinite(samples)]
    if not len(defined):
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def compute_effective_images(per_class: NDArray[np.float64]) -> float:
    """Return the effective number of images of a mean over classes: (classes squared) / sum(1 / images of the class).

    A macro average varies as a share of this many images would, as a small class counts as much as a large one.
    """
    return float(len(per_class) ** 2 / (1 / per_class).sum())


def _draw_counts(generator: np.random.Generator, members: int, size: int) -> NDArray[np.float32]:
    """Return (members, size): how often each was drawn when drawing ``members`` times, ``size`` times over."""
    # One bincount over all resamplings is faster than a multinomial draw for each.
    drawn = generator.integers(0, members, (members, size))
    cells = drawn * size + np.arange(size)
    return np.bincount(cells.ravel(), minlength=members * size).reshape(members, size).astype(np.float32)


def estimate_from_samples(
    value: float | None,
    samples: NDArray[np.float64],
    bootstrap: Bootstrap,
    *,
    images: float | None,
    reason: str = "",
    precision: Precision | None = None,
    most: float | None = None,
) -> Estimate:
    """Return a metric with its bootstrap interval: effective Wilson for shares, else expanded percentiles.

    Args:
        value: The metric; None where it is not defined.
        samples: (m,) the metric of each resampling.
        bootstrap: Settings, for the confidence.
        images: How many images the share, or mean of shares, is of; None for a metric that is no share.
        reason: Why the metric is not defined.
        precision: Small-sample corrections; none by default.
        most: Effective number of images if all classes are equally hard. A class that happens to be without a mistake
            makes the resamplings show more than that; the geometric mean of both is taken then, which simulations
            support. By default there is no such limit.
    """
    if value is None:
        return Estimate(None, reason=reason)
    precision = precision or Precision(1.0, compute_two_sided_quantile(bootstrap.confidence))
    defined = samples[np.isfinite(samples)]
    wide = 1 - 2 * float(ndtr(-precision.quantile * precision.inflation**0.5))
    interval = compute_percentile_interval(defined, wide)
    if interval is None:
        return Estimate(value, reason="no interval: too many images and classes to resample")
    if images and np.ptp(defined) == 0 and round(value, 9) in (0.0, 1.0):
        return _exact_estimate(value, images * precision.worth, bootstrap.confidence)
    if images and 0 <= value <= 1:
        count = compute_effective_count(value, float(defined.var()) * precision.inflation)
        if count is not None:
            low, high = compute_wilson_interval(value, _believed(count, most), precision.quantile)
            return Estimate(value, float(low), float(high), method="effective wilson")
    return Estimate(value, *interval, method="percentile")


def estimate_from_left_out(
    value: float | None,
    left_out: LeftOut,
    confidence: float,
    *,
    reason: str = "",
    flawless: float | None = None,
    most: float | None = None,
    scale: Scale = "plain",
    quantile: float | None = None,
) -> Estimate:
    """Return a metric with its jackknife interval: effective Wilson for shares, else symmetric on the metric's scale.

    Args:
        value: The metric; None where it is not defined.
        left_out: The metric without each unit.
        confidence: Coverage of the interval, in (0, 1).
        reason: Why the metric is not defined.
        flawless: How many independent images a share of 0 or 1 counts as; None for a metric that is no share.
        most: As in `estimate_from_samples`.
        scale: Scale on which the interval of a metric that is no share is symmetric.
        quantile: How many standard errors the interval reaches; by default Student's t with the degrees of freedom of
            the jackknife's variance.
    """
    if value is None:
        return Estimate(None, reason=reason)
    # Rounded, as a mean of shares that are all 1 may come out just below 1.
    if flawless and round(value, 9) in (0.0, 1.0):
        return _exact_estimate(value, flawless, confidence)
    spread = compute_spread(left_out)
    if spread is None:
        missing = np.isnan(left_out.values).all()
        what = "too many images and classes to resample" if missing else "the metric rests on one image or group"
        return Estimate(value, reason=f"no interval: {what}")
    if spread.error <= _ROUNDING * abs(value):
        return Estimate(value, reason="no interval: the metric is the same without any one image or group")
    reach = spread.quantile(confidence) if quantile is None else quantile
    count = compute_effective_count(value, spread.error**2) if flawless and 0 <= value <= 1 else None
    if count is not None:
        low, high = compute_wilson_interval(value, _believed(count, most), reach)
        return Estimate(value, float(low), float(high), method="effective wilson")
    return Estimate(value, *compute_scaled_interval(value, reach * spread.error, scale), method="jackknife")


def estimate_mean(
    values: NDArray[np.float64],
    bootstrap: Bootstrap,
    *,
    groups: NDArray[np.int64] | None = None,
    scale: Scale = "plain",
) -> Estimate:
    """Return the mean of numbers that are no shares, with its jackknife interval.

    Args:
        values: (n,) number of each image.
        bootstrap: Settings, for the confidence and the largest number of jackknife units; not stratified.
        groups: (n,) from `encode_groups`, or None.
        scale: Scale on which the interval is symmetric.
    """
    units = list_units(np.zeros(len(values), np.int64), bootstrap, groups)
    left_out = compute_jackknife_means(values, np.ones(len(values)), units)
    return estimate_from_left_out(float(values.mean()), left_out, bootstrap.confidence, scale=scale)


def _believed(count: float, most: float | None) -> float:
    """Return the effective number of images in use: that of the variance, limited by ``most``."""
    return count if most is None or count <= most else (count * most) ** 0.5


def estimate_share(hits: float, images: float, confidence: float) -> Estimate:
    """Return a share (proportion) of independent images with Wilson's interval; at 0 and 1 Clopper and Pearson's.

    Near its ends Wilson's interval is too short (Brown, Cai and DasGupta, Statistical Science 16, 2001, section 4.1.1).
    """
    share = hits / images
    if round(share, 9) in (0.0, 1.0):
        return _exact_estimate(share, images, confidence)
    low, high = compute_wilson_interval(share, images, compute_two_sided_quantile(confidence))
    return Estimate(share, float(low), float(high), method="wilson")


def estimate_f1(right: float, images: float, predicted: float, confidence: float) -> Estimate:
    """Return a class's F1 with the interval that follows from Wilson's interval of its Jaccard index.

    F1 is 2J / (1 + J), where J (Jaccard) is the share of true positives among the images that are of the class or were
    predicted as it. J is a share, so that its interval is known; the ends go through the same formula.

    Args:
        right: True positives.
        images: Images of the class.
        predicted: Images that were predicted as the class.
        confidence: Coverage of the interval, in (0, 1).
    """
    either = images + predicted - right
    share = estimate_share(right, either, confidence)
    low, high = (2 * end / (1 + end) for end in (share.low or 0.0, share.high or 0.0))
    return Estimate(2 * right / (images + predicted), low, high, share.reason, share.method)


def _exact_estimate(value: float, images: float, confidence: float) -> Estimate:
    """Return a share of 0 or 1 with the exact interval of Clopper and Pearson."""
    bound = compute_exact_bound(images, confidence)
    how = f"no {'mistake' if value else 'hit'} to resample: exact interval of Clopper and Pearson"
    return Estimate(value, bound if value else 0.0, 1.0 if value else 1 - bound, how, "clopper-pearson")
