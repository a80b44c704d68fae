"""The result types of a comparison of runs: differences, tests, churn and power."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.statistics.bootstrap import Bootstrap
from imagetune.evaluation.statistics.intervals import Estimate
from imagetune.recipe.tasks import Task

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class MetricDifference:
    """A metric of two runs on the same images, and the difference with its interval.

    Attributes:
        name: Name of the metric.
        first: The first run's value; None where it is not defined.
        second: The second run's value.
        difference: The first minus the second, with its interval.
    """

    name: str
    first: float | None
    second: float | None
    difference: Estimate


@dataclass(frozen=True)
class ClassDifference:
    """The difference of two runs on the images of one class.

    Attributes:
        name: Name of the class; for regression the range of numbers.
        images: Number of images of the class, or in the range.
        metric: Recall; F1 for multi_label, mean absolute error for regression.
        only_first: Images on which only the first is right, about this class; None for regression.
        only_second: Images on which only the second is right.
        p_value: p-value of a test of the class by itself: McNemar's; for regression Wilcoxon's signed ranks.
        corrected: The p-value corrected for all classes (Holm).
    """

    name: str
    images: int
    metric: MetricDifference
    only_first: int | None
    only_second: int | None
    p_value: float | None
    corrected: float | None = None


@dataclass(frozen=True)
class PairTest:
    """The significance test of the difference of two runs in one metric.

    Attributes:
        method: Name of the test.
        p_value: Two-sided p-value.
        corrected: The p-value corrected for all pairs (Holm), which decides.
    """

    method: str
    p_value: float
    corrected: float


@dataclass(frozen=True)
class Churn:
    """Prediction churn: how many predictions change from the first run to the second, and how.

    Attributes:
        changed: Number of images whose prediction changes.
        share: Share of images whose prediction changes, with Wilson's interval where images are independent.
        right_to_wrong: Images on which only the first run is right.
        wrong_to_right: Images on which only the second run is right.
        both_right: Images that both have right.
        both_wrong: Images that both have wrong.
    """

    changed: int
    share: Estimate
    right_to_wrong: int
    wrong_to_right: int
    both_right: int
    both_wrong: int


@dataclass(frozen=True)
class Closeness:
    """How regression predictions change from the first run to the second.

    Attributes:
        mean_change: Mean absolute difference of the two predictions, in the labels' unit.
        first_closer: Images on which the first run is closer to the truth.
        second_closer: Images on which the second run is.
    """

    mean_change: float
    first_closer: int
    second_closer: int


@dataclass(frozen=True)
class Power:
    """The power of a comparison: its minimum detectable difference, and the sample size for the observed difference.

    Attributes:
        images_needed: Test images that would detect the observed difference, if it is real, with 80% power; None where
            there is no difference.
        min_detectable_difference: The difference that this test detects with 80% power; None where it is unknown.
    """

    images_needed: float | None
    min_detectable_difference: float | None


@dataclass(frozen=True)
class PairComparison:
    """The comparison of two runs, which are named by their keys."""

    first: str
    second: str
    metrics: tuple[MetricDifference, ...]
    test: PairTest
    churn: Churn | Closeness
    classes: tuple[ClassDifference, ...]
    power: Power

    def metric(self, name: str) -> MetricDifference:
        """Return the difference of both runs in one metric."""
        return next(metric for metric in self.metrics if metric.name == name)


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison of two or more runs.

    Attributes:
        task: The task of the runs.
        metric: The metric that decides.
        images: Number of images that all runs were tested on.
        groups: Number of groups of images; None where images are independent.
        bootstrap: Settings of the intervals.
        metrics: Headline metrics with intervals, by the run's key and the metric's name.
        pairs: All pairs of runs.
        differing: (m,) indices of images that not all runs predict alike, the largest disagreement first; for
            regression of all images.
    """

    task: Task
    metric: str
    images: int
    groups: int | None
    bootstrap: Bootstrap
    metrics: Mapping[str, Mapping[str, Estimate]]
    pairs: tuple[PairComparison, ...]
    differing: Ints
