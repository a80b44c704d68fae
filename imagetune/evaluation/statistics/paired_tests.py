"""Paired significance tests of two runs on the same images: McNemar's exact test and permutation tests; their power.

All are permutation tests: had the two runs' predictions been swapped on any image, would the difference have come out
as large? McNemar's exact test is that question for right and wrong predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.signal import convolve
from scipy.special import ndtri
from scipy.stats import binom, binomtest

from imagetune.evaluation.statistics.bootstrap import CHUNK_CELLS

# Swaps drawn where not all can be counted: at p = 0.05 the Monte Carlo error is then 0.005.
SWAPS = 2000
# The customary power: the share of tests that find a difference which is there (Cohen, Statistical Power Analysis,
# 1988).
POWER = 0.8
# Differences that are equal but for rounding count as equal.
_ROUNDING = 1e-9

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def compute_mcnemar_p_value(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (Psychometrika 12, 1947).

    Args:
        only_first: Images on which only the first run is right.
        only_second: Images on which only the second run is right.
    """
    # The images on which both are right or both are wrong are the same after any swap, so they say nothing.
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def compute_permutation_p_value(differences: Ints) -> float:
    """Return the two-sided p-value of the exact paired permutation test of a sum of differences.

    This is Fisher's randomisation test for pairs (The Design of Experiments, 1935, section 21). All swaps are counted,
    none drawn; where every difference is -1, 0 or 1 it is McNemar's exact test.

    Args:
        differences: (u,) score of the first run minus that of the second, a whole number for each unit that is swapped
            as one: an image, or all images of a group.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    chances = np.ones(1)
    # Differences of one size share a binomial distribution: one convolution for each size instead of each image.
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        spaced = np.zeros(size * count + 1)
        spaced[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = convolve(chances, spaced)
    total = int((sizes * counts).sum())
    # Swapping one difference moves the sum by twice its size, so that possible sums lie two apart.
    sums = 2 * np.arange(total + 1) - total
    # The convolution of many differences is done by fast Fourier transform, which rounds.
    return float(np.clip(chances[np.abs(sums) >= abs(int(differences.sum()))].sum(), 0.0, 1.0))


def compute_monte_carlo_p_value(difference: float, swapped: Floats) -> float:
    """Return the two-sided p-value of the Monte Carlo permutation test, from the differences after drawn swaps.

    The difference itself counts as one of them, so that p is never 0 (Phipson and Smyth, Statistical Applications in
    Genetics and Molecular Biology 9, 2010).

    Args:
        difference: The observed difference.
        swapped: (m,) the difference after each swap; NaN where it is not defined.
    """
    defined = swapped[np.isfinite(swapped)]
    as_large = np.abs(defined) >= abs(difference) * (1 - _ROUNDING)
    return float((1 + as_large.sum()) / (1 + len(defined)))


def permute_differences(
    units: Ints, metric: Callable[[NDArray[np.float32]], Floats], *, seed: int, cells_a_sample: int = 0
) -> Floats:
    """Return the difference (m,) of a metric after each of m random swaps of the two runs' predictions.

    Approximate randomisation (Noreen, Computer-Intensive Methods for Testing Hypotheses, 1989).

    Args:
        units: (n,) what is swapped as one: each image's own number, or that of its group.
        metric: Computes the metric (b,) from weights (2n, b): first all images as the first run predicts them, then
            all as the second one does.
        seed: The same seed gives the same swaps.
        cells_a_sample: Numbers that ``metric`` holds for each swap.
    """
    return np.concatenate(
        [metric(kept) - metric(1 - kept) for kept in _kept_predictions(units, seed=seed, cells_a_sample=cells_a_sample)]
    )


def _kept_predictions(units: Ints, *, seed: int, cells_a_sample: int) -> Iterator[NDArray[np.float32]]:
    """Yield (2n, b): 1 for the prediction that stands for the first run, 0 for the other one."""
    generator = np.random.default_rng(seed)
    count = int(units.max()) + 1
    chunk = max(1, CHUNK_CELLS // max(2 * len(units), cells_a_sample))
    for start in range(0, SWAPS, chunk):
        own = generator.integers(0, 2, (count, min(chunk, SWAPS - start))).astype(np.float32)[units]
        yield np.concatenate([own, 1 - own])


def compute_images_needed(difference: float, discordant: float, *, confidence: float) -> float | None:
    """Return the sample size: how many images McNemar's test needs to detect a difference with `POWER`.

    Connor's formula (Biometrics 43, 1987).

    Args:
        difference: Difference of two accuracies.
        discordant: Share of images on which only one of the two is right; at least the difference.
        confidence: One minus the test's significance level.

    Returns:
        The number of images; None where there is no difference.
    """
    if not difference:
        return None
    return _needed(abs(difference), discordant, confidence) / difference**2


def compute_min_detectable_difference(images: int, discordant: float, *, confidence: float) -> float:
    """Return the minimum detectable difference: that of two accuracies which McNemar's test detects with `POWER`.

    Args:
        images: Number of test images.
        discordant: Share of images on which only one of the two is right; a difference can't be larger, so where it
            would be, as many more images are taken to be discordant.
        confidence: One minus the test's significance level.
    """
    # Connor's formula has no closed inverse once the discordant share depends on the difference: bisection.
    low, high = 0.0, 1.0
    # Fifty halvings of 0..1 leave an error of 1e-15.
    for _ in range(50):
        middle = (low + high) / 2
        enough = images * middle**2 >= _needed(middle, max(discordant, middle), confidence)
        low, high = (low, middle) if enough else (middle, high)
    return high


def compute_detectable_deviations(*, confidence: float) -> float:
    """Return how many standard errors from 0 a true difference must lie for a two-sided test to have `POWER`."""
    return float(ndtri((1 + confidence) / 2) + ndtri(POWER))


def _needed(difference: float, discordant: float, confidence: float) -> float:
    # A difference of 1 has no variance; the root's argument could then fall below 0 by rounding.
    level, power = float(ndtri((1 + confidence) / 2)), float(ndtri(POWER))
    return (level * sqrt(discordant) + power * sqrt(max(0.0, discordant - difference**2))) ** 2
