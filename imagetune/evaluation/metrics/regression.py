"""Regression metrics of a split with confidence intervals: MAE, RMSE, R squared and Spearman's correlation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from imagetune.errors import DataError, DivergedError
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.bootstrap import Bootstrap
from imagetune.evaluation.statistics.intervals import (
    Estimate,
    encode_groups,
    estimate_from_left_out,
    leave_out_weights,
    list_group_notes,
    list_units,
)
from imagetune.evaluation.statistics.jackknife import LeftOut
from imagetune.recipe.metrics import METRICS, list_test_metrics
from imagetune.recipe.sections.evaluate import EvaluateConfig
from imagetune.recipe.tasks import Task

HEADLINES = list_test_metrics("regression")
# Ranges of numbers are the slices of regression; with fewer images a range's mean error has no usable interval.
MAX_RANGES, MIN_IMAGES = 5, 10
# With fewer images, any correlation can come about by chance.
FEW = 10

Floats = NDArray[np.float64]
Weights = NDArray[np.floating]


@dataclass(frozen=True)
class ValueEvaluation:
    """Every metric of one split with its interval, where a label is a number.

    Attributes:
        class_names: The number's name, as the only element.
        images: Number of images that were tested.
        metrics: mae and rmse in the labels' units, r2 (at most 1, below 0 where the mean would do better), and
            spearman, the rank correlation.
        bootstrap: Settings of the intervals.
        notes: Caveats for the reader, and the labels' range.
        groups: Number of groups where some images share one; else 0.
        baseline: R squared of always predicting the mean.
    """

    class_names: tuple[str, ...]
    images: int
    metrics: Mapping[str, Estimate]
    bootstrap: Bootstrap
    notes: tuple[str, ...]
    groups: int = 0
    baseline: ClassVar[float] = 0.0
    task: ClassVar[Task] = "regression"
    left_out: ClassVar[int] = 0


def evaluate_values(
    predictions: Predictions, *, config: EvaluateConfig, seed: int, groups: Sequence[str | None] = ()
) -> ValueEvaluation:
    """Return the regression metrics of a split with their jackknife intervals.

    Args:
        predictions: The predictions of one split.
        config: The recipe's evaluate section, for the settings of the intervals.
        seed: Seed of the intervals.
        groups: The group of each image, None for one without; empty where there are none. Whole groups are left out.

    Raises:
        DataError: There is no image.
        DivergedError: A prediction is not a finite number.
    """
    true, given = predictions.targets[:, 0], predictions.probabilities[:, 0]
    if not len(true):
        raise DataError("there are no images to test")
    if not np.isfinite(given).all():
        where = predictions.paths[int(np.flatnonzero(~np.isfinite(given))[0])]
        hint = "train again with a smaller learning rate"
        raise DivergedError("the model's prediction is not a finite number", where=where, hint=hint)
    bootstrap = Bootstrap(config.bootstrap_samples, config.confidence, seed, stratified=False)
    # Sorted once: leaving out images changes ranks, but never the order.
    ranks = (_Ranks.of(true), _Ranks.of(given))
    values = _compute_metrics(true, given, ranks, np.ones((len(true), 1), np.float32))
    codes, strata = encode_groups(groups), np.zeros(len(true), np.int64)
    units = list_units(strata, bootstrap, codes)
    chunks = [
        _compute_metrics(true, given, ranks, weights)
        # The ranks of labels and predictions take several numbers for each image.
        for weights in leave_out_weights(units, cells_a_sample=4 * len(true))
    ]
    reasons = {
        "r2": "all labels are the same number",
        "spearman": "all labels are the same number, or all predictions are",
    }
    metrics = {
        name: Estimate(None, reason=reasons.get(name, ""))
        if np.isnan(values[name][0])
        else estimate_from_left_out(
            float(values[name][0]),
            LeftOut(np.concatenate([chunk[name] for chunk in chunks]), units.strata),
            bootstrap.confidence,
            scale=METRICS[name].scale,
        )
        for name in HEADLINES
    }
    count = 0 if codes is None else int(codes.max()) + 1
    notes = (*_list_notes(true), *list_group_notes(groups))
    return ValueEvaluation(predictions.class_names, len(true), metrics, bootstrap, notes, count)


def build_regression_metric_function(true: Floats, given: Floats) -> Callable[[Weights], dict[str, Floats]]:
    """Return a function from weights (n, b) to the headline metrics (b,) by name; NaN where one is not defined.

    Args:
        true: (n,) the true numbers.
        given: (n,) the predicted numbers.
    """
    ranks = (_Ranks.of(true), _Ranks.of(given))
    return lambda weights: _compute_metrics(true, given, ranks, weights)


def bin_numbers(numbers: Floats, *, most: int, least: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return numbers binned into ranges of about equally many images, low to high, with the names of the ranges.

    Args:
        numbers: (n,) true or predicted numbers.
        most: Largest number of ranges; there are fewer where equal numbers, which stay together, leave one too small.
        least: Smallest number of images in a range.

    Returns:
        The range (n,) of each number, from 0, and the names; one range, ``all``, where there can't be two.
    """
    parts = max(1, min(most, len(numbers) // least))
    edges = np.unique(np.quantile(numbers, np.arange(1, parts) / parts))
    # No number lies above an edge at the largest one.
    edges = edges[edges < numbers.max()]
    while len(edges):
        codes = np.searchsorted(edges, numbers).astype(np.int64)
        counts = np.bincount(codes, minlength=len(edges) + 1)
        smallest = int(counts.argmin())
        if counts[smallest] >= least:
            names = [f"up to {edges[0]:.4g}", *(f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges))]
            return codes, (*names, f"above {edges[-1]:.4g}")
        # The smaller neighbour is joined, so that ranges stay about equally large.
        beside = [place for place in (smallest - 1, smallest + 1) if 0 <= place < len(counts)]
        edges = np.delete(edges, min(smallest, min(beside, key=lambda place: int(counts[place]))))
    return np.zeros(len(numbers), np.int64), ("all",)


@dataclass(frozen=True)
class _Ranks:
    """Numbers sorted once, to compute their ranks in many resamplings.

    Attributes:
        order: (n,) positions, the smallest number first.
        first: (n,) place of the first number that equals each, by position.
        last: (n,) place after the last such number, by position.
    """

    order: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    @classmethod
    def of(cls, numbers: Floats) -> _Ranks:
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        return cls(order, np.searchsorted(ordered, numbers), np.searchsorted(ordered, numbers, side="right"))

    def in_samples(self, weights: Weights) -> Floats:
        """Return the rank (n, b) of each number in each resampling; tied numbers share their mean rank."""
        below = np.zeros((len(self.order) + 1, weights.shape[1]))
        np.cumsum(weights[self.order], axis=0, out=below[1:])
        ranks: Floats = (below[self.first] + below[self.last] + 1) / 2
        return ranks


def _compute_metrics(true: Floats, given: Floats, ranks: tuple[_Ranks, _Ranks], weights: Weights) -> dict[str, Floats]:
    """Return the headline metrics (b,) by name, from weights (n, b); NaN where one is not defined."""
    drawn = weights.astype(np.float64)
    total = drawn.sum(axis=0)
    squared = np.square(given - true) @ drawn
    # Sums of squares about a fixed centre keep the digits of labels far from 0.
    centred = true - true.mean()
    spread = np.square(centred) @ drawn - np.square(centred @ drawn) / total
    # A spread that is only rounding counts as none: dividing by it would give an R squared of any size. 1e-300 keeps
    # the limit above 0 where all labels are equal.
    enough = spread > 1e-12 * max(float(np.square(centred).sum()), 1e-300)
    ratio = np.divide(squared, spread, out=np.full_like(squared, np.nan), where=enough)
    return {
        "mae": np.abs(given - true) @ drawn / total,
        "rmse": np.sqrt(squared / total),
        "r2": 1 - ratio,
        "spearman": _correlation(ranks[0].in_samples(drawn), ranks[1].in_samples(drawn), drawn),
    }


def _correlation(one: Floats, other: Floats, weights: Floats) -> Floats:
    """Return Pearson's correlation (b,) of (n, b) numbers with (n, b) weights."""
    total = weights.sum(axis=0)
    first, second = one - (weights * one).sum(axis=0) / total, other - (weights * other).sum(axis=0) / total
    covariance = (weights * first * second).sum(axis=0)
    spread = np.sqrt((weights * first**2).sum(axis=0) * (weights * second**2).sum(axis=0))
    # Ranks differ by one half at least, so that only equal ranks have a spread as small as this.
    correlation: Floats = np.divide(covariance, spread, out=np.full_like(spread, np.nan), where=spread > 1e-9)
    return correlation


def _list_notes(true: Floats) -> Iterator[str]:
    yield f"the labels have a mean of {true.mean():.4g} and range from {true.min():.4g} to {true.max():.4g}"
    if len(true) < FEW:
        yield f"only {len(true)} images: the metrics of so few say little"
