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
class FigureDifference:
    """A metric of two runs on the same pictures, and the difference with its interval.

    Attributes:
        name: Of the figure.
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
    """The pictures of one class, as two runs answer them.

    Attributes:
        pictures: How many are of the class; for regression, lie in the part of the numbers.
        figure: Recall; F1 for multi_label, mean absolute error for regression.
        only_first: Pictures on which only the first is right, about this class; None for regression.
        only_second: Pictures on which only the second is right.
        p_value: Of a test of the class by itself: McNemar's; for regression Wilcoxon's signed ranks.
        corrected: The same, corrected for all classes (Holm).
    """

    name: str
    pictures: int
    figure: FigureDifference
    only_first: int | None
    only_second: int | None
    p_value: float | None
    corrected: float | None = None


@dataclass(frozen=True)
class PairTest:
    """Whether two runs can be told apart by one figure.

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
    """How answers change from the first run to the second.

    Attributes:
        changed: Pictures whose answer changes.
        share: The same as a share, with Wilson's interval where pictures are independent.
        right_to_wrong: Pictures on which only the first run is right.
        wrong_to_right: Pictures on which only the second run is right.
        both_right: Pictures that both have right.
        both_wrong: Pictures that both have wrong.
    """

    changed: int
    share: Estimate
    right_to_wrong: int
    wrong_to_right: int
    both_right: int
    both_wrong: int


@dataclass(frozen=True)
class Closeness:
    """How answers that are numbers change from the first run to the second.

    Attributes:
        mean_change: Mean absolute difference of the two answers, in the labels' unit.
        first_closer: Pictures on which the first run is closer to the truth.
        second_closer: Pictures on which the second run is.
    """

    mean_change: float
    first_closer: int
    second_closer: int


@dataclass(frozen=True)
class Power:
    """How small a difference a test of this size can detect, and what size this difference would take.

    Attributes:
        pictures_needed: Test pictures that would show the difference that was seen, if it is real, in four of five
            tests; None where there is none.
        least_difference: The difference that this test would show in four of five tests; None where it is not known.
    """

    pictures_needed: float | None
    least_difference: float | None


@dataclass(frozen=True)
class PairComparison:
    """Two runs, by their keys, in everything that is compared."""

    first: str
    second: str
    figures: tuple[FigureDifference, ...]
    test: PairTest
    churn: Churn | Closeness
    classes: tuple[ClassDifference, ...]
    power: Power

    def figure(self, name: str) -> FigureDifference:
        """Return the difference of both runs in one metric."""
        return next(figure for figure in self.figures if figure.name == name)


@dataclass(frozen=True)
class Comparison:
    """Everything that a comparison of two or more runs found.

    Attributes:
        task: What a label is.
        metric: The figure that decides.
        pictures: That all runs were tested on.
        groups: In so many groups; None where each picture stands for itself.
        bootstrap: How the intervals were made.
        figures: Headline figures with intervals, by run's key and name.
        pairs: All pairs of runs.
        differing: Pictures that not all runs answer alike, the most telling first; with regression all, by how far the
            answers lie apart.
    """

    task: Task
    metric: str
    pictures: int
    groups: int | None
    bootstrap: Bootstrap
    figures: Mapping[str, Mapping[str, Estimate]]
    pairs: tuple[PairComparison, ...]
    differing: Ints
