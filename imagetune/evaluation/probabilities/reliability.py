"""Reliability of probabilities: bias-corrected calibration error, plain ECE, and the decomposition of the Brier score.

Predictions are put into bins of equal size by their probability. In each bin the mean probability should equal the
share that came true. With few images in a bin the shares scatter, so that even a perfect model shows an error. The
squared distance minus the variance of the share has no such bias (Bröcker, Climate Dynamics 39, 2012; Kumar et al.
2019, arXiv 1909.10155): the root of its mean is the calibration error reported here. The mean distance without the
correction, the expected calibration error (ECE) of most papers, is reported beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.probabilities.confidence import Draws
from imagetune.evaluation.statistics.bootstrap import CHUNK_CELLS
from imagetune.evaluation.statistics.intervals import Estimate
from imagetune.evaluation.statistics.proportions import compute_exact_bound

Floats = NDArray[np.float64]
AnyFloats = NDArray[np.floating]

MAX_BINS = 15


@dataclass(frozen=True)
class Bins:
    """Predictions binned by probability: n images with m predictions each, every prediction in one of s bins.

    Attributes:
        edges: (s + 1,) rising probabilities; a bin holds its lower edge, the last one both.
        counts: (n, s) number of each image's predictions in each bin.
        forecasts: (n, s) sums of their probabilities.
        outcomes: (n, s) number of them that came true.
    """

    edges: Floats
    counts: Floats
    forecasts: Floats
    outcomes: Floats


@dataclass(frozen=True)
class BrierParts:
    """Decomposition of a Brier score: ``reliability - resolution + uncertainty`` (Murphy, J. Appl. Meteorol. 12, 1973).

    Attributes:
        reliability: Loss by miscalibrated probabilities, bias-corrected; 0 is best.
        resolution: Gain by distinguishing images, including differences inside a bin (Stephenson et al., Weather and
            Forecasting 23, 2008), so that the components sum up to the score.
        uncertainty: Score of always predicting the classes' frequencies.
    """

    reliability: float
    resolution: float
    uncertainty: float


def bin_predictions(forecasts: Floats, outcomes: Floats, *, bins: int | None = None) -> Bins:
    """Return predictions in bins of equal size by their probability.

    Args:
        forecasts: (n, m) probabilities of n images, m predictions each.
        outcomes: (n, m) zeros and ones.
        bins: Number of bins; by default the square root of n, at most `MAX_BINS`. Equal probabilities stay together,
            so there may be fewer.
    """
    wanted = bins or min(max(round(len(forecasts) ** 0.5), 1), MAX_BINS)
    edges = np.unique(np.quantile(forecasts, np.linspace(0, 1, wanted + 1)))
    place = np.searchsorted(edges[1:-1], forecasts, side="right")
    size = max(len(edges) - 1, 1)
    rows = np.arange(len(forecasts))[:, None] * size + place

    def sums(values: Floats) -> Floats:
        flat = np.bincount(rows.ravel(), weights=values.ravel(), minlength=len(forecasts) * size)
        return np.asarray(flat.reshape(len(forecasts), size), np.float64)

    # Equal probabilities leave one bin, which needs two edges as well.
    edges = edges if len(edges) > 1 else np.repeat(edges, 2)
    return Bins(edges, sums(np.ones_like(forecasts)), sums(forecasts), sums(outcomes))


def compute_squared_errors(bins: Bins, weights: AnyFloats) -> tuple[Floats, Floats]:
    """Return the mean squared calibration gap, plain and bias-corrected, (b,) each; the latter may fall below 0.

    The variance of a bin's gap is taken over images, so that predictions about one image may be dependent.

    Args:
        bins: Binned predictions of n images.
        weights: (n, b) how often each image counts, in each of b resamplings.
    """
    excess, counts = bins.outcomes - bins.forecasts, bins.counts
    parts = np.concatenate([counts, counts > 0, excess, excess**2, excess * counts, counts**2], axis=1)
    # One matrix product for all six sums, as reading the weights takes most of the time.
    predictions, images, extra, squared, crossed, weighted = np.split(parts.T @ weights.astype(np.float64), 6)
    gap = extra / np.maximum(predictions, 1e-12)
    squares = squared - 2 * gap * crossed + gap**2 * weighted
    # A single image has no variance (Bessel's correction is not defined for it).
    correction = np.where(images > 1, images / np.maximum(images - 1, 1), 1.0)
    variance = np.maximum(squares, 0) * correction / np.maximum(predictions, 1e-12) ** 2
    share = predictions / predictions.sum(axis=0)
    return (share * gap**2).sum(axis=0), (share * (gap**2 - variance)).sum(axis=0)


def estimate_calibration_error(bins: Bins, draws: Draws) -> Estimate:
    """Return the bias-corrected root mean square calibration error, with its basic bootstrap interval.

    Resampling adds to the sample's error what sampling has added to the model's. So the basic interval is used (Davison
    and Hinkley, Bootstrap Methods and their Application, 1997, 5.2.1): the distances of the resamplings' corrected
    squared errors from the sample's plain one are subtracted from the estimate.
    """
    plain, corrected = (float(value[0]) for value in compute_squared_errors(bins, np.ones((len(bins.counts), 1))))
    samples = np.concatenate([compute_squared_errors(bins, weights)[1] for weights in draws.weights()])
    tail = (1 - draws.confidence) / 2
    far, near = np.quantile(samples, [1 - tail, tail]) - plain
    ends = np.array([corrected - far, corrected, corrected - near])
    # A corrected square below 0 means that the error is within what chance makes: 0 is reported.
    low, value, high = np.sqrt(np.clip(ends, 0.0, 1.0))
    # Predictions that all come true show no error at all, but as many mistakes as no test would show may be one.
    high = max(high, 1 - compute_exact_bound(len(bins.counts) * draws.precision.worth, draws.bootstrap.confidence))
    return Estimate(float(value), float(min(low, value)), float(max(high, value)), method="basic bootstrap")


def compute_plain_ece(bins: Bins) -> float:
    """Return the expected calibration error (ECE) without bias correction, as in most papers (Naeini et al. 2015)."""
    return float(np.abs((bins.outcomes - bins.forecasts).sum(axis=0)).sum() / bins.counts.sum())


def simulate_chance_errors(bins: Bins, forecasts: Floats, *, samples: int, seed: int) -> Floats:
    """Return the plain ECE (samples,) of perfectly calibrated predictions, simulated from their confidences.

    It is what one sees by chance with as many images (consistency resampling; Bröcker and Smith, Weather and
    Forecasting 22, 2007).
    """
    generator = np.random.default_rng(seed)
    place = bins.counts.argmax(axis=1)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(bins.counts.shape[1]))
    expected = bins.forecasts.sum(axis=0)[:, None]
    chunk = max(1, CHUNK_CELLS // len(forecasts))
    found = []
    for start in range(0, samples, chunk):
        drawn = generator.random((len(forecasts), min(chunk, samples - start))) < forecasts[order][:, None]
        outcomes = np.add.reduceat(drawn, starts, axis=0, dtype=np.float64)
        found.append(np.abs(outcomes - expected).sum(axis=0) / len(forecasts))
    return np.concatenate(found)


def decompose_brier_score(forecasts: Floats, outcomes: Floats) -> BrierParts:
    """Return the decomposition of the Brier score, binned by class.

    The score is ``((forecasts - outcomes) ** 2).sum(axis=1).mean()``.

    Args:
        forecasts: (n, k) probabilities.
        outcomes: (n, k) zeros and ones.
    """
    reliability = uncertainty = 0.0
    for column in range(forecasts.shape[1]):
        bins = bin_predictions(forecasts[:, [column]], outcomes[:, [column]])
        counts = bins.counts.sum(axis=0)
        share = bins.outcomes.sum(axis=0) / np.maximum(counts, 1)
        gap = (bins.outcomes - bins.forecasts).sum(axis=0) / np.maximum(counts, 1)
        # The variance of the share, which biases the squared gap upwards (Bröcker 2012).
        scatter = np.where(counts > 1, share * (1 - share) / np.maximum(counts - 1, 1), 0.0)
        # The correction may overshoot, but calibration can't gain anything.
        reliability += max(float((counts * (gap**2 - scatter)).sum() / counts.sum()), 0.0)
        frequency = float(outcomes[:, column].mean())
        uncertainty += frequency * (1 - frequency)
    score = float(((forecasts - outcomes) ** 2).sum(axis=1).mean())
    return BrierParts(reliability, reliability + uncertainty - score, uncertainty)
