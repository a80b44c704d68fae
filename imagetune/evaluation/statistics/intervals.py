"""How far a metric would move with other images of the same kind.

The bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13): draw as many images as there
are, with repetition, compute the metric, repeat. Where images come in groups (of one patient, one film), whole groups
are drawn: images of a group go together. Drawing is done as counts: a resampling is a column of how often each
image was drawn, and the metrics are computed from such weights.

What the interval is made of depends on the metric. One in [0, 1] that is a share or a mean of shares gets Wilson's, of
as many images as its variance says that it is worth. Losses, errors and correlations, and every metric of images in
groups, are judged by leaving out images or groups one at a time (`imagetune.evaluation.statistics.jackknife`): for them
simulations show resampling to promise too much. Any other metric gets the middle 95% of the resamplings, a little
widened, as drawing n of n varies less than n new images would (expanded percentiles: Hesterberg, The American
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
    left_out_means,
    left_out_weights,
    scaled_interval,
    spread_of,
    units_of,
)
from imagetune.evaluation.statistics.proportions import effective_count, two_sided_quantile, wilson_interval
from imagetune.recipe.metrics import Scale

# Weights of this many cells (float32) are in memory at once: long vector operations, small memory.
CHUNK_CELLS = 2_000_000
# Metrics that differ by less are the same.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Bootstrap:
    """How images are resampled for intervals: how often, from which seed, and by class or not.

    Attributes:
        samples: Resamplings.
        confidence: Coverage of the intervals, in (0, 1).
        seed: The same seed gives the same intervals.
        stratified: Keep the number of images of each class as it is, as in a test set that was put together so.
    """

    samples: int = 1000
    confidence: float = 0.95
    seed: int = 0
    stratified: bool = True


@dataclass(frozen=True)
class Estimate:
    """A metric with its confidence interval, and how that was made.

    Attributes:
        value: None where the metric is not defined; ``reason`` says why.
        low: Lower end of the interval; None where there is none.
        high: Upper end.
        reason: Why something is missing, or what is special about an interval.
        method: How the interval was made: wilson, effective wilson, jackknife, percentile, clopper-pearson, newcombe
            (of an area under the ROC curve), mover (of a difference).
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    method: str = ""

    def to_dict(self) -> dict[str, float | str | None]:
        """Return the JSON value: ``value``, ``low``, ``high``; ``reason`` and ``method`` where there are such."""
        metrics: dict[str, float | str | None] = {"value": self.value, "low": self.low, "high": self.high}
        told = {"reason": self.reason, "method": self.method}
        return {**metrics, **{name: text for name, text in told.items() if text}}


@dataclass(frozen=True)
class Precision:
    """What the draws of a bootstrap can't show, and intervals must make up for.

    Attributes:
        inflation: Variance with new images over variance of the resamplings, at least 1.
        quantile: How many standard errors an interval reaches; more where there are few groups.
        worth: As how many independent images one counts where no mistake was made: in groups less than 1, as then
            nothing shows how alike their images are.
    """

    inflation: float
    quantile: float
    worth: float = 1.0


def group_codes(groups: Sequence[str | None]) -> NDArray[np.int64] | None:
    """Return a number for each image's group (n,), equal where the group is; None where no two share one.

    An image without a group is one of its own.
    """
    named = [f"group {group}" if group is not None else f"image {place}" for place, group in enumerate(groups)]
    if not named:
        return None
    names, codes = np.unique(np.array(named, dtype=object), return_inverse=True)
    return codes.astype(np.int64) if len(names) < len(named) else None


def group_notes(groups: NDArray[np.int64] | None) -> list[str]:
    """Return what a reader should know about intervals of images in groups."""
    count = 0 if groups is None else int(groups.max()) + 1
    if not count:
        return []
    return [f"the images come in {count} groups, and intervals are made of whole groups"]


def precision_of(labels: NDArray[np.int64], bootstrap: Bootstrap, groups: NDArray[np.int64] | None = None) -> Precision:
    """Return what intervals from these draws must make up for.

    Args:
        labels: (n,) class of each image; the strata.
        bootstrap: Whether strata are kept, and the confidence.
        groups: (n,) from `group_codes`, or None.
    """
    if groups is not None:
        sizes = np.unique(groups, return_counts=True)[1]
        count = len(sizes)
        # The design effect of a mean of alike images (Kish, Survey Sampling, 1965), half of whose variance lies
        # between groups; an image's own group is larger than the mean group.
        worth = 1 / (1 + ((sizes**2).sum() / sizes.sum() - 1) / 2)
        return Precision(count / max(count - 1, 1), two_sided_quantile(bootstrap.confidence, count), float(worth))
    counts = np.unique(labels, return_counts=True)[1] if bootstrap.stratified else np.array([len(labels)])
    # A class's share of a mean varies as 1 / images; with one image of it, resampling shows nothing at all.
    inflation = (1 / np.maximum(counts - 1, 0.5)).sum() / (1 / counts).sum()
    return Precision(float(inflation), two_sided_quantile(bootstrap.confidence))


def resampled_weights(
    labels: NDArray[np.int64],
    bootstrap: Bootstrap,
    *,
    groups: NDArray[np.int64] | None = None,
    cells_a_sample: int = 0,
) -> Iterator[NDArray[np.float32]]:
    """Yield how often each image is drawn in each resampling, (n, b) in chunks.

    Args:
        labels: (n,) class of each image; the strata.
        bootstrap: How many, and from which seed.
        groups: (n,) from `group_codes`: whole groups are drawn then, whatever their classes.
        cells_a_sample: Numbers that the caller holds for each resampling, to keep the chunks small enough.

    Yields:
        (n, b) float32: how often each image was drawn, in each of b resamplings.
    """
    if groups is not None:
        yield from group_weights(groups, bootstrap, cells_a_sample=cells_a_sample)
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


def units_left_out(labels: NDArray[np.int64], bootstrap: Bootstrap, groups: NDArray[np.int64] | None = None) -> Units:
    """Return what is left out one at a time: as many units as resamplings at most; arguments as of `precision_of`."""
    return units_of(labels, groups=groups, stratified=bootstrap.stratified, most=bootstrap.samples, seed=bootstrap.seed)


def weights_left_out(units: Units, *, cells_a_sample: int = 0) -> Iterator[NDArray[np.float32]]:
    """Yield (n, b) weights in chunks, a column a unit: all images but its own; see `resampled_weights`."""
    yield from left_out_weights(units, chunk_cells=CHUNK_CELLS, cells_a_sample=cells_a_sample)


def group_weights(
    groups: NDArray[np.int64], bootstrap: Bootstrap, *, cells_a_sample: int = 0
) -> Iterator[NDArray[np.float32]]:
    """Yield all resamplings in chunks, drawing whole groups: images of one group are not independent.

    The cluster bootstrap (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). It is not
    stratified: a group may hold several classes.

    Args:
        groups: (n,) number of each image's group, from 0.
        bootstrap: How many, and from which seed.
        cells_a_sample: Numbers that the caller holds for each resampling, to keep the chunks small enough.

    Yields:
        (n, b) float32: how often each image was drawn, in each of b resamplings.
    """
    generator = np.random.default_rng(bootstrap.seed)
    count = int(groups.max()) + 1
    chunk = max(1, CHUNK_CELLS // max(len(groups), cells_a_sample, 1))
    for start in range(0, bootstrap.samples, chunk):
        yield _draw_counts(generator, count, min(chunk, bootstrap.samples - start))[groups]


def percentile_interval(samples: NDArray[np.float64], confidence: float) -> tuple[float, float] | None:
    """Return the middle ``confidence`` of (m,) resampled metrics; None where no resampling gave a metric.

    Resamplings in which the metric is not defined (NaN) are left out.
    """
    defined = samples[np.isfinite(samples)]
    if not len(defined):
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def flawless_bound(images: float, confidence: float) -> float:
    """Return the lower end for a share of which no image was missed.

    Resampling images without a mistake never makes one, so the bootstrap would claim certainty. This is the exact
    bound of Clopper and Pearson (Biometrika 26, 1934) for n of n: the share at which n of n is still as likely as one
    tail.

    Args:
        images: How many images the share is of; need not be whole.
        confidence: Coverage of the interval, in (0, 1).
    """
    return float(((1 - confidence) / 2) ** (1 / images))


def effective_images(per_class: NDArray[np.float64]) -> float:
    """Return how many images a mean over classes is worth: (classes squared) / sum(1 / images of the class).

    A share averaged over equally important classes varies as one of this many images would; a small class weighs
    on it as much as a large one.
    """
    return float(len(per_class) ** 2 / (1 / per_class).sum())


def _draw_counts(generator: np.random.Generator, members: int, size: int) -> NDArray[np.float32]:
    """Return (members, size): how often each was drawn when drawing ``members`` times, ``size`` times over."""
    drawn = generator.integers(0, members, (members, size))
    cells = drawn * size + np.arange(size)
    return np.bincount(cells.ravel(), minlength=members * size).reshape(members, size).astype(np.float32)


def estimate(
    value: float | None,
    samples: NDArray[np.float64],
    bootstrap: Bootstrap,
    *,
    images: float | None,
    reason: str = "",
    precision: Precision | None = None,
    most: float | None = None,
) -> Estimate:
    """Return a metric with the interval that follows from resampling.

    Args:
        value: The metric.
        samples: (m,) the metric of each resampling.
        bootstrap: For the confidence.
        images: How many images the share, or mean of shares, is of; None for a metric that is no share.
        reason: Why there is no value, where there is none.
        precision: What the draws can't show; by default nothing.
        most: As many independent images a share is worth if all classes are equally hard. A class that happens to be
            without a mistake makes resamplings promise more; half of that is believed (the geometric mean), which
            simulations support. By default all is believed.
    """
    if value is None:
        return Estimate(None, reason=reason)
    precision = precision or Precision(1.0, two_sided_quantile(bootstrap.confidence))
    defined = samples[np.isfinite(samples)]
    wide = 1 - 2 * float(ndtr(-precision.quantile * precision.inflation**0.5))
    interval = percentile_interval(defined, wide)
    if interval is None:
        return Estimate(value, reason="no interval: too many images and classes to resample")
    if images and np.ptp(defined) == 0 and round(value, 9) in (0.0, 1.0):
        return _exact_estimate(value, images * precision.worth, bootstrap.confidence)
    if images and 0 <= value <= 1:
        count = effective_count(value, float(defined.var()) * precision.inflation)
        if count is not None:
            low, high = wilson_interval(value, _believed(count, most), precision.quantile)
            return Estimate(value, float(low), float(high), method="effective wilson")
    return Estimate(value, *interval, method="percentile")


def left_out_estimate(
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
    """Return a metric with the interval that follows from leaving out images or groups.

    Args:
        value: The metric.
        left_out: The metric without each unit.
        confidence: Coverage of the interval, in (0, 1).
        reason: Why there is no value, where there is none.
        flawless: How many independent images a share of 0 or 1 counts as; None for a metric that is no share.
        most: As in `estimate`.
        scale: On which scale the interval of a metric that is no share is symmetric.
        quantile: How many standard errors it reaches; by default as many as the scatter of the variance asks for.
    """
    if value is None:
        return Estimate(None, reason=reason)
    if flawless and round(value, 9) in (0.0, 1.0):
        return _exact_estimate(value, flawless, confidence)
    spread = spread_of(left_out)
    if spread is None:
        what = "too many images and classes" if np.isnan(left_out.values).all() else "it rests on one image or group"
        return Estimate(value, reason=f"no interval: {what}")
    if spread.error <= _ROUNDING * abs(value):
        return Estimate(value, reason="no interval: no image or group makes a difference")
    reach = spread.quantile(confidence) if quantile is None else quantile
    count = effective_count(value, spread.error**2) if flawless and 0 <= value <= 1 else None
    if count is not None:
        low, high = wilson_interval(value, _believed(count, most), reach)
        return Estimate(value, float(low), float(high), method="effective wilson")
    return Estimate(value, *scaled_interval(value, reach * spread.error, scale), method="jackknife")


def mean_estimate(
    values: NDArray[np.float64],
    bootstrap: Bootstrap,
    *,
    groups: NDArray[np.int64] | None = None,
    scale: Scale = "plain",
) -> Estimate:
    """Return the mean of numbers that are no shares, with its interval.

    Args:
        values: (n,) of each image.
        bootstrap: For the confidence, and how many images or groups are left out singly at most; not stratified.
        groups: (n,) from `group_codes`, or None.
        scale: On which scale the interval is symmetric.
    """
    units = units_left_out(np.zeros(len(values), np.int64), bootstrap, groups)
    left_out = left_out_means(values, np.ones(len(values)), units)
    return left_out_estimate(float(values.mean()), left_out, bootstrap.confidence, scale=scale)


def _believed(count: float, most: float | None) -> float:
    """Return how many images a share is taken to be worth, by its variance and as `estimate` says of ``most``."""
    return count if most is None or count <= most else (count * most) ** 0.5


def share_estimate(hits: float, images: float, confidence: float) -> Estimate:
    """Return a share of independent images with Wilson's interval; at 0 and 1 with that of Clopper and Pearson.

    Near its ends Wilson's interval is too short (Brown, Cai and DasGupta, Statistical Science 16, 2001, section 4.1.1).
    """
    share = hits / images
    if round(share, 9) in (0.0, 1.0):
        return _exact_estimate(share, images, confidence)
    low, high = wilson_interval(share, images, two_sided_quantile(confidence))
    return Estimate(share, float(low), float(high), method="wilson")


def f1_estimate(right: float, images: float, predicted: float, confidence: float) -> Estimate:
    """Return a class's F1 with an interval that follows from that of a share.

    F1 is 2J / (1 + J), where J is the share of right images among those that are of the class or were predicted as it:
    the ends of J's interval go through the same formula.

    Args:
        right: Images of the class that were found.
        images: Images of the class.
        predicted: Images that were predicted as it.
        confidence: Coverage of the interval, in (0, 1).
    """
    either = images + predicted - right
    share = share_estimate(right, either, confidence)
    low, high = (2 * end / (1 + end) for end in (share.low or 0.0, share.high or 0.0))
    return Estimate(2 * right / (images + predicted), low, high, share.reason, share.method)


def _exact_estimate(value: float, images: float, confidence: float) -> Estimate:
    """Return a share of 0 or 1 with its interval."""
    bound = flawless_bound(images, confidence)
    how = f"no {'mistake' if value else 'hit'} to resample: exact interval of Clopper and Pearson"
    return Estimate(value, bound if value else 0.0, 1.0 if value else 1 - bound, how, "clopper-pearson")
