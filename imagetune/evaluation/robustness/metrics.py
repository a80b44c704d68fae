"""Robustness metrics: scores by corruption and severity, loss against clean images, and the mean corruption error.

Every metric is a ratio of sums over images: right predictions over images, F1's counts, errors over images. Intervals
of the loss are paired: each image is resampled together with its corrupted versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.robustness.corruptions import COMMON
from imagetune.evaluation.statistics.proportions import compute_two_sided_quantile, compute_wilson_interval
from imagetune.recipe.metrics import METRICS, TASK_METRICS, is_lower_better
from imagetune.recipe.sections.evaluate import Corruption, EvaluateConfig

Floats = NDArray[np.float64]
Cell = tuple[Corruption, int]


@dataclass(frozen=True)
class Sums:
    """A metric as a ratio of sums over n images: terms of numerator ``over`` (n,) and denominator ``under`` (n,)."""

    over: Floats
    under: Floats

    @property
    def score(self) -> float:
        """The ratio over all images; 1 where no label is true and none was predicted."""
        under = self.under.sum()
        return float(self.over.sum() / under) if under else 1.0

    def scores(self, weights: Floats) -> Floats:
        """Return the ratio (b,) of each resampling with weights (n, b)."""
        under = self.under @ weights
        return np.divide(self.over @ weights, under, out=np.ones_like(under), where=under > 0)


@dataclass(frozen=True)
class Resampling:
    """Bootstrap weights that all corruptions share, and the coverage of the intervals made of them.

    Attributes:
        weights: (n, b) how often each image is drawn in each of b resamplings.
        confidence: Coverage of the intervals, in (0, 1).
        grouped: Whether images come in groups, which are resampled as a whole.
    """

    weights: Floats
    confidence: float
    grouped: bool

    def interval(self, samples: Floats) -> tuple[float, float] | None:
        """Return the middle ``confidence`` of resampled metrics (b,); None where they never differ."""
        if np.ptp(samples) == 0:
            return None
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(samples, [tail, 1 - tail])
        return float(low), float(high)


def compute_sums(predictions: Predictions) -> Sums:
    """Return the task's metric as sums over images: accuracy, micro F1 or mean absolute error."""
    task = predictions.rule.task
    if task == "regression":
        errors = np.abs(predictions.probabilities - predictions.targets)[:, 0]
        return Sums(errors, np.ones_like(errors))
    if task == "multi_label":
        true, given = predictions.targets >= 0.5, predictions.given
        return Sums(2.0 * (true & given).sum(axis=1), (true.sum(axis=1) + given.sum(axis=1)).astype(np.float64))
    right = (predictions.labels == predictions.predicted).astype(np.float64)
    return Sums(right, np.ones_like(right))


def draw_resampling(
    predictions: Predictions, groups: Sequence[str | None], config: EvaluateConfig, *, seed: int
) -> Resampling:
    """Return bootstrap resamplings of n images: stratified by class, or of whole groups where images share one."""
    # Prefixed, so that a group whose name is a number can't be mistaken for an image.
    names = [f"group {group}" if group else f"image {place}" for place, group in enumerate(groups)]
    _, codes = np.unique(np.array(names, dtype=object), return_inverse=True)
    grouped = len(set(names)) < len(names)
    generator = np.random.default_rng(seed)
    samples = config.bootstrap_samples
    if grouped:
        return Resampling(_draw_counts(int(codes.max()) + 1, samples, generator)[codes], config.confidence, grouped)
    weights = np.empty((len(names), samples))
    for label in np.unique(predictions.labels):
        members = np.flatnonzero(predictions.labels == label)
        weights[members] = _draw_counts(len(members), samples, generator)
    return Resampling(weights, config.confidence, grouped)


def compute_robustness_metrics(
    clean: Predictions, corrupted: Mapping[Cell, Predictions], drawn: Resampling
) -> dict[str, Any]:
    """Return the robustness metrics of n images and their corrupted versions.

    The mean corruption error is the mean over the 15 common corruptions (those that were tested) of the mean error over
    the severities. In the paper each corruption's error is first divided by AlexNet's; there is no AlexNet for the
    user's classes, so here it is not. ``relative_error`` is the mean corruption error minus the error on clean images.

    Args:
        clean: Predictions for the clean images.
        corrupted: Predictions for the same images by corruption and severity.
        drawn: Resamplings for the intervals.

    Returns:
        ``measure``, ``clean``, ``mean_corruption_error`` and ``relative_error`` (None where no common corruption was
        tested), and ``corruptions``, worst first: ``name``, ``common``, ``by_severity`` (metrics by severity as text),
        ``mean`` and ``lost``. A metric has ``value``, ``low`` and ``high``. ``lost`` is by how much the mean over
        severities is worse than the clean metric.
    """
    measure = TASK_METRICS[clean.rule.task].robustness
    whole, cells = compute_sums(clean), {cell: compute_sums(predictions) for cell, predictions in corrupted.items()}
    corruptions = [
        _corruption(
            name, whole, {severity: sums for (found, severity), sums in cells.items() if found == name}, drawn, measure
        )
        for name in dict.fromkeys(name for name, _ in cells)
    ]
    common = {cell: sums for cell, sums in cells.items() if cell[0] in COMMON}
    return {
        "measure": measure,
        "clean": _metric(whole, drawn, measure),
        **_mean_errors(whole, list(common.values()), drawn, measure),
        "corruptions": sorted(corruptions, key=lambda row: -row["lost"]["value"]),
    }


def _corruption(
    name: Corruption, clean: Sums, by_severity: Mapping[int, Sums], drawn: Resampling, measure: str
) -> dict[str, Any]:
    cells = list(by_severity.values())
    mean = float(np.mean([sums.score for sums in cells]))
    samples = np.mean([sums.scores(drawn.weights) for sums in cells], axis=0)
    worse = 1.0 if is_lower_better(measure) else -1.0
    return {
        "name": name,
        "common": name in COMMON,
        "by_severity": {str(severity): _metric(sums, drawn, measure) for severity, sums in sorted(by_severity.items())},
        "mean": _with_interval(mean, drawn.interval(samples)),
        "lost": _with_interval(
            worse * (mean - clean.score), drawn.interval(worse * (samples - clean.scores(drawn.weights)))
        ),
    }


def _mean_errors(clean: Sums, common: Sequence[Sums], drawn: Resampling, measure: str) -> dict[str, Any]:
    """Return the mean corruption error, and its difference to the clean error.

    All corruptions have equally many severities, so the mean over cells is the mean over corruptions.
    """
    if not common:
        return {"mean_corruption_error": None, "relative_error": None}
    # For regression the score is an error itself; for the other tasks the error is 1 minus the score.
    whole, sign = (0.0, 1.0) if is_lower_better(measure) else (1.0, -1.0)
    mean = whole + sign * float(np.mean([sums.score for sums in common]))
    samples = whole + sign * np.mean([sums.scores(drawn.weights) for sums in common], axis=0)
    before = whole + sign * clean.scores(drawn.weights)
    return {
        "mean_corruption_error": _with_interval(mean, drawn.interval(samples)),
        "relative_error": _with_interval(mean - (whole + sign * clean.score), drawn.interval(samples - before)),
    }


def _metric(sums: Sums, drawn: Resampling, measure: str) -> dict[str, float | None]:
    """Return a score with Wilson's interval where it is a share of independent images, else with a bootstrap one."""
    if METRICS[measure].mean_over == "images" and not drawn.grouped:
        # A binomial share: the bootstrap of few mistakes would be too short (see `statistics.proportions`).
        share = round(sums.over.sum()) / len(sums.over)
        low, high = compute_wilson_interval(share, len(sums.over), compute_two_sided_quantile(drawn.confidence))
        return _with_interval(sums.score, (float(low), float(high)))
    return _with_interval(sums.score, drawn.interval(sums.scores(drawn.weights)))


def _with_interval(value: float, interval: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    # Draws that are all the same say nothing about images of which there is none.
    low, high = (None, None) if low == high else (low, high)
    return {"value": float(value) + 0.0, "low": low, "high": high}  # no negative zero


def _draw_counts(members: int, samples: int, generator: np.random.Generator) -> Floats:
    """Return (members, samples): how often each is drawn when drawing ``members`` times, with repetition."""
    return generator.multinomial(members, np.full(members, 1 / members), size=samples).T.astype(np.float64)
