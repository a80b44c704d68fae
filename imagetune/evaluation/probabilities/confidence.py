"""The confidence of each prediction, whether the prediction was right, and intervals of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from imagetune.evaluation.context import Examined, ExaminedSplit
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.intervals import (
    Bootstrap,
    Estimate,
    Precision,
    group_codes,
    left_out_estimate,
    mean_estimate,
    percentile_interval,
    precision_of,
    resampled_weights,
    share_estimate,
    units_left_out,
)
from imagetune.evaluation.statistics.jackknife import left_out_means
from imagetune.recipe.evaluate import EvaluateConfig
from imagetune.recipe.metrics import Scale

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PredictedClasses:
    """The predictions to n images whose truth is known.

    Attributes:
        confidence: (n,) float64 in [0, 1], the probability that the model gives its prediction.
        right: (n,) whether it was right.
    """

    confidence: Floats
    right: Bools


@dataclass(frozen=True)
class Draws:
    """How n images are drawn anew for intervals: whatever their classes, whole groups where there are groups.

    Attributes:
        images: n.
        bootstrap: How often, and from which seed; not stratified.
        groups: (n,) from `group_codes`, or None.
    """

    images: int
    bootstrap: Bootstrap
    groups: Ints | None = None

    @property
    def precision(self) -> Precision:
        """How much wider intervals have to be than the draws show, as they draw from few images or groups."""
        return precision_of(np.zeros(self.images, np.int64), self.bootstrap, self.groups)

    @property
    def confidence(self) -> float:
        """Share of the resampled metrics that makes an interval, few images or groups accounted for."""
        precision = self.precision
        return 1 - 2 * float(ndtr(-precision.quantile * precision.inflation**0.5))

    def weights(self) -> Iterator[NDArray[np.float32]]:
        """Yield (n, b) how often each image was drawn, all resamplings in chunks."""
        yield from resampled_weights(np.zeros(self.images, np.int64), self.bootstrap, groups=self.groups)

    def metric(self, value: float, samples: Floats) -> Estimate:
        """Return a metric with the interval of its (m,) resampled values."""
        low, high = percentile_interval(samples, self.confidence) or (None, None)
        return Estimate(value, low, high, method="percentile")

    def mean(self, values: Floats, *, scale: Scale = "plain") -> Estimate:
        """Return the mean of (n,) values with its interval, symmetric on the given scale."""
        return mean_estimate(values, self.bootstrap, groups=self.groups, scale=scale)

    def of(self, rows: Bools) -> Draws:
        """Return how some of the images (n,) are drawn, their groups as they are."""
        groups = None if self.groups is None else np.unique(self.groups[rows], return_inverse=True)[1]
        return Draws(int(rows.sum()), self.bootstrap, groups)

    def share(self, hits: Bools, among: Bools | None = None, *, reason: str = "no images") -> Estimate:
        """Return the share of hits with Wilson's interval, where there are groups of as many images as it is worth.

        Args:
            hits: (n,) which images count.
            among: (n,) of which images; by default all.
            reason: Why there is no share, where ``among`` has none.
        """
        among = np.ones(self.images, np.bool_) if among is None else among
        hit, total = int((hits & among).sum()), int(among.sum())
        if not total:
            return Estimate(None, reason=reason)
        if self.groups is None:
            return share_estimate(hit, total, self.bootstrap.confidence)
        units = units_left_out(np.zeros(self.images, np.int64), self.bootstrap, self.groups)
        return left_out_estimate(
            hit / total,
            left_out_means(hits.astype(np.float64), among.astype(np.float64), units),
            self.bootstrap.confidence,
            flawless=total * self.precision.worth,
            most=float(total),
        )


def draws_of(split: ExaminedSplit, config: EvaluateConfig, *, seed: int) -> Draws:
    """Return how the images of a split whose truth is known are drawn anew."""
    known = known_rows(split.predictions)
    bootstrap = Bootstrap(config.bootstrap_samples, config.confidence, seed, stratified=False)
    groups = [record.group for record, take in zip(split.records, known, strict=True) if take]
    return Draws(len(groups), bootstrap, group_codes(groups))


def known_rows(predictions: Predictions) -> Bools:
    """Return (n,) which images have a truth to compare with: a label among the classes; of other tasks all."""
    if predictions.rule.task in ("single_label", "ordinal"):
        return predictions.labels >= 0
    return np.ones(len(predictions.paths), dtype=np.bool_)


def predictions_of(predictions: Predictions) -> PredictedClasses:
    """Return the predictions with their probabilities.

    For single_label and ordinal the prediction is a class, for multi_label the whole set of labels: its probability is
    the product of the labels' own, as if they were independent, and it is right where every label is.

    Args:
        predictions: Of any task but regression.

    Raises:
        ValueError: The task is regression.
    """
    if predictions.rule.task == "regression":
        raise ValueError("numbers have no probabilities")
    known = known_rows(predictions)
    probabilities = predictions.probabilities[known]
    if predictions.rule.task == "multi_label":
        given = predictions.given[known]
        agreed = np.where(given, probabilities, 1 - probabilities)
        return PredictedClasses(agreed.prod(axis=1), (given == (predictions.targets[known] >= 0.5)).all(axis=1))
    chosen = predictions.predicted[known]
    return PredictedClasses(probabilities[np.arange(len(chosen)), chosen], chosen == predictions.labels[known])


def truth_matrix(predictions: Predictions) -> Floats:
    """Return (n, k) zeros and ones: which classes are true of each image whose truth is known."""
    if predictions.rule.task == "multi_label":
        return (predictions.targets >= 0.5).astype(np.float64)
    labels = predictions.labels[known_rows(predictions)]
    truth = np.zeros((len(labels), len(predictions.class_names)))
    truth[np.arange(len(labels)), labels] = 1.0
    return truth


def tested_split(run: Examined) -> str:
    """Return which split metrics are told of: test, or val where nothing was held out."""
    return "test" if "test" in run.splits else "val"


def known_split(run: Examined, name: str) -> ExaminedSplit | None:
    """Return a split in which some image's truth is known; None without one."""
    split = run.splits.get(name)
    return split if split is not None and known_rows(split.predictions).any() else None
