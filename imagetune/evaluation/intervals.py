"""Bootstrap: how far a figure would move with other pictures of the same kind.

The percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13): draw as many
pictures as there are, with repetition, compute the figure, repeat, and take the middle 95%. Drawing is done as counts:
a resampling is a column of how often each picture was drawn, and the figures are computed from such weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Weights of this many cells (float32) are in memory at once: long vector operations, small memory.
CHUNK_CELLS = 2_000_000


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        samples: Resamplings.
        confidence: Coverage of the intervals, in (0, 1).
        seed: The same seed gives the same intervals.
        stratified: Keep the number of pictures of each class as it is, as in a test set that was put together so.
    """

    samples: int = 1000
    confidence: float = 0.95
    seed: int = 0
    stratified: bool = True


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval.

    Attributes:
        value: None where the figure is not defined; ``reason`` says why.
        low: Lower end of the interval; None where there is none.
        high: Upper end.
        reason: Why something is missing, or how an interval was made that is not a bootstrap one.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, float | str | None]:
        """Return the JSON value: ``value``, ``low``, ``high``, and ``reason`` where there is one."""
        figures: dict[str, float | str | None] = {"value": self.value, "low": self.low, "high": self.high}
        return {**figures, "reason": self.reason} if self.reason else figures


def resampled_weights(
    labels: NDArray[np.int64], bootstrap: Bootstrap, *, cells_a_sample: int = 0
) -> Iterator[NDArray[np.float32]]:
    """Yield all resamplings in chunks.

    Args:
        labels: (n,) class of each picture; the strata.
        bootstrap: How many, and from which seed.
        cells_a_sample: Numbers that the caller holds for each resampling, to keep the chunks small enough.

    Yields:
        (n, b) float32: how often each picture was drawn, in each of b resamplings.
    """
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


def percentile_interval(samples: NDArray[np.float64], confidence: float) -> tuple[float, float] | None:
    """Return the middle ``confidence`` of (m,) resampled figures; None where no resampling gave a figure.

    Resamplings in which the figure is not defined (NaN) are left out.
    """
    defined = samples[np.isfinite(samples)]
    if not len(defined):
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def flawless_bound(pictures: float, confidence: float) -> float:
    """Return the lower end for a share of which no picture was missed.

    Resampling pictures without a mistake never makes one, so the bootstrap would claim certainty. This is the exact
    bound of Clopper and Pearson (Biometrika 26, 1934) for n of n: the share at which n of n is still as likely as one
    tail.

    Args:
        pictures: How many pictures the share is of; need not be whole.
        confidence: Coverage of the interval, in (0, 1).
    """
    return float(((1 - confidence) / 2) ** (1 / pictures))


def effective_pictures(per_class: NDArray[np.float64]) -> float:
    """Return how many pictures a mean over classes is worth: (classes squared) / sum(1 / pictures of the class).

    A share averaged over equally important classes varies as one of this many pictures would; a small class weighs
    on it as much as a large one.
    """
    return float(len(per_class) ** 2 / (1 / per_class).sum())


def _draw_counts(generator: np.random.Generator, members: int, size: int) -> NDArray[np.float32]:
    """Return (members, size): how often each was drawn when drawing ``members`` times, ``size`` times over."""
    drawn = generator.integers(0, members, (members, size))
    cells = drawn * size + np.arange(size)
    return np.bincount(cells.ravel(), minlength=members * size).reshape(members, size).astype(np.float32)


def estimate(
    value: float | None, samples: NDArray[np.float64], bootstrap: Bootstrap, *, pictures: float | None, reason: str = ""
) -> Estimate:
    """Return a figure with its interval.

    Args:
        value: The figure.
        samples: (m,) the figure of each resampling.
        bootstrap: For the confidence.
        pictures: How many pictures the share is of; None for a figure that is no share.
        reason: Why there is no value, where there is none.
    """
    if value is None:
        return Estimate(None, reason=reason)
    interval = percentile_interval(samples, bootstrap.confidence)
    if interval is None:
        return Estimate(value, reason="no interval: too many pictures and classes to resample")
    low, high = interval
    if pictures and low == high and round(value, 9) in (0.0, 1.0):
        bound = flawless_bound(pictures, bootstrap.confidence)
        how = f"no {'mistake' if value else 'hit'} to resample: exact interval of Clopper and Pearson"
        return Estimate(value, bound if value else 0.0, 1.0 if value else 1 - bound, how)
    return Estimate(value, low, high)
