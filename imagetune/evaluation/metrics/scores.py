"""Weighted classification metrics, vectorised over resamplings: what the jackknife computes a thousand times at once.

Weights are (n, b): how often each of n images counts, in each of b resamplings. With one column of ones the metrics
are those that scikit-learn computes in `imagetune.evaluation.metrics.classification`; a test asserts that they agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.statistics.bootstrap import Bootstrap, compute_precision
from imagetune.evaluation.statistics.intervals import Estimate, estimate_from_left_out, leave_out_weights, list_units
from imagetune.evaluation.statistics.jackknife import Units, compute_jackknife_means
from imagetune.evaluation.statistics.proportions import compute_exact_bound

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

# Resampling the ROC AUC costs images x classes x samples steps, about 2e8 a second: more than 20 s are not spent on it.
AUC_STEPS = 4_000_000_000
TINY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Resampled:
    """Metrics of m resamplings; NaN where a metric is not defined on a resampling.

    Attributes:
        headline: (m,) by metric name.
        per_class: (m, k) by metric name: precision, recall, f1 and roc_auc.
    """

    headline: dict[str, NDArray[np.float64]]
    per_class: dict[str, NDArray[np.float64]]


def compute_metrics_without(
    labels: Ints,
    probabilities: NDArray[np.float64],
    predicted: Ints | None = None,
    *,
    top_k: int,
    without: Units,
) -> Resampled:
    """Return every metric but the log loss, a mean that `estimate_log_loss` is for, without each unit of the jackknife.

    Args:
        labels: (n,) in [0, k).
        probabilities: (n, k), rows that sum to 1.
        predicted: (n,) predicted classes in [0, k); by default the most probable ones.
        top_k: k of the top-k accuracy.
        without: Units of the jackknife, which are left out in turn.
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1).astype(np.int64) if predicted is None else predicted
    # Float32 as the weights are: a product with float64 would first copy all of them to twice the memory.
    top_hits = compute_top_k_hits(labels, probabilities, top_k).astype(np.float32)
    affordable = len(labels) * classes * len(without.strata) <= AUC_STEPS
    rankings = list(_rank_classes(labels, probabilities)) if affordable else []
    headlines: list[dict[str, Floats]] = []
    by_class: list[dict[str, Floats]] = []
    for weights in leave_out_weights(without, cells_a_sample=classes * classes):
        confusion = compute_weighted_confusion(labels, predicted, classes, weights).astype(np.float64)
        class_metrics = {**compute_class_metrics(confusion), "roc_auc": _compute_aucs(rankings, classes, weights)}
        # A class without images in a resampling has no recall there, so it is left out of that resampling's mean.
        present = confusion.sum(axis=1) > 0
        means = {name: average_present_classes(values, present) for name, values in class_metrics.items()}
        hits = (top_hits @ weights).astype(np.float64) / weights.sum(axis=0, dtype=np.float64)
        right = np.trace(confusion) / confusion.sum(axis=(0, 1))
        rest = {"accuracy": right, "balanced_accuracy": means["recall"], "top_k_accuracy": hits}
        headlines.append({**means, **rest})
        by_class.append(class_metrics)
    return Resampled(
        {name: np.concatenate([chunk[name] for chunk in headlines]).astype(np.float64) for name in headlines[0]},
        {name: np.concatenate([chunk[name].T for chunk in by_class]).astype(np.float64) for name in by_class[0]},
    )


def compute_top_k_hits(labels: Ints, probabilities: NDArray[np.float64], top_k: int) -> NDArray[np.bool_]:
    """Return whether the true class is among the ``top_k`` most probable ones, (n,) bool; ties as in scikit-learn."""
    ranking = np.argsort(probabilities, axis=1, kind="stable")[:, ::-1]
    hit: NDArray[np.bool_] = (ranking[:, :top_k] == labels[:, None]).any(axis=1)
    return hit


def compute_log_losses(labels: Ints, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log loss (n,) of each image: minus the log probability of its true class, in nats, at most 36."""
    chosen = probabilities[np.arange(len(labels)), labels]
    result: NDArray[np.float64] = -np.log(np.clip(chosen, TINY, 1.0))
    return result


def estimate_log_loss(
    losses: NDArray[np.float64],
    labels: Ints,
    right: NDArray[np.bool_],
    bootstrap: Bootstrap,
    *,
    groups: Ints | None = None,
) -> Estimate:
    """Return the mean log loss with its interval, which allows for mistakes although none was made.

    The most probable class is wrong where the true one has a probability of at most 1/2, so that each mistake costs at
    least log 2 nats; the exact interval of the accuracy says how many there may be.

    Args:
        losses: (n,) log loss of each image.
        labels: (n,) its class.
        right: (n,) whether its class was predicted.
        bootstrap: Settings of the interval.
        groups: (n,) number of each image's group where whole groups are left out.
    """
    units = list_units(labels, bootstrap, groups)
    left_out = compute_jackknife_means(losses, np.ones(len(losses)), units)
    found = estimate_from_left_out(float(losses.mean()), left_out, bootstrap.confidence, scale="loss")
    if found.value is None or found.high is None or not right.all():
        return found
    images = len(losses) * compute_precision(labels, bootstrap, groups).worth
    wrong = 1 - compute_exact_bound(images, bootstrap.confidence)
    return replace(found, high=max(found.high, found.value + wrong * float(np.log(2))))


def compute_weighted_confusion(labels: Ints, predicted: Ints, classes: int, weights: Floats) -> NDArray[np.float32]:
    """Return the confusion matrices (k, k, b), rows true and columns predicted, from weights (n, b)."""
    # Images with the same pair of classes are summed together: far fewer steps than a matrix for each resampling.
    pairs = labels * classes + predicted
    order = np.argsort(pairs, kind="stable")
    cells, starts = np.unique(pairs[order], return_index=True)
    counts = np.zeros((classes * classes, weights.shape[1]), dtype=np.float32)
    counts[cells] = np.add.reduceat(weights[order], starts, axis=0)
    return counts.reshape(classes, classes, -1)


def compute_class_metrics(confusion: Floats) -> dict[str, Floats]:
    """Return precision, recall and F1 as (k, b), from (k, k, b) counts.

    A class that is never predicted has precision 0; one without images has no metrics (NaN).
    """
    classes = confusion.shape[0]
    right = confusion[np.arange(classes), np.arange(classes)]
    true, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    present = true > 0
    metrics = {
        "precision": right / np.maximum(predicted, 1),
        "recall": right / np.maximum(true, 1),
        "f1": 2 * right / np.maximum(true + predicted, 1),
    }
    return {name: np.where(present, values, np.nan) for name, values in metrics.items()}


def average_present_classes(values: Floats, present: NDArray[np.bool_]) -> Floats:
    """Return the macro average (b,) of values (k, b) over the classes that have images; NaN where a value is NaN."""
    total: Floats = np.where(present, values, 0).sum(axis=0) / present.sum(axis=0)
    return total


@dataclass(frozen=True)
class _Ranking:
    """One class against the rest, its images ranked by probability once for all resamplings.

    Attributes:
        index: Index of the class.
        positives: (p,) images of the class.
        negatives: (q,) the other images, least probable first.
        below: (p,) how many negatives are less probable than each positive.
        not_above: (p,) how many negatives are less or equally probable.
    """

    index: int
    positives: Ints
    negatives: Ints
    below: Ints
    not_above: Ints


def _rank_classes(labels: Ints, probabilities: NDArray[np.float64]) -> Iterator[_Ranking]:
    for index in range(probabilities.shape[1]):
        scores = probabilities[:, index]
        positives, others = np.flatnonzero(labels == index), np.flatnonzero(labels != index)
        if not len(positives) or not len(others):
            continue
        # Sorted once: a resampling changes how often each image counts, never the order of the probabilities.
        negatives = others[np.argsort(scores[others], kind="stable")]
        below = np.searchsorted(scores[negatives], scores[positives], side="left")
        not_above = np.searchsorted(scores[negatives], scores[positives], side="right")
        yield _Ranking(index, positives, negatives, below, not_above)


def _compute_aucs(rankings: list[_Ranking], classes: int, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the ROC AUC (k, b): the share of correctly ordered pairs, ties count half (Hanley and McNeil 1982)."""
    areas = np.full((classes, weights.shape[1]), np.nan)
    for ranking in rankings:
        # Cumulative weights of the negatives turn each positive's count of smaller ones into a look-up, without pairs.
        others = np.zeros((len(ranking.negatives) + 1, weights.shape[1]), dtype=np.float32)
        np.cumsum(weights[ranking.negatives], axis=0, out=others[1:])
        own = weights[ranking.positives]
        ordered = (own * (others[ranking.below] + others[ranking.not_above])).sum(axis=0, dtype=np.float64) / 2
        pairs = own.sum(axis=0, dtype=np.float64) * others[-1]
        areas[ranking.index] = np.divide(ordered, pairs, out=np.full_like(ordered, np.nan), where=pairs > 0)
    return areas
