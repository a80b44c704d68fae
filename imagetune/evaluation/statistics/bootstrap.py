"""The bootstrap: weights of resamplings, stratified or by whole groups, and the corrections that few images need.

Draw as many images as there are, with replacement, compute the metric, repeat (Efron and Tibshirani, An Introduction to
the Bootstrap, 1993, chapter 13). A resampling is a column of how often each image was drawn, and metrics are computed
from such weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.statistics.proportions import compute_two_sided_quantile

# Weights (float32) in memory at once, 8 MB: long enough for fast vector operations, small enough for caches.
CHUNK_CELLS = 2_000_000


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the bootstrap: number of resamplings, coverage of the intervals, seed, and stratification.

    Attributes:
        samples: Number of resamplings.
        confidence: Coverage of the intervals, in (0, 1).
        seed: The same seed gives the same intervals.
        stratified: Keep the number of images of each class, as in a test set that was put together class by class.
    """

    samples: int = 1000
    confidence: float = 0.95
    seed: int = 0
    stratified: bool = True


@dataclass(frozen=True)
class Precision:
    """Small-sample corrections of a bootstrap: what its draws can't show, and its intervals must make up for.

    Attributes:
        inflation: Variance with new images over variance of the resamplings, at least 1.
        quantile: How many standard errors an interval reaches; more where there are few groups.
        worth: How many independent images one image counts as where no mistake was made. Less than 1 in groups, as
            without mistakes nothing shows how much the images of a group are alike.
    """

    inflation: float
    quantile: float
    worth: float = 1.0


def compute_precision(
    labels: NDArray[np.int64], bootstrap: Bootstrap, groups: NDArray[np.int64] | None = None
) -> Precision:
    """Return the small-sample corrections of a bootstrap that draws these images or groups.

    Args:
        labels: (n,) class of each image; the strata.
        bootstrap: Whether strata are kept, and the confidence.
        groups: (n,) from `encode_groups`, or None.
    """
    if groups is not None:
        sizes = np.unique(groups, return_counts=True)[1]
        count = len(sizes)
        # The design effect of a mean of alike images (Kish, Survey Sampling, 1965), half of whose variance lies
        # between groups; an image's own group is larger than the mean group.
        worth = 1 / (1 + ((sizes**2).sum() / sizes.sum() - 1) / 2)
        return Precision(
            count / max(count - 1, 1), compute_two_sided_quantile(bootstrap.confidence, count), float(worth)
        )
    counts = np.unique(labels, return_counts=True)[1] if bootstrap.stratified else np.array([len(labels)])
    # A class's share of a mean varies as 1 / images; with one image of it, resampling shows nothing at all.
    inflation = (1 / np.maximum(counts - 1, 0.5)).sum() / (1 / counts).sum()
    return Precision(float(inflation), compute_two_sided_quantile(bootstrap.confidence))


def draw_weights(
    labels: NDArray[np.int64],
    bootstrap: Bootstrap,
    *,
    groups: NDArray[np.int64] | None = None,
    cells_a_sample: int = 0,
) -> Iterator[NDArray[np.float32]]:
    """Yield the bootstrap's weights (n, b) in chunks: how often each image is drawn in each resampling.

    Args:
        labels: (n,) class of each image; the strata.
        bootstrap: Number of resamplings, seed and stratification.
        groups: (n,) from `encode_groups`: whole groups are drawn then, whatever their classes.
        cells_a_sample: Numbers that the caller holds for each resampling, to keep the chunks small enough.

    Yields:
        (n, b) float32: how often each image was drawn, in each of b resamplings.
    """
    if groups is not None:
        yield from draw_group_weights(groups, bootstrap, cells_a_sample=cells_a_sample)
        return
    count = len(labels)
    strata = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if not bootstrap.stratified:
        strata = [np.arange(count)]
    generator = np.random.default_rng(bootstrap.seed)
    chunk = max(1, CHUNK_CELLS // max(count, cells_a_sample, 1))
    for start in range(0, bootstrap.samples, chunk):
        size = min(chunk, bootstrap.samples - start)
        weights = np.empty((count, size), dtype=np.float32)
        for members in strata:
            weights[members] = _draw_counts(generator, len(members), size)
        yield weights


def draw_group_weights(
    groups: NDArray[np.int64], bootstrap: Bootstrap, *, cells_a_sample: int = 0
) -> Iterator[NDArray[np.float32]]:
    """Yield the weights (n, b) of a cluster bootstrap in chunks, drawing whole groups, as their images are dependent.

    See Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8. It is not stratified: a group
    may hold several classes.

    Args:
        groups: (n,) number of each image's group, from 0.
        bootstrap: Number of resamplings, and seed.
        cells_a_sample: Numbers that the caller holds for each resampling, to keep the chunks small enough.

    Yields:
        (n, b) float32: how often each image was drawn, in each of b resamplings.
    """
    generator = np.random.default_rng(bootstrap.seed)
    count = int(groups.max()) + 1
    chunk = max(1, CHUNK_CELLS // max(len(groups), cells_a_sample, 1))
    for start in range(0, bootstrap.samples, chunk):
        yield _draw_counts(generator, count, min(chunk, bootstrap.samples - start))[groups]


def compute_percentile_interval(samples: NDArray[np.float64], confidence: float) -> tuple[float, float] | None:
    """Return the percentile interval: the middle ``confidence`` of (m,) resampled metrics; None where all are NaN.

    Resamplings in which the metric is not defined (NaN) are left out.
    """
    defined = samples[np.isfinite(samples)]
    if not len(defined):
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def _draw_counts(generator: np.random.Generator, members: int, size: int) -> NDArray[np.float32]:
    """Return (members, size): how often each was drawn when drawing ``members`` times, ``size`` times over."""
    # One bincount over all resamplings is faster than a multinomial draw for each.
    drawn = generator.integers(0, members, (members, size))
    cells = drawn * size + np.arange(size)
    return np.bincount(cells.ravel(), minlength=members * size).reshape(members, size).astype(np.float32)
