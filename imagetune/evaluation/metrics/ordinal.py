"""Metrics for ordered classes (ordinal): mean absolute error in ranks, quadratic weighted kappa, within one rank."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.metrics.scores import compute_weighted_confusion
from imagetune.evaluation.statistics.bootstrap import Bootstrap, compute_precision
from imagetune.evaluation.statistics.intervals import (
    Estimate,
    ShareSize,
    estimate_from_left_out,
    estimate_share,
    leave_out_weights,
    limit_estimate,
    list_units,
)
from imagetune.evaluation.statistics.jackknife import LeftOut
from imagetune.evaluation.statistics.proportions import compute_exact_bound
from imagetune.recipe.metrics import METRICS

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]


def estimate_rank_metrics(
    labels: Ints, predicted: Ints, classes: int, bootstrap: Bootstrap, *, groups: Ints | None = None
) -> dict[str, Estimate]:
    """Return mae (mean distance in ranks), quadratic_weighted_kappa and within_one_rank, with jackknife intervals.

    Args:
        labels: (n,) true classes in [0, k), by rank.
        predicted: (n,) predicted classes in [0, k).
        classes: k, the number of classes.
        bootstrap: Settings of the intervals.
        groups: (n,) number of each image's group where whole groups are left out.
    """
    whole = np.ones((len(labels), 1), np.float32)
    values = compute_rank_metrics(compute_weighted_confusion(labels, predicted, classes, whole))
    units = list_units(labels, bootstrap, groups)
    chunks = [
        compute_rank_metrics(compute_weighted_confusion(labels, predicted, classes, weights))
        # A confusion matrix is held for each left-out unit.
        for weights in leave_out_weights(units, cells_a_sample=classes * classes)
    ]
    images = float(len(labels))
    worth = images * compute_precision(labels, bootstrap, groups).worth
    found = {
        name: estimate_from_left_out(
            None if np.isnan(value[0]) else float(value[0]),
            LeftOut(np.concatenate([chunk[name] for chunk in chunks]), units.strata),
            bootstrap.confidence,
            reason="all images are of one class, and all predictions are that class",
            # Only this metric is a share, for which 0 and 1 have an exact interval.
            share=ShareSize(images, worth / images, images) if name == "within_one_rank" else None,
            scale=METRICS[name].scale,
        )
        for name, value in values.items()
    }
    found = {name: _limit_ranks(estimate, name, classes) for name, estimate in found.items()}
    if found["mae"].value == 0.0:
        found |= _allow_for_mistakes(labels, classes, worth, bootstrap.confidence)
    if groups is None:
        # Of independent images it is a binomial share, as accuracy is.
        near = float(values["within_one_rank"][0])
        found["within_one_rank"] = estimate_share(near * images, images, bootstrap.confidence)
    return found


def _limit_ranks(found: Estimate, name: str, classes: int) -> Estimate:
    # A distance in ranks is at most that of the first class from the last.
    return limit_estimate(found, METRICS[name].low, classes - 1.0 if name == "mae" else METRICS[name].high)


def _allow_for_mistakes(labels: Ints, classes: int, images: float, confidence: float) -> dict[str, Estimate]:
    """Return mae and kappa of predictions without a mistake, with intervals that allow for mistakes by one rank.

    Args:
        labels: (n,) true classes, all predicted.
        classes: k, the number of classes.
        images: How many independent images they count as.
        confidence: Coverage of the intervals, in (0, 1).
    """
    wrong = 1 - compute_exact_bound(images, confidence)
    how = "no mistake to resample: exact interval of Clopper and Pearson, for mistakes by one rank"
    found = {"mae": Estimate(0.0, 0.0, wrong, how, "clopper-pearson")}
    counts = np.bincount(labels, minlength=classes) / len(labels)
    chance = float(counts @ np.square(np.subtract.outer(np.arange(classes), np.arange(classes))) @ counts)
    if chance:
        found["quadratic_weighted_kappa"] = Estimate(1.0, max(1 - wrong / chance, -1.0), 1.0, how, "clopper-pearson")
    return found


def compute_rank_metrics(counts: Floats) -> dict[str, NDArray[np.float64]]:
    """Return mae, quadratic_weighted_kappa and within_one_rank as (b,), from (k, k, b) confusion counts.

    Rows are true and columns predicted. The kappa is Cohen's with quadratic weights (Psychological Bulletin 70, 1968);
    NaN where agreement by chance is complete.
    """
    confusion = counts.astype(np.float64)
    ranks = np.arange(len(confusion))
    distance = np.abs(ranks[:, None] - ranks)[:, :, None]
    total = confusion.sum(axis=(0, 1))
    # The confusion of predictions drawn at random with the same frequencies: kappa is the agreement beyond chance.
    expected = confusion.sum(axis=1)[:, None] * confusion.sum(axis=0)[None] / total
    chance = (distance**2 * expected).sum(axis=(0, 1))
    misses = (distance**2 * confusion).sum(axis=(0, 1))
    ratio = np.divide(misses, chance, out=np.full_like(misses, np.nan), where=chance > 0)
    return {
        "mae": (distance * confusion).sum(axis=(0, 1)) / total,
        "quadratic_weighted_kappa": 1 - ratio,
        "within_one_rank": np.where(distance <= 1, confusion, 0).sum(axis=(0, 1)) / total,
    }
