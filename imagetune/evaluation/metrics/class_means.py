"""Intervals of the metrics of classes and of means over classes (macro averages), by the jackknife.

A mean over classes varies as a share of an effective number of images would. What no image at hand shows, such as a
mistake in a class without one, comes on top.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.statistics.intervals import (
    Estimate,
    ShareSize,
    compute_effective_images,
    estimate_from_left_out,
)
from imagetune.evaluation.statistics.jackknife import LeftOut
from imagetune.evaluation.statistics.proportions import (
    compute_auc_images,
    compute_effective_count,
    compute_exact_bound,
    compute_two_sided_quantile,
)

Floats = NDArray[np.float64]

# Metrics of a class that vary as shares of images do.
_BINOMIAL = ("precision", "recall", "f1")
# With how many images the mean over classes counts in what is known of the hardness of each.
_DRAWN = 2.0


@dataclass(frozen=True)
class ClassShares:
    """The metrics of classes that a metric is the mean of.

    Attributes:
        values: (k,) the metric of each class; NaN for one without images, which is left out of the mean.
        images: (k,) how many images each is worth: of how many a share would be as sure; 0 of a class whose metric is
            only 0 by convention.
        binomial: Whether each varies as a share of so many images does, or only where it is 0 or 1.
    """

    values: Floats
    images: Floats
    binomial: bool = True

    @property
    def counted(self) -> NDArray[np.bool_]:
        """(k,) which classes are worth any image."""
        return np.isfinite(self.values) & (self.images > 0)

    @property
    def effective(self) -> float:
        """How many images the mean is worth if all classes are equally hard; 0 where no class is worth any."""
        return compute_effective_images(self.images[self.counted]) if self.counted.any() else 0.0

    @property
    def most(self) -> float | None:
        """How many images the mean is worth as hard as the classes are; None for metrics that are no shares.

        What a class shows of its hardness is drawn towards the mean, the less the more images it has: a class without a
        mistake would count as without any variance.
        """
        if not self.binomial or not self.counted.any():
            return None
        values, images = self.values[self.counted], self.images[self.counted]
        mean = float(values.mean())
        drawn = (values * images + _DRAWN * mean) / (images + _DRAWN)
        variance = float((drawn * (1 - drawn) / images).sum()) / len(values) ** 2
        return compute_effective_count(mean, variance)


def widen_for_classes(found: Estimate, shares: ClassShares, confidence: float) -> Estimate:
    """Return a mean over classes whose interval allows for what classes without a mistake, or a hit, leave open.

    No resampling and no image left out shows a mistake that was not made: a class of one image, missed, could be found
    nine times out of ten. So the ends reach at least as far as the mean would go if these classes were at the end of
    their exact interval (Clopper and Pearson), all together as one share of their effective number of images.
    """
    if found.value is None:
        return found
    low, high = (found.value if end is None else end for end in (found.low, found.high))
    rounded = np.round(shares.values, 9)
    present = np.isfinite(rounded).sum()
    for extreme in (0.0, 1.0):
        sure = rounded == extreme
        if sure.any():
            reach = sum_open_ends(shares.images[sure], confidence) / present
            # What is wholly unknown comes on top of what the other classes leave open.
            if (shares.images[sure] == 0).any():
                reach += (high - found.value) * (1 - sure.sum() / present)
            low, high = (min(low, found.value - reach), high) if extreme else (low, max(high, found.value + reach))
    low, high = max(low, 0.0), min(high, 1.0)
    # Without any interval and without such classes there is nothing to go by.
    if low == high or (low, high) == (found.low, found.high):
        return found
    return Estimate(found.value, low, high, method=found.method or "clopper-pearson")


def sum_open_ends(images: Floats, confidence: float) -> float:
    """Return how far the sum of some classes' shares may be from what it seems, none of which shows any spread.

    Args:
        images: (k,) how many independent images each is of; of none it may be anything.
        confidence: Coverage of the interval, in (0, 1).
    """
    some = images[images > 0]
    bound = compute_exact_bound(compute_effective_images(some), confidence) if len(some) else 0.0
    return float(len(images) - len(some) + len(some) * (1 - bound))


def build_class_shares(metric: str, values: Floats, *, true: Floats, predicted: Floats, images: int) -> ClassShares:
    """Return the metrics of classes with how many images each is worth.

    Args:
        metric: precision, recall, f1, roc_auc or average_precision.
        values: (k,) the metric of each class.
        true: (k,) images of each class.
        predicted: (k,) images that were predicted as each class.
        images: Number of images.
    """
    if metric == "f1":
        # Each of the two kinds of mistakes costs half as much as in recall. Where none was made, one image may bring
        # both kinds into the mean; and without a hit a share of hits is worth twice as much in F1.
        worth = np.select([values == 1, values == 0], [true, (true + predicted) / 2], true + predicted)
    elif metric == "roc_auc":
        # The areas of two classes are the same number, those of many are nearly independent.
        worth = compute_auc_images(true, images - true) * (1 - 1 / max((true > 0).sum(), 1))
    else:
        worth = predicted if metric == "precision" else true
    return ClassShares(values, worth.astype(np.float64), metric in _BINOMIAL)


@dataclass(frozen=True)
class Jackknife:
    """Settings of the jackknife's intervals.

    Attributes:
        strata: (u,) class of each image or group that is left out.
        confidence: Coverage of the intervals.
        worth: As in `imagetune.evaluation.statistics.bootstrap.Precision`.
        grouped: Whether groups are left out instead of images.
    """

    strata: NDArray[np.int64]
    confidence: float
    worth: float
    grouped: bool

    def estimate(
        self,
        value: float | None,
        others: Floats,
        *,
        images: float | None,
        most: float | None,
        reason: str = "",
    ) -> Estimate:
        """Return a metric with its interval, from the metric without each image or group.

        Args:
            value: The metric; None or NaN where it is not defined.
            others: (u,) the metric without each image or group.
            images: Of how many images a share is; None for a metric that is no share.
            most: Largest effective number of images of a share, or None.
            reason: Why the metric is not defined.
        """
        # Wilson's interval already allows for few mistakes; in simulations a wider quantile covers too much.
        plain = images is not None and not self.grouped
        return estimate_from_left_out(
            None if value is None or np.isnan(value) else value,
            LeftOut(others, self.strata),
            self.confidence,
            reason=reason,
            share=ShareSize(images, self.worth, most) if images else None,
            quantile=compute_two_sided_quantile(self.confidence) if plain else None,
        )

    def estimate_class(self, index: int, others: Floats, shares: ClassShares, *, reason: str) -> Estimate:
        """Return the metric of a class with its interval."""
        images = float(shares.images[index])
        most = images if shares.binomial else None
        return self.estimate(float(shares.values[index]), others, images=images, most=most, reason=reason)

    def estimate_mean(self, value: float | None, others: Floats, shares: ClassShares, *, reason: str = "") -> Estimate:
        """Return a mean over classes with its interval, which allows for classes that show nothing."""
        found = self.estimate(value, others, images=shares.effective or None, most=shares.most, reason=reason)
        return widen_for_classes(found, replace(shares, images=self.worth * shares.images), self.confidence)
