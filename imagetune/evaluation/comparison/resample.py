"""Paired resampling for a comparison: images are drawn together with all runs' predictions, for each run's metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.comparison.metrics import RunPredictions, build_metric_function
from imagetune.evaluation.statistics.bootstrap import Bootstrap, Precision, compute_precision, draw_weights
from imagetune.evaluation.statistics.intervals import (
    compute_effective_images,
)
from imagetune.evaluation.statistics.proportions import compute_two_sided_quantile
from imagetune.recipe.metrics import METRICS, list_compared_metrics

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tested:
    """The predictions that are compared, and the settings of intervals and tests.

    Attributes:
        predictions: Each run's predictions, by its key.
        groups: (n,) group of each image; a group is resampled and swapped as a whole.
        grouped: Whether any group has several images.
        bootstrap: Settings of the intervals.
        metric: The metric that decides.
    """

    predictions: Mapping[str, RunPredictions]
    groups: Ints
    grouped: bool
    bootstrap: Bootstrap
    metric: str

    @property
    def some(self) -> RunPredictions:
        """Any run's predictions, for what all have in common."""
        return next(iter(self.predictions.values()))

    @property
    def units(self) -> int:
        """The number of images or groups that are drawn."""
        return int(self.groups.max()) + 1

    @property
    def strata(self) -> int:
        """The number of strata that they are drawn from."""
        return len(np.unique(self.some.part)) if self.bootstrap.stratified else 1

    def by_unit(self, scores: Ints) -> Ints:
        """Return (u,) the sum of scores (n,) over each unit."""
        return np.bincount(self.groups, weights=scores, minlength=self.units).round().astype(np.int64)

    def precision(self, name: str) -> Precision | None:
        """Return the small-sample corrections of a headline metric; None where the draws show nothing of its spread."""
        if METRICS[name].mean_over == "classes" and self.bootstrap.stratified:
            counts = np.unique(self.some.part, return_counts=True)[1]
            # Degrees of freedom of a mean of means (Satterthwaite, Biometrics Bulletin 2, 1946).
            free = (1 / counts).sum() ** 2 / (1 / counts**2 / np.maximum(counts - 1, 0.5)).sum()
            quantile = compute_two_sided_quantile(self.bootstrap.confidence, max(1, round(free)) + 1)
            return replace(compute_precision(self.some.part, self.bootstrap), quantile=quantile)
        return compute_unit_precision(self.units, self.strata, self.bootstrap.confidence)

    def worth(self, name: str) -> float:
        """Return the effective number of images of a share, which for a macro average its small classes limit."""
        if METRICS[name].mean_over != "classes":
            return float(self.units)
        true = self.some.true
        # In a macro average an image of a small class weighs more than one of a large class.
        counts = true.sum(axis=0) if true.ndim == 2 else np.bincount(true.astype(np.int64))
        return min(float(self.units), compute_effective_images(counts[counts > 0].astype(np.float64)))


@dataclass(frozen=True)
class Resampled:
    """A run's metrics on all images and on m bootstrap resamplings.

    Attributes:
        values: Headline metrics by name.
        by_class: (k,) metric of each class.
        samples: (m,) headline metrics of the resamplings, by name.
        class_samples: (m, k) metric of each class in the resamplings.
    """

    values: Mapping[str, float]
    by_class: Floats
    samples: Mapping[str, Floats]
    class_samples: Floats


def resample_metrics(tested: Tested, key: str) -> Resampled:
    """Return a run's metrics on all images and on each bootstrap resampling."""
    predictions, bootstrap = tested.predictions[key], tested.bootstrap
    compute = build_metric_function(predictions, samples=bootstrap.samples)
    values, by_class = compute(np.ones((len(tested.groups), 1), np.float32))
    cells = count_cells(predictions)
    # The same seed for every run: all runs see the same resamplings, which makes their differences paired.
    groups = tested.groups if tested.grouped else None
    chunks = draw_weights(predictions.part, bootstrap, groups=groups, cells_a_sample=cells)
    found = [compute(weights) for weights in chunks]
    names = list_compared_metrics(predictions.task)
    return Resampled(
        values={name: float(values[name][0]) for name in names},
        by_class=by_class[:, 0],
        samples={name: np.concatenate([chunk[0][name] for chunk in found]).astype(np.float64) for name in names},
        class_samples=np.concatenate([chunk[1].T for chunk in found]).astype(np.float64),
    )


def count_cells(predictions: RunPredictions) -> int:
    """Return how many numbers one resampling keeps in memory; the ranks of regression take several for each image."""
    classes = len(predictions.names)
    return {"ordinal": classes * classes, "regression": 4 * len(predictions.part)}.get(predictions.task, classes)


def compute_unit_precision(units: int, strata: int, confidence: float) -> Precision | None:
    """Return the small-sample corrections for units drawn in strata; None where each unit is a stratum of its own."""
    free = units - strata
    return Precision(units / free, compute_two_sided_quantile(confidence, free + 1)) if free > 0 else None


def convert_nan_to_none(value: float) -> float | None:
    """Return a metric; None where it is not defined (NaN)."""
    return None if np.isnan(value) else float(value)
