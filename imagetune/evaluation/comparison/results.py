"""What a comparison of runs finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.statistics.intervals import Bootstrap, Estimate
from imagetune.recipe.data import Task

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class MetricDifference:
    """A metric of two runs on the same images, and the difference with its interval.

    Attributes:
        name: Of the metric.
        first: The first run's; None where it is not defined.
        second: The second run's.
        difference: The first minus the second, with its interval.
    """

    name: str
    first: float | None
    second: float | None
    difference: Estimate


@dataclass(frozen=True)
class ClassDifference:
    """The images of one class, as two runs predict them.

    Attributes:
        images: How many are of the class; for regression, lie in the part of the numbers.
        metric: Recall; F1 for multi_label, mean absolute error for regression.
        only_first: Images on which only the first is right, about this class; None for regression.
        only_second: Images on which only the second is right.
        p_value: Of a test of the class by itself: McNemar's; for regression Wilcoxon's signed ranks.
        corrected: The same, corrected for all classes (Holm).
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
    """Whether two runs can be told apart by one metric.

    Attributes:
        method: What the test is called.
        p_value: Two-sided.
        corrected: The same, corrected for all pairs (Holm); what decides.
    """

    method: str
    p_value: float
    corrected: float


@dataclass(frozen=True)
class Churn:
    """How predictions change from the first run to the second.

    Attributes:
        changed: Images whose prediction changes.
        share: The same as a share, with Wilson's interval where images are independent.
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
    """How predictions that are numbers change from the first run to the second.

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
    """How small a difference a test of this size can detect, and what size this difference would take.

    Attributes:
        images_needed: Test images that would show the difference that was seen, if it is real, in four of five
            tests; None where there is none.
        min_detectable_difference: The difference that this test would show in four of five tests; None where it is not
            known.
    """

    images_needed: float | None
    min_detectable_difference: float | None


@dataclass(frozen=True)
class PairComparison:
    """Two runs, by their keys, in everything that is compared."""

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
    """Everything that a comparison of two or more runs found.

    Attributes:
        task: What a label is.
        metric: The metric that decides.
        images: That all runs were tested on.
        groups: In so many groups; None where each image stands for itself.
        bootstrap: How the intervals were made.
        metrics: Headline metrics with intervals, by run's key and name.
        pairs: All pairs of runs.
        differing: Images that not all runs predict alike, the most telling first; with regression all, by how far the
            predictions lie apart.
    """

    task: Task
    metric: str
    images: int
    groups: int | None
    bootstrap: Bootstrap
    metrics: Mapping[str, Mapping[str, Estimate]]
    pairs: tuple[PairComparison, ...]
    differing: Ints
