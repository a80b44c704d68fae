"""Analysis ``residuals`` of regression: bias, calibration slope, heteroscedasticity, and errors by range of numbers.

A residual is the prediction minus the true number. Three questions: are predictions too high or too low overall, or in
some range of numbers (bias); do true numbers rise as fast as predictions do (the regression line of the truth on the
prediction has slope 1 and intercept 0 for calibrated predictions: Mincer and Zarnowitz 1969, Cox 1958); and do errors
grow with the prediction (rank correlation of a prediction with its distance from that line, a rank version of Glejser's
test, JASA 64, 1969).

Grouped by true number, any imperfect model is too high for low numbers and too low for high ones, as it can't know
which of its images are extreme (regression to the mean). Grouped by prediction it need not be: that bias can be mended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

from imagetune.core.multiple_testing import adjust_p_values
from imagetune.evaluation.context import EvaluatedSplit, EvaluationContext
from imagetune.evaluation.metrics.regression import (
    MAX_RANGES,
    MIN_IMAGES,
    bin_numbers,
    build_regression_metric_function,
)
from imagetune.evaluation.probabilities.confidence import Draws, build_draws, choose_tested_split, get_known_split
from imagetune.evaluation.statistics.intervals import Estimate

# Quantiles of the absolute error: the typical one, and two that say how far off it can be.
SHARES = (0.5, 0.9, 0.95)
LEVEL = 0.05

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Weights = NDArray[np.floating]


def analyse_residuals(run: EvaluationContext) -> dict[str, Any] | None:
    """Return the analysis of regression residuals on the tested split; None for other tasks.

    The document::

        {"split": "test", "images": 85,
         "bias": {"value", "low", "high"},                                 mean of prediction minus truth
         "slope": {...}, "intercept": {...},                               of the truth on the prediction
         "growth": {...},                                                  rank correlation of error and prediction
         "within": [{"share": 0.5, "error": {"value", "low", "high"}}],    that share of predictions is no further off
         "by_true": [{"range": "up to 107", "images": 17, "centre": 98.5, "bias": {...}, "error": {...},
                      "p", "p_holm", "off": "too high" | "too low" | ""}],
         "by_prediction": the same, by ranges of the prediction,
         "text": "..."}

    ``error`` is the mean absolute error. ``p`` is that of a t test of no bias, on the groups' means where there are
    groups; ``p_holm`` is corrected for all ranges, and ``off`` names the direction where it is below 0.05.
    """
    name = choose_tested_split(run)
    split = get_known_split(run, name)
    if run.data.task != "regression" or split is None:
        return None
    true, given = split.predictions.targets[:, 0], split.predictions.probabilities[:, 0]
    draws = build_draws(split, run.evaluate, seed=run.seed)
    by_true, by_prediction = (_describe_ranges(split, numbers, draws) for numbers in (true, given))
    # Both groupings are one family of tests for Holm's correction: a reader looks at all of them.
    for row, p in zip(
        [*by_true, *by_prediction], adjust_p_values([row["p"] for row in (*by_true, *by_prediction)]), strict=True
    ):
        row |= {"p_holm": p, "off": "" if p >= LEVEL else "too high" if row["bias"]["value"] > 0 else "too low"}
    document: dict[str, Any] = {
        "split": name,
        "images": len(true),
        "bias": draws.mean(given - true).to_dict(),
        **{key: metric.to_dict() for key, metric in _estimate_line(true, given, draws).items()},
        "within": [
            {"share": share, "error": _estimate_quantile(np.abs(given - true), share, draws).to_dict()}
            for share in SHARES
        ],
        "by_true": by_true,
        "by_prediction": by_prediction,
    }
    return {**document, "text": " ".join(_summarise(document))}


def fit_calibration_line(true: Floats, given: Floats, weights: Weights) -> tuple[Floats, Floats]:
    """Return slope and intercept (b,) of the least-squares line of the truth on the prediction.

    Args:
        true: (n,) the true numbers.
        given: (n,) the predicted numbers.
        weights: (n, b) how often each image counts.

    Returns:
        Slope and intercept; NaN where all predictions are the same.
    """
    # Centred first: sums of squares of numbers far from 0 would lose their digits.
    centre = float(given.mean())
    across, drawn = given - centre, weights.astype(np.float64)
    total = drawn.sum(axis=0)
    mean_across, mean_up = across @ drawn / total, true @ drawn / total
    spread = np.square(across) @ drawn / total - np.square(mean_across)
    together = (across * (true - true.mean())) @ drawn / total - mean_across * (mean_up - true.mean())
    # Predictions that differ by rounding alone have no slope.
    enough = spread > 1e-12 * max(float(np.square(across).max()), 1e-300)
    slope: Floats = np.divide(together, spread, out=np.full_like(spread, np.nan), where=enough)
    return slope, mean_up - slope * (mean_across + centre)


def compute_error_quantile(errors: Floats, share: float, weights: Weights) -> Floats:
    """Return the weighted quantile (b,) of errors (n,): the smallest that is no less than ``share`` of them."""
    order = np.argsort(errors, kind="stable")
    reached = np.cumsum(weights[order], axis=0, dtype=np.float64)
    # Shares such as 0.9 are no exact binary numbers.
    place = (reached >= share * reached[-1] - 1e-9).argmax(axis=0)
    found: Floats = errors[order][place]
    return found


def compute_bias_p_value(residuals: Floats, groups: Ints | None) -> float:
    """Return the two-sided p-value of Student's t test that (n,) residuals are 0 on average.

    Args:
        residuals: Prediction minus truth.
        groups: (n,) from `group_codes`, to test the means of groups, as images of a group are dependent; or None.
    """
    means = residuals if groups is None else np.bincount(groups, residuals) / np.bincount(groups)
    if len(means) < 2 or np.ptp(means) == 0:
        return 1.0
    return float(ttest_1samp(means, 0.0).pvalue)


def describe_bias(bias: Mapping[str, Any], *, unit: str = "") -> str:
    """Return a sentence on the bias from its JSON value; ``unit`` follows the number."""
    low, high = bias["low"], bias["high"]
    if low is None or high is None or low <= 0 <= high:
        return "Overall the predictions have no significant bias."
    ends = sorted((abs(low), abs(high)))
    way, mean = "high" if low > 0 else "low", f"{abs(bias['value']):.4g}{unit}"
    return f"Overall the predictions are too {way}, by {mean} on average ({ends[0]:.4g} to {ends[1]:.4g})."


def _estimate_line(true: Floats, given: Floats, draws: Draws) -> Mapping[str, Estimate]:
    """Return the calibration line's slope and intercept, and the growth of errors about it with the prediction."""
    whole = np.ones((len(true), 1))
    slope, intercept = fit_calibration_line(true, given, whole)
    if np.isnan(slope[0]):
        return dict.fromkeys(("slope", "intercept", "growth"), Estimate(None, reason="all predictions are the same"))
    far = np.abs(true - intercept[0] - slope[0] * given)
    ranked = build_regression_metric_function(far, given)

    def values(weights: Weights) -> tuple[Floats, ...]:
        return *fit_calibration_line(true, given, weights), ranked(weights)["spearman"]

    return dict(zip(("slope", "intercept", "growth"), _estimates(values, whole, draws), strict=True))


def _estimates(values: Callable[[Weights], Sequence[Floats]], whole: Weights, draws: Draws) -> Iterator[Estimate]:
    """Yield each metric with its interval; one that is not defined has none."""
    samples = [np.concatenate(parts) for parts in zip(*map(values, draws.weights()), strict=True)]
    for value, drawn in zip(values(whole), samples, strict=True):
        known = not np.isnan(value[0])
        yield draws.metric(float(value[0]), drawn) if known else Estimate(None, reason="all errors are the same")


def _estimate_quantile(errors: Floats, share: float, draws: Draws) -> Estimate:
    samples = np.concatenate([compute_error_quantile(errors, share, weights) for weights in draws.weights()])
    return draws.metric(float(compute_error_quantile(errors, share, np.ones((len(errors), 1)))[0]), samples)


def _describe_ranges(split: EvaluatedSplit, numbers: Floats, draws: Draws) -> list[dict[str, Any]]:
    """Return bias and mean absolute error of the images in each range of numbers (n,); empty with a single range."""
    codes, names = bin_numbers(numbers, most=MAX_RANGES, least=MIN_IMAGES)
    residuals = split.predictions.probabilities[:, 0] - split.predictions.targets[:, 0]
    rows = []
    # A single range would only repeat the bias of all images.
    for code, name in enumerate(names if len(names) > 1 else ()):
        inside = codes == code
        own, drawn = residuals[inside], draws.of(inside)
        rows.append(
            {
                "range": name,
                "images": len(own),
                "centre": float(np.median(numbers[inside])),
                "bias": drawn.mean(own).to_dict(),
                "error": drawn.mean(np.abs(own), scale="loss").to_dict(),
                "p": compute_bias_p_value(own, drawn.groups),
            }
        )
    return rows


def _summarise(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield sentences on how far off the predicted numbers are, and in which direction."""
    half, most = (row["error"]["value"] for row in document["within"][:2])
    yield f"Half of the predictions are within {half:.4g} of the truth, nine of ten within {most:.4g}."
    yield describe_bias(document["bias"])
    yield from _describe_slope(document["slope"])
    yield from _describe_growth(document["growth"])
    off = [row for row in document["by_prediction"] if row["off"]]
    if off:
        first = min(off, key=lambda row: row["p_holm"])
        yield (
            f"Predictions {first['range']} are {first['off']}, by {abs(first['bias']['value']):.4g} on average: "
            "a statistically significant bias."
        )


def _describe_slope(slope: Mapping[str, Any]) -> Iterator[str]:
    low, high = slope["low"], slope["high"]
    if low is None or high is None or low <= 1 <= high:
        return
    way = "predictions stay too near the middle" if low > 1 else "predictions go too far from the middle"
    yield f"Where predictions lie 1 apart, true values lie {slope['value']:.2f} apart ({low:.2f} to {high:.2f}): {way}."


def _describe_growth(growth: Mapping[str, Any]) -> Iterator[str]:
    low, high = growth["low"], growth["high"]
    if low is not None and low > 0:
        yield "Errors grow with the prediction, so intervals of one width are too narrow for high predictions."
    elif high is not None and high < 0:
        yield "Errors shrink as the prediction grows, so intervals of one width are too narrow for low predictions."
