"""Two or more runs on the same test pictures: what they differ in, and whether it is more than chance.

Everything is paired. A resampling draws pictures, with what all runs say of them; a test swaps the answers of two runs
picture by picture. Most of what makes one test harder than another is the same for both runs and falls out of their
difference, so that far smaller differences show than two separate intervals would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import wilcoxon

from imagetune.core.multiple_testing import adjust_p_values
from imagetune.evaluation.comparison.churn import answer_changes, differing_pictures
from imagetune.evaluation.comparison.metrics import Answers, answers_of, figures_of, whole_scores
from imagetune.evaluation.comparison.resample import (
    Resampled,
    Tested,
    cells_of,
    defined,
    own_figures,
    redrawn_figures,
    unseen_precision,
)
from imagetune.evaluation.comparison.results import (
    ClassDifference,
    Comparison,
    FigureDifference,
    PairComparison,
    PairTest,
    Power,
)
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.intervals import Bootstrap, Estimate, Precision, flawless_bound
from imagetune.evaluation.statistics.paired_tests import (
    SWAPS,
    deviations_to_tell,
    drawn_swap_p,
    least_difference,
    mcnemar_p,
    pictures_to_tell,
    swap_p,
    swapped_differences,
)
from imagetune.recipe.metrics import METRICS, TASK_METRICS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Differences that are equal but for rounding count as equal.
_NOTHING = 1e-12


def compare_predictions(
    runs: Mapping[str, Predictions], *, groups: Ints, bootstrap: Bootstrap, metric: str | None = None
) -> Comparison:
    """Return how runs differ on the same pictures, with paired intervals and tests.

    Args:
        runs: Predictions by the run's key: of the same n pictures in the same order, with the same labels, all known,
            and the same order of classes.
        groups: (n,) number of each picture's group, from 0; each its own where pictures are independent.
        bootstrap: How intervals are made.
        metric: The figure that decides; by default that of the task.
    """
    answers = {key: answers_of(predictions) for key, predictions in runs.items()}
    task = next(iter(answers.values())).task
    grouped = int(groups.max()) + 1 < len(groups)
    # A group may hold pictures of several classes, so that whole groups can't be drawn class by class.
    bootstrap = replace(bootstrap, stratified=task in ("single_label", "ordinal") and not grouped)
    tested = Tested(answers, groups, grouped, bootstrap, metric or TASK_METRICS[task].decides)
    resampled = {key: redrawn_figures(tested, key) for key in answers}
    pairs = [_pair(tested, resampled, first, second) for first, second in combinations(answers, 2)]
    # With a test a pair, chance alone would soon show a difference among many runs that are equally good.
    corrected = adjust_p_values([pair.test.p_value for pair in pairs])
    return Comparison(
        task=task,
        metric=tested.metric,
        pictures=len(groups),
        groups=tested.units if grouped else None,
        bootstrap=bootstrap,
        figures={key: own_figures(tested, found) for key, found in resampled.items()},
        pairs=tuple(
            replace(pair, test=replace(pair.test, corrected=p)) for pair, p in zip(pairs, corrected, strict=True)
        ),
        differing=differing_pictures(list(answers.values())),
    )


def _pair(tested: Tested, resampled: Mapping[str, Resampled], first: str, second: str) -> PairComparison:
    one, other = resampled[first], resampled[second]
    figures = tuple(
        FigureDifference(
            name,
            defined(one.values[name]),
            defined(other.values[name]),
            _difference(
                one.values[name] - other.values[name],
                one.samples[name] - other.samples[name],
                tested.bootstrap.confidence,
                precision=tested.precision(name),
                worth=tested.worth(name) if METRICS[name].is_share else None,
            ),
        )
        for name in one.values
    )
    pair = (tested.answers[first], tested.answers[second])
    samples = one.samples[tested.metric] - other.samples[tested.metric]
    return PairComparison(
        first=first,
        second=second,
        figures=figures,
        test=_test(tested, *pair, one.values[tested.metric] - other.values[tested.metric]),
        churn=answer_changes(*pair, confidence=None if tested.grouped else tested.bootstrap.confidence),
        classes=_class_differences(tested, *pair, one, other),
        power=_power(tested, *pair, one.values[tested.metric] - other.values[tested.metric], samples),
    )


def _difference(
    value: float, samples: Floats, confidence: float, *, precision: Precision | None, worth: float | None
) -> Estimate:
    """Return a difference with its interval: expanded percentiles, as of any figure.

    Args:
        value: The difference.
        samples: (m,) resampled.
        confidence: Coverage.
        precision: What the draws can't show.
        worth: How many pictures the shares are of, where they are shares.
    """
    if np.isnan(value):
        return Estimate(None, reason="not defined on these pictures")
    defined = samples[np.isfinite(samples)]
    same = len(defined) > 0 and np.ptp(defined) < _NOTHING
    if same and worth is None:
        return Estimate(value, reason="every picture that was drawn says the same")
    if same and worth is not None:
        # Both runs may still differ on pictures of a kind that these hold none of.
        bound = 1 - flawless_bound(worth, confidence)
        how = "every picture that was drawn says the same: exact bound"
        return Estimate(value, max(-1.0, value - bound), min(1.0, value + bound), how, "clopper-pearson")
    if precision is None:
        return Estimate(value, reason="too few pictures for an interval")
    if not len(defined):
        return Estimate(value, reason="no interval: too many pictures and classes to resample")
    tail = float(ndtr(-precision.quantile * sqrt(precision.inflation)))
    # This kind of quantile makes up for there being few resamplings, too: another one lies below it with that chance.
    low, high = np.quantile(defined, [tail, 1 - tail], method="weibull")
    return Estimate(value, float(low), float(high), method="paired bootstrap")


def _test(tested: Tested, first: Answers, second: Answers, difference: float) -> PairTest:
    """Test the deciding figure: over all swaps where it is a mean of whole numbers, else over drawn ones."""
    name, by_group = tested.metric, " by group" if tested.grouped else ""
    one, other = whole_scores(first, name), whole_scores(second, name)
    if one is not None and other is not None:
        p_value = swap_p(tested.by_unit(one - other))
        binary = METRICS[name].mean_over == "images"
        method = "McNemar's exact test" if binary and not tested.grouped else f"exact swap test{by_group}"
        return PairTest(method, p_value, p_value)
    if np.isnan(difference):
        return PairTest("not defined on these pictures", 1.0, 1.0)
    compute = figures_of(first.followed_by(second), samples=2 * SWAPS)
    swapped = swapped_differences(
        tested.groups,
        lambda weights: compute(weights)[0][name],
        seed=tested.bootstrap.seed,
        cells_a_sample=2 * cells_of(first),
    )
    p_value = drawn_swap_p(difference, swapped)
    return PairTest(f"swap test{by_group} ({SWAPS:,} draws)", p_value, p_value)


def _class_differences(
    tested: Tested, first: Answers, second: Answers, one: Resampled, other: Resampled
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


def _of_class(answers: Answers, index: int) -> NDArray[np.bool_]:
    chosen = answers.true[:, index] if answers.true.ndim == 2 else answers.part == index
    return np.asarray(chosen, np.bool_)


def _class_difference(
    tested: Tested, first: Answers, second: Answers, index: int, resampled: tuple[Resampled, Resampled]
) -> ClassDifference:
    one, other = resampled
    task, pictures = first.task, _of_class(first, index)
    value = float(one.by_class[index] - other.by_class[index])
    of_class = len(np.unique(tested.groups[pictures]))
    difference = _difference(
        value,
        one.class_samples[:, index] - other.class_samples[:, index],
        tested.bootstrap.confidence,
        # A label's F1 also hangs on the pictures that lack it.
        precision=unseen_precision(tested.units if task == "multi_label" else of_class, 1, tested.bootstrap.confidence),
        worth=None if task == "regression" else float(of_class),
    )
    figure = FigureDifference(
        TASK_METRICS[task].per_class, float(one.by_class[index]), float(other.by_class[index]), difference
    )
    counts, p_value = _class_test(tested, first, second, index)
    return ClassDifference(first.names[index], int(pictures.sum()), figure, *counts, p_value)


def _class_test(
    tested: Tested, first: Answers, second: Answers, index: int
) -> tuple[tuple[int | None, int | None], float | None]:
    """Return on how many pictures only one is right about a class, and the p-value of a test of that."""
    if first.task == "regression":
        return (None, None), None if tested.grouped else _signed_ranks(first, second, first.part == index)
    if first.task == "multi_label":
        right, also = (each.true[:, index] == each.given[:, index] for each in (first, second))
    else:
        chosen = first.part == index
        right, also = first.right & chosen, second.right & chosen
    difference = right.astype(np.int64) - also.astype(np.int64)
    counts = (int((difference > 0).sum()), int((difference < 0).sum()))
    return counts, swap_p(tested.by_unit(difference)) if tested.grouped else mcnemar_p(*counts)


def _signed_ranks(first: Answers, second: Answers, chosen: NDArray[np.bool_]) -> float:
    true, one, other = (each[chosen].astype(np.float64) for each in (first.true, first.given, second.given))
    gain = np.abs(one - true) - np.abs(other - true)
    return float(wilcoxon(gain).pvalue) if gain.any() else 1.0


def _power(tested: Tested, first: Answers, second: Answers, difference: float, samples: Floats) -> Power:
    confidence, pictures = tested.bootstrap.confidence, len(tested.groups)
    if tested.metric in ("accuracy", "subset_accuracy") and not tested.grouped:
        discordant = float((first.right != second.right).mean())
        least = least_difference(pictures, discordant, confidence=confidence)
        return Power(pictures_to_tell(difference, discordant, confidence=confidence), least)
    defined = samples[np.isfinite(samples)]
    free = tested.units - tested.strata
    if np.isnan(difference) or len(defined) < 2 or free < 1 or not defined.std():
        return Power(None, None)
    least = deviations_to_tell(confidence=confidence) * float(defined.std()) * sqrt(tested.units / free)
    return Power(pictures * (least / difference) ** 2 if difference else None, least)
