"""Confidence of each prediction and whether it was right, with the intervals that the probability analyses share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from imagetune.evaluation.context import EvaluatedSplit, EvaluationContext
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.bootstrap import (
    Bootstrap,
    Precision,
    compute_precision,
    draw_weights,
)
from imagetune.evaluation.statistics.intervals import (
    Estimate,
    ShareSize,
    encode_groups,
    estimate_from_left_out,
    estimate_mean,
    estimate_percentiles,
    estimate_share,
    list_units,
)
from imagetune.evaluation.statistics.jackknife import compute_jackknife_means
from imagetune.recipe.metrics import Scale
from imagetune.recipe.sections.evaluate import EvaluateConfig

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Confidences:
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
        groups: (n,) from `encode_groups`, or None.
    """

    images: int
    bootstrap: Bootstrap
    groups: Ints | None = None

    @property
    def precision(self) -> Precision:
        """Small-sample corrections of the bootstrap, as it draws from few images or groups."""
        return compute_precision(np.zeros(self.images, np.int64), self.bootstrap, self.groups)

    @property
    def confidence(self) -> float:
        """Share of the resampled metrics inside an interval, expanded for few images or groups."""
        # Expanded percentiles, as in `statistics.intervals`: drawing n of n varies less than n new images would.
        precision = self.precision
        return 1 - 2 * float(ndtr(-precision.quantile * precision.inflation**0.5))

    def weights(self) -> Iterator[NDArray[np.float32]]:
        """Yield the resamplings' weights (n, b) in chunks: how often each image was drawn."""
        yield from draw_weights(np.zeros(self.images, np.int64), self.bootstrap, groups=self.groups)

    def metric(self, value: float, samples: Floats) -> Estimate:
        """Return a metric with the expanded percentile interval of its (m,) resampled values."""
        return estimate_percentiles(value, samples, self.confidence)

    def mean(self, values: Floats, *, scale: Scale = "plain") -> Estimate:
        """Return the mean of (n,) values with its interval, symmetric on the given scale."""
        return estimate_mean(values, self.bootstrap, groups=self.groups, scale=scale)

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
            return estimate_share(hit, total, self.bootstrap.confidence)
        # The jackknife: a bootstrap of groups gives shares too short intervals where some groups are large.
        units = list_units(np.zeros(self.images, np.int64), self.bootstrap, self.groups)
        return estimate_from_left_out(
            hit / total,
            compute_jackknife_means(hits.astype(np.float64), among.astype(np.float64), units),
            self.bootstrap.confidence,
            share=ShareSize(float(total), self.precision.worth, float(total)),
        )


def build_draws(split: EvaluatedSplit, config: EvaluateConfig, *, seed: int) -> Draws:
    """Return the bootstrap of a split's images with known labels."""
    known = find_known_rows(split.predictions)
    # Not stratified: a threshold or a bin cuts across the classes, so their numbers are random there.
    bootstrap = Bootstrap(config.bootstrap_samples, config.confidence, seed, stratified=False)
    groups = [record.group for record, take in zip(split.records, known, strict=True) if take]
    return Draws(len(groups), bootstrap, encode_groups(groups))


def find_known_rows(predictions: Predictions) -> Bools:
    """Return which images have a known label, (n,) bool: one among the classes; for other tasks all."""
    if predictions.rule.task in ("single_label", "ordinal"):
        return predictions.labels >= 0
    return np.ones(len(predictions.paths), dtype=np.bool_)


def compute_confidences(predictions: Predictions) -> Confidences:
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
    known = find_known_rows(predictions)
    probabilities = predictions.probabilities[known]
    if predictions.rule.task == "multi_label":
        given = predictions.given[known]
        agreed = np.where(given, probabilities, 1 - probabilities)
        return Confidences(agreed.prod(axis=1), (given == (predictions.targets[known] >= 0.5)).all(axis=1))
    chosen = predictions.predicted[known]
    return Confidences(probabilities[np.arange(len(chosen)), chosen], chosen == predictions.labels[known])


def build_truth_matrix(predictions: Predictions) -> Floats:
    """Return the true classes of each image with a known label as a matrix (n, k) of zeros and ones."""
    if predictions.rule.task == "multi_label":
        return (predictions.targets >= 0.5).astype(np.float64)
    labels = predictions.labels[find_known_rows(predictions)]
    truth = np.zeros((len(labels), len(predictions.class_names)))
    truth[np.arange(len(labels)), labels] = 1.0
    return truth


def choose_tested_split(run: EvaluationContext) -> str:
    """Return the name of the split that analyses report on: test, or val where no test was held out."""
    return "test" if "test" in run.splits else "val"


def get_known_split(run: EvaluationContext, name: str) -> EvaluatedSplit | None:
    """Return a split if at least one of its images has a known label; else None."""
    split = run.splits.get(name)
    return split if split is not None and find_known_rows(split.predictions).any() else None
