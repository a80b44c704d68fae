"""Confidence intervals of metrics: bootstrap, jackknife and Wilson's interval, each where it keeps its coverage.

Where images come in groups (of one patient, one film), whole groups are left out or drawn, because images of a group
are not independent.

The kind of interval depends on the metric. A share gets Wilson's interval; a mean of shares, or a share of images in
groups, gets it for an effective number of images, which follows from its jackknife variance
(`imagetune.evaluation.statistics.jackknife`), and a mean over classes reaches as far as its classes without a mistake
or without a hit leave open. Losses, errors and correlations get the jackknife, because the bootstrap's intervals of
these are too short in simulations. What compares two sets of predictions gets expanded percentiles of the bootstrap:
the middle 95% of the resamplings, a little widened, as drawing n of n varies less than n new images would (Hesterberg,
The American Statistician 69, 2015).

No interval has a length of 0: that nothing differs among the images at hand doesn't mean that nothing would among
others. Where nothing is known of those, there is no interval, and a reason. None reaches beyond what its metric can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from imagetune.data.splits.groups import describe_groups
from imagetune.evaluation.statistics.bootstrap import CHUNK_CELLS, Bootstrap, Precision, compute_percentile_interval
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

# A share is never taken for one of more than this many times the images that it would be of if all were equally hard.
_MOST_WORTH = 3.0
# Metrics that differ by less, relative to their size, differ by rounding only.
_ROUNDING = 1e-6


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


def list_group_notes(groups: Sequence[str | None]) -> list[str]:
    """Return the note that intervals count groups, and how many images share one; empty where images come in none."""
    found = describe_groups(groups)
    return [f"{found}; intervals count groups, not images"] if found else []


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


def compute_effective_images(per_class: NDArray[np.float64]) -> float:
    """Return the effective number of images of a mean over classes: (classes squared) / sum(1 / images of the class).

    A macro average varies as a share of this many images would, as a small class counts as much as a large one.
    """
    return float(len(per_class) ** 2 / (1 / per_class).sum())


def estimate_from_samples(value: float, samples: NDArray[np.float64], precision: Precision) -> Estimate:
    """Return a metric with the expanded percentiles of its bootstrap; without an interval where no resampling differs.

    Args:
        value: The metric.
        samples: (m,) the metric of each resampling.
        precision: Small-sample corrections, and how many standard errors the interval reaches.
    """
    wide = 1 - 2 * float(ndtr(-precision.quantile * precision.inflation**0.5))
    return estimate_percentiles(value, samples, wide)


def estimate_percentiles(value: float, samples: NDArray[np.float64], confidence: float) -> Estimate:
    """Return a metric with the percentile interval of its (m,) resampled values.

    Values that are all the same show nothing of what other images would do, and give no interval.
    """
    interval = compute_percentile_interval(samples, confidence)
    if interval is None:
        return Estimate(value, reason="no interval: too many images and classes to resample")
    if interval[1] - interval[0] <= _ROUNDING * max(map(abs, interval)):
        return Estimate(value, reason="no interval: the metric is the same in every resampling")
    return Estimate(value, *interval, method="percentile")


@dataclass(frozen=True)
class ShareSize:
    """Of how many images a share is, for its interval.

    Attributes:
        images: Number of images, above 0.
        worth: How many independent images each counts as where the share is 0 or 1.
        most: How many images it would be of if nothing but their number mattered. A class or group that happens to be
            without a mistake makes the variance show more, which then counts half, on a logarithmic scale. None where
            nothing but the variance tells it.
    """

    images: float
    worth: float = 1.0
    most: float | None = None

    def limit(self, count: float) -> float:
        """Return the effective number of images to use, of that which the variance shows."""
        if self.most is not None and count > self.most:
            count = (count * self.most) ** 0.5
        # A variance near 0 is more likely a lack of images than certainty.
        return min(count, _MOST_WORTH * (self.most or self.images))


def estimate_from_left_out(
    value: float | None,
    left_out: LeftOut,
    confidence: float,
    *,
    reason: str = "",
    share: ShareSize | None = None,
    scale: Scale = "plain",
    quantile: float | None = None,
) -> Estimate:
    """Return a metric with its jackknife interval: effective Wilson for shares, else symmetric on the metric's scale.

    Args:
        value: The metric; None where it is not defined.
        left_out: The metric without each unit.
        confidence: Coverage of the interval, in (0, 1).
        reason: Why the metric is not defined.
        share: The size of a share; None for a metric that is no share.
        scale: Scale on which the interval of a metric that is no share is symmetric.
        quantile: How many standard errors the interval reaches; by default Student's t with the degrees of freedom of
            the jackknife's variance.
    """
    if value is None:
        return Estimate(None, reason=reason)
    # Rounded, as a mean of shares that are all 1 may come out just below 1.
    if share and round(value, 9) in (0.0, 1.0):
        return _exact_estimate(value, share.images * share.worth, confidence)
    spread = compute_spread(left_out)
    if spread is None:
        missing = np.isnan(left_out.values).all()
        what = "too many images and classes to resample" if missing else "the metric rests on one image or group"
        return Estimate(value, reason=f"no interval: {what}")
    reach = spread.quantile(confidence) if quantile is None else quantile
    if share and 0 <= value <= 1:
        count = share.limit(compute_effective_count(value, spread.error**2) or inf)
        low, high = compute_wilson_interval(value, count, reach)
        return Estimate(value, float(low), float(high), method="effective wilson")
    if spread.error <= _ROUNDING * abs(value):
        return Estimate(value, reason="no interval: the metric is the same without any one image or group")
    ends = compute_scaled_interval(value, reach * spread.error, scale)
    if not all(map(isfinite, ends)):
        return Estimate(value, reason="no interval: too few images to say")
    return Estimate(value, *ends, method="jackknife")


def limit_estimate(found: Estimate, low: float, high: float) -> Estimate:
    """Return an estimate whose interval lies between the smallest and the largest value that its metric can have."""
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(found.low, low), high=min(found.high, high))


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
