"""Confidence of each prediction and whether it was right, with the intervals that the probability analyses share."""

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
    """The confidence and correctness of the predictions for n images with known labels.

    Attributes:
        confidence: (n,) float64 in [0, 1], the probability that the model assigns to its prediction.
        right: (n,) bool, whether the prediction was right.
    """

    confidence: Floats
    right: Bools


@dataclass(frozen=True)
class Draws:
    """The bootstrap of n images, with the intervals made of it: not stratified, of whole groups where there are groups.

    Attributes:
        images: Number n of images.
        bootstrap: Number of resamplings, seed and confidence; not stratified.
        groups: (n,) from `group_codes`, or None.
    """

    images: int
    bootstrap: Bootstrap
    groups: Ints | None = None

    @property
    def precision(self) -> Precision:
        """Small-sample corrections of the bootstrap, as it draws from few images or groups."""
        return precision_of(np.zeros(self.images, np.int64), self.bootstrap, self.groups)

    @property
    def confidence(self) -> float:
        """Share of the resampled metrics inside an interval, expanded for few images or groups."""
        precision = self.precision
        return 1 - 2 * float(ndtr(-precision.quantile * precision.inflation**0.5))

    def weights(self) -> Iterator[NDArray[np.float32]]:
        """Yield the resamplings' weights (n, b) in chunks: how often each image was drawn."""
        yield from resampled_weights(np.zeros(self.images, np.int64), self.bootstrap, groups=self.groups)

    def metric(self, value: float, samples: Floats) -> Estimate:
        """Return a metric with the expanded percentile interval of its (m,) resampled values."""
        low, high = percentile_interval(samples, self.confidence) or (None, None)
        return Estimate(value, low, high, method="percentile")

    def mean(self, values: Floats, *, scale: Scale = "plain") -> Estimate:
        """Return the mean of (n,) values with its interval, symmetric on the given scale."""
        return mean_estimate(values, self.bootstrap, groups=self.groups, scale=scale)

    def of(self, rows: Bools) -> Draws:
        """Return the bootstrap of a subset of the images, chosen by ``rows`` (n,) bool, in the same groups."""
        groups = None if self.groups is None else np.unique(self.groups[rows], return_inverse=True)[1]
        return Draws(int(rows.sum()), self.bootstrap, groups)

    def share(self, hits: Bools, among: Bools | None = None, *, reason: str = "no images") -> Estimate:
        """Return the share of hits with Wilson's interval; in groups, for the effective number of images.

        Args:
            hits: (n,) which images are counted.
            among: (n,) the images of which the share is taken; by default all.
            reason: The reason to give where ``among`` has no image.
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
    """Return the bootstrap of a split's images with known labels."""
    known = known_rows(split.predictions)
    # Not stratified: a threshold or a bin cuts across the classes, so their numbers are random there.
    bootstrap = Bootstrap(config.bootstrap_samples, config.confidence, seed, stratified=False)
    groups = [record.group for record, take in zip(split.records, known, strict=True) if take]
    return Draws(len(groups), bootstrap, group_codes(groups))


def known_rows(predictions: Predictions) -> Bools:
    """Return which images have a known label, (n,) bool: one among the classes; for other tasks all."""
    if predictions.rule.task in ("single_label", "ordinal"):
        return predictions.labels >= 0
    return np.ones(len(predictions.paths), dtype=np.bool_)


def predictions_of(predictions: Predictions) -> PredictedClasses:
    """Return the confidence of each prediction with a known label, and whether it was right.

    For single_label and ordinal the prediction is a class, for multi_label the whole set of labels: its probability is
    the product of the labels' own, as if they were independent, and it is right where every label is.

    Args:
        predictions: Predictions of any task but regression.

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
    """Return the true classes of each image with a known label as a matrix (n, k) of zeros and ones."""
    if predictions.rule.task == "multi_label":
        return (predictions.targets >= 0.5).astype(np.float64)
    labels = predictions.labels[known_rows(predictions)]
    truth = np.zeros((len(labels), len(predictions.class_names)))
    truth[np.arange(len(labels)), labels] = 1.0
    return truth


def tested_split(run: Examined) -> str:
    """Return the name of the split that analyses report on: test, or val where no test was held out."""
    return "test" if "test" in run.splits else "val"


def known_split(run: Examined, name: str) -> ExaminedSplit | None:
    """Return a split if at least one of its images has a known label; else None."""
    split = run.splits.get(name)
    return split if split is not None and known_rows(split.predictions).any() else None
