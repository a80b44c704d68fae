"""Paired comparison of two or more runs on the same test images: differences, intervals and significance tests.

Everything is paired. A resampling draws images together with all runs' predictions; a test swaps the predictions of
two runs image by image. Most of what makes one image harder than another is the same for both runs and cancels in
their difference, so that far smaller differences are detected than two separate intervals could show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import wilcoxon

from imagetune.core.multiple_testing import adjust_p_values
from imagetune.evaluation.comparison.churn import compute_churn, find_differing_images
from imagetune.evaluation.comparison.metrics import (
    RunPredictions,
    build_metric_function,
    compute_integer_scores,
    prepare_predictions,
)
from imagetune.evaluation.comparison.resample import (
    Resampled,
    Tested,
    compute_unit_precision,
    convert_nan_to_none,
    count_cells,
    resample_metrics,
)
from imagetune.evaluation.comparison.results import (
    ClassDifference,
    Comparison,
    MetricDifference,
    PairComparison,
    PairTest,
    Power,
)
from imagetune.evaluation.document import evaluate_split
from imagetune.evaluation.metrics.class_means import sum_open_ends
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.bootstrap import Bootstrap, Precision
from imagetune.evaluation.statistics.intervals import Estimate
from imagetune.evaluation.statistics.paired_tests import (
    SWAPS,
    compute_detectable_deviations,
    compute_images_needed,
    compute_mcnemar_p_value,
    compute_min_detectable_difference,
    compute_monte_carlo_p_value,
    compute_permutation_p_value,
    permute_differences,
)
from imagetune.evaluation.statistics.proportions import compute_exact_bound
from imagetune.recipe.metrics import METRICS, TASK_METRICS, list_compared_metrics
from imagetune.recipe.sections.evaluate import EvaluateConfig
from imagetune.recipe.tasks import Task

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Means over classes of shares of images.
_MEANS = ("balanced_accuracy", "precision", "recall", "f1")
# Differences that are equal but for rounding count as equal.
_NOTHING = 1e-12


def compare_predictions(
    runs: Mapping[str, Predictions],
    *,
    groups: Ints,
    bootstrap: Bootstrap,
    metric: str | None = None,
    metrics: Mapping[str, Mapping[str, Estimate]] | None = None,
) -> Comparison:
    """Return the paired comparison of runs: differences with bootstrap intervals, tests corrected by Holm, churn.

    Args:
        runs: Predictions by the run's key, for the same n images in the same order, with the same known labels and
            the same order of classes.
        groups: (n,) number of each image's group, from 0; each image is its own group where images are independent.
        bootstrap: Settings of the intervals.
        metric: The metric that decides; by default that of the task.
        metrics: Each run's own metrics of these images with their intervals, as its report has them; by default they
            are computed here.
    """
    predictions = {key: prepare_predictions(predictions) for key, predictions in runs.items()}
    task = next(iter(predictions.values())).task
    grouped = int(groups.max()) + 1 < len(groups)
    # A group may hold images of several classes, so that whole groups can't be drawn class by class.
    bootstrap = replace(bootstrap, stratified=task in ("single_label", "ordinal") and not grouped)
    tested = Tested(predictions, groups, grouped, bootstrap, metric or TASK_METRICS[task].decides)
    resampled = {key: resample_metrics(tested, key) for key in predictions}
    pairs = [_pair(tested, resampled, first, second) for first, second in combinations(predictions, 2)]
    # With one test for each pair, chance alone would soon show a difference among many equally good runs.
    corrected = adjust_p_values([pair.test.p_value for pair in pairs])
    return Comparison(
        task=task,
        metric=tested.metric,
        images=len(groups),
        groups=tested.units if grouped else None,
        bootstrap=bootstrap,
        metrics={key: _select_metrics(task, (metrics or {}).get(key) or _evaluate(tested, runs[key])) for key in runs},
        pairs=tuple(
            replace(pair, test=replace(pair.test, corrected=p)) for pair, p in zip(pairs, corrected, strict=True)
        ),
        differing=find_differing_images(list(predictions.values())),
    )


def _select_metrics(task: Task, metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
    return {name: metrics[name] for name in list_compared_metrics(task)}


def _evaluate(tested: Tested, predictions: Predictions) -> Mapping[str, Estimate]:
    """Return a run's own metrics by the same function that a run's test uses: a metric has one interval everywhere."""
    bootstrap = tested.bootstrap
    config = EvaluateConfig(bootstrap_samples=bootstrap.samples, confidence=bootstrap.confidence)
    groups = [str(group) for group in tested.groups] if tested.grouped else []
    return evaluate_split(predictions, config=config, seed=bootstrap.seed, groups=groups).metrics


def _pair(tested: Tested, resampled: Mapping[str, Resampled], first: str, second: str) -> PairComparison:
    one, other = resampled[first], resampled[second]
    agreed = _find_agreement(tested, tested.predictions[first], tested.predictions[second])
    metrics = tuple(
        MetricDifference(
            name,
            convert_nan_to_none(one.values[name]),
            convert_nan_to_none(other.values[name]),
            _allow_for_agreement(
                _difference(
                    one.values[name] - other.values[name],
                    one.samples[name] - other.samples[name],
                    tested.bootstrap.confidence,
                    precision=tested.precision(name),
                    worth=tested.worth(name) if METRICS[name].is_share else None,
                ),
                agreed if name in _MEANS else None,
                tested.bootstrap.confidence,
            ),
        )
        for name in one.values
    )
    pair = (tested.predictions[first], tested.predictions[second])
    samples = one.samples[tested.metric] - other.samples[tested.metric]
    return PairComparison(
        first=first,
        second=second,
        metrics=metrics,
        test=_test(tested, *pair, one.values[tested.metric] - other.values[tested.metric]),
        churn=compute_churn(*pair, confidence=None if tested.grouped else tested.bootstrap.confidence),
        classes=_class_differences(tested, *pair, one, other),
        power=_power(tested, *pair, one.values[tested.metric] - other.values[tested.metric], samples),
    )


@dataclass(frozen=True)
class _Agreement:
    """The classes on whose images two runs predict the same.

    Attributes:
        images: (c,) images or groups of each such class.
        classes: Number of classes that have images.
    """

    images: Floats
    classes: int


def _find_agreement(tested: Tested, first: RunPredictions, second: RunPredictions) -> _Agreement:
    several = first.true.ndim == 2
    agreed, classes = [], 0
    for index in range(len(first.names)):
        chosen = _of_class(first, index)
        classes += bool(chosen.any())
        # A label's precision and F1 depend on the images without it, too.
        same = first.given[:, index] == second.given[:, index] if several else (first.given == second.given)[chosen]
        if chosen.any() and np.all(same):
            agreed.append(len(np.unique(tested.groups[chosen])))
    return _Agreement(np.array(agreed, np.float64), classes)


def _allow_for_agreement(found: Estimate, agreed: _Agreement | None, confidence: float) -> Estimate:
    """Return a difference of means over classes that allows for what classes without a disagreement leave open.

    No resampling shows a disagreement that did not happen, as in `imagetune.evaluation.metrics.class_means`.
    """
    if agreed is None or not len(agreed.images) or found.value is None or found.low is None or found.high is None:
        return found
    reach = sum_open_ends(agreed.images, confidence) / agreed.classes
    low, high = max(-1.0, found.value - reach), min(1.0, found.value + reach)
    return replace(found, low=min(found.low, low), high=max(found.high, high))


def _difference(
    value: float, samples: Floats, confidence: float, *, precision: Precision | None, worth: float | None
) -> Estimate:
    """Return a difference with its expanded percentile interval (Hesterberg, The American Statistician 69, 2015).

    Args:
        value: The observed difference.
        samples: (m,) differences of the resamplings.
        confidence: Coverage of the interval, in (0, 1).
        precision: By how much percentiles must be expanded; None where there are too few images.
        worth: Effective number of images of the two shares; None for metrics that are no shares.
    """
    if np.isnan(value):
        return Estimate(None, reason="not defined on these images")
    finite = samples[np.isfinite(samples)]
    same = len(finite) > 0 and np.ptp(finite) < _NOTHING
    if same and worth is None:
        return Estimate(value, reason="no interval: the difference is the same in every resampling")
    if same and worth is not None:
        # No resampling can show images of a kind that the test lacks, on which the runs may differ.
        bound = 1 - compute_exact_bound(worth, confidence)
        how = "the difference is the same in every resampling: exact bound"
        return Estimate(value, max(-1.0, value - bound), min(1.0, value + bound), how, "clopper-pearson")
    if precision is None:
        return Estimate(value, reason="too few images for an interval")
    if not len(finite):
        return Estimate(value, reason="no interval: too many images and classes to resample")
    tail = float(ndtr(-precision.quantile * sqrt(precision.inflation)))
    # Weibull's quantile is unbiased for few resamplings: a further one lies below it with just that probability.
    low, high = np.quantile(finite, [tail, 1 - tail], method="weibull")
    return Estimate(value, float(low), float(high), method="paired bootstrap")


def _test(tested: Tested, first: RunPredictions, second: RunPredictions, difference: float) -> PairTest:
    """Return the permutation test of the deciding metric: exact where it is a mean of whole numbers, else Monte Carlo.

    An exact test needs the distribution of a sum of integers; other metrics have too many swaps to count.
    """
    name, by_group = tested.metric, " by group" if tested.grouped else ""
    one, other = compute_integer_scores(first, name), compute_integer_scores(second, name)
    if one is not None and other is not None:
        p_value = compute_permutation_p_value(tested.by_unit(one - other))
        binary = METRICS[name].mean_over == "images"
        method = "McNemar's exact test" if binary and not tested.grouped else f"exact swap test{by_group}"
        return PairTest(method, p_value, p_value)
    if np.isnan(difference):
        return PairTest("not defined on these images", 1.0, 1.0)
    # Twice, as each swap takes the metric of both runs.
    compute = build_metric_function(first.followed_by(second), samples=2 * SWAPS)
    swapped = permute_differences(
        tested.groups,
        lambda weights: compute(weights)[0][name],
        seed=tested.bootstrap.seed,
        cells_a_sample=2 * count_cells(first),
    )
    p_value = compute_monte_carlo_p_value(difference, swapped)
    return PairTest(f"swap test{by_group} ({SWAPS:,} draws)", p_value, p_value)


def _class_differences(
    tested: Tested, first: RunPredictions, second: RunPredictions, one: Resampled, other: Resampled
) -> tuple[ClassDifference, ...]:
    found = [
        _class_difference(tested, first, second, index, (one, other))
        for index in range(len(first.names))
        if _of_class(first, index).any()
    ]
    tests = [difference.p_value for difference in found]
    if any(p is None for p in tests):
        return tuple(found)
    corrected = adjust_p_values([p for p in tests if p is not None])
    return tuple(replace(each, corrected=p) for each, p in zip(found, corrected, strict=True))


def _of_class(predictions: RunPredictions, index: int) -> NDArray[np.bool_]:
    chosen = predictions.true[:, index] if predictions.true.ndim == 2 else predictions.part == index
    return np.asarray(chosen, np.bool_)


def _class_difference(
    tested: Tested, first: RunPredictions, second: RunPredictions, index: int, resampled: tuple[Resampled, Resampled]
) -> ClassDifference:
    one, other = resampled
    task, images = first.task, _of_class(first, index)
    value = float(one.by_class[index] - other.by_class[index])
    of_class = len(np.unique(tested.groups[images]))
    difference = _difference(
        value,
        one.class_samples[:, index] - other.class_samples[:, index],
        tested.bootstrap.confidence,
        # A label's F1 depends on the images without it, too, through false positives.
        precision=compute_unit_precision(
            tested.units if task == "multi_label" else of_class, 1, tested.bootstrap.confidence
        ),
        worth=None if task == "regression" else float(of_class),
    )
    metric = MetricDifference(
        TASK_METRICS[task].per_class, float(one.by_class[index]), float(other.by_class[index]), difference
    )
    counts, p_value = _class_test(tested, first, second, index)
    return ClassDifference(first.names[index], int(images.sum()), metric, *counts, p_value)


def _class_test(
    tested: Tested, first: RunPredictions, second: RunPredictions, index: int
) -> tuple[tuple[int | None, int | None], float | None]:
    """Return on how many images only the first and only the second run is right about a class, and the p-value."""
    # Signed ranks and McNemar's test count images as independent, which those of a group aren't: groups have no test of
    # ranks here, and otherwise are swapped as a whole.
    if first.task == "regression":
        return (None, None), None if tested.grouped else _signed_ranks(first, second, first.part == index)
    if first.task == "multi_label":
        right, also = (each.true[:, index] == each.given[:, index] for each in (first, second))
    else:
        chosen = first.part == index
        right, also = first.right & chosen, second.right & chosen
    difference = right.astype(np.int64) - also.astype(np.int64)
    counts = (int((difference > 0).sum()), int((difference < 0).sum()))
    return counts, compute_permutation_p_value(
        tested.by_unit(difference)
    ) if tested.grouped else compute_mcnemar_p_value(*counts)


def _signed_ranks(first: RunPredictions, second: RunPredictions, chosen: NDArray[np.bool_]) -> float:
    true, one, other = (each[chosen].astype(np.float64) for each in (first.true, first.given, second.given))
    gain = np.abs(one - true) - np.abs(other - true)
    # Of ranks, so that a few huge errors don't decide; without any difference the test is not defined.
    return float(wilcoxon(gain).pvalue) if gain.any() else 1.0


def _power(tested: Tested, first: RunPredictions, second: RunPredictions, difference: float, samples: Floats) -> Power:
    confidence, images = tested.bootstrap.confidence, len(tested.groups)
    if tested.metric in ("accuracy", "subset_accuracy") and not tested.grouped:
        discordant = float((first.right != second.right).mean())
        detectable = compute_min_detectable_difference(images, discordant, confidence=confidence)
        return Power(compute_images_needed(difference, discordant, confidence=confidence), detectable)
    finite = samples[np.isfinite(samples)]
    free = tested.units - tested.strata
    if np.isnan(difference) or len(finite) < 2 or free < 1 or not finite.std():
        return Power(None, None)
    # Draws from few units vary less than new units would; the factor makes up for it.
    detectable = compute_detectable_deviations(confidence=confidence) * float(finite.std()) * sqrt(tested.units / free)
    # Standard errors fall with the root of the number of images.
    return Power(images * (detectable / difference) ** 2 if difference else None, detectable)
