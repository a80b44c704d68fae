"""The document of a comparison: plain JSON values, with a verdict in words for each pair of runs and over all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, floor, log10
from typing import Any

from imagetune.core.documents import CURRENT_FORMAT, FORMAT_VERSION
from imagetune.core.text import format_count
from imagetune.evaluation.comparison.results import Churn, ClassDifference, Comparison, MetricDifference, PairComparison
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.paired_tests import POWER
from imagetune.recipe.metrics import METRICS, is_lower_better

# Regression predictions all differ somewhat, so only the images with the largest differences are listed.
MAX_NUMBERS = 100


@dataclass(frozen=True)
class ComparedRun:
    """The identity of a compared run, for readers of the comparison.

    Attributes:
        key: What it is called in the comparison: A, B and so on.
        name: The run as the user named it.
        recipe: Name of its recipe.
        backbone: Name of its model's backbone.
        test_images: Number of images in its whole test split.
    """

    key: str
    name: str
    recipe: str
    backbone: str
    test_images: int


def build_comparison_document(
    comparison: Comparison,
    predictions: Mapping[str, Predictions],
    *,
    runs: Sequence[ComparedRun],
    matched_by: str,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return a comparison as plain JSON values, with its verdict in words.

    The document::

        {"format_version": 1, "task": "single_label", "metric": "accuracy",    the metric that decides
         "images": 120, "groups": null, "matched_by": "content" | "path", "confidence": 0.95, "bootstrap": {...},
         "runs": [{"key": "A", "run": "...", "recipe": "...", "backbone": "...", "test_images": 120,
                   "metrics": {"accuracy": {"value", "low", "high"}}}],
         "pairs": [{"first": "A", "second": "B",
                    "metrics": {"accuracy": {"first", "second", "difference": {"value", "low", "high"},
                                             "ahead": "A" | "B" | null}},    who is better where 0 is excluded
                    "test": {"metric", "method", "p_value", "corrected"},    corrected for all pairs (Holm)
                    "better": "A" | "B" | null,       by the corrected test
                    "churn": {"changed", "share": {...}, "right_to_wrong", "wrong_to_right", "both_right",
                              "both_wrong"}    or, of numbers, {"mean_change", "first_closer", "second_closer"}
                    "per_class": [{"class", "images", "metric": "recall", "first", "second", "difference": {...},
                                   "only_first", "only_second", "p_value", "corrected"}],    corrected for all classes
                    "power": {"images_needed", "min_detectable_difference", "chance": 0.8},
                    "verdict": {"code": "different" | "undecided" | "identical", "text"}}],
         "verdict": {"code": as of a pair, "title", "text"},
         "differing": {"images": 14, "listed": [{"path", "label", "predictions": {"A", "B"}, "right": ["A"]}]},
         "notes": ["..."]}

    Args:
        comparison: Result of `imagetune.evaluation.comparison.compare.compare_predictions`.
        predictions: The compared predictions, by the run's key.
        runs: The runs, in the same order.
        matched_by: Whether images were matched by content or by path.
        notes: Further notes for the reader.
    """
    pairs = [_pair_document(comparison, pair) for pair in comparison.pairs]
    return {
        FORMAT_VERSION: CURRENT_FORMAT,
        "task": comparison.task,
        "metric": comparison.metric,
        "images": comparison.images,
        "groups": comparison.groups,
        "matched_by": matched_by,
        "confidence": comparison.bootstrap.confidence,
        "bootstrap": {"method": "paired percentile, expanded", **asdict(comparison.bootstrap)},
        "runs": [_run_document(run, comparison) for run in runs],
        "pairs": pairs,
        "verdict": _judge_runs(comparison, pairs),
        "differing": _list_differing(comparison, predictions),
        "notes": [*notes, *_list_notes(comparison)],
    }


def format_difference(value: float, metric: str, *, digits: int = 1) -> str:
    """Return a difference as text: in points for shares, else with three significant digits; never -0."""
    if METRICS[metric].is_share:
        return f"{round(100 * value, digits) + 0.0:.{digits}f}"
    return f"{value:.3g}" if value else "0"


def format_p_value(p_value: float) -> str:
    """Return a p-value as text, such as ``p = 0.031`` or ``p < 0.001``."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}" if p_value < 0.995 else "p = 1"


def round_up(value: float) -> int:
    """Return a number of images rounded up to two digits: more would claim a precision that an estimate hasn't."""
    # Subtracted against rounding: a quotient that should be whole may lie just above it, and would be rounded up.
    step = 10 ** max(0, floor(log10(value)) - 1) if value >= 1 else 1
    return int(ceil(value / step - 1e-9) * step)


def _run_document(run: ComparedRun, comparison: Comparison) -> dict[str, Any]:
    fields = asdict(run)
    metrics = {name: metric.to_dict() for name, metric in comparison.metrics[run.key].items()}
    return {"key": fields.pop("key"), "run": fields.pop("name"), **fields, "metrics": metrics}


def _pair_document(comparison: Comparison, pair: PairComparison) -> dict[str, Any]:
    better = _find_better(comparison, pair)
    return {
        "first": pair.first,
        "second": pair.second,
        "metrics": {metric.name: _metric_document(metric, pair) for metric in pair.metrics},
        "test": {"metric": comparison.metric, **asdict(pair.test)},
        "better": better,
        "churn": _churn_document(pair),
        "per_class": [_class_document(each) for each in pair.classes],
        "power": {**asdict(pair.power), "chance": POWER},
        "verdict": {"code": _choose_code(pair, better), "text": " ".join(_describe_pair(comparison, pair, better))},
    }


def _metric_document(metric: MetricDifference, pair: PairComparison) -> dict[str, Any]:
    return {
        "first": metric.first,
        "second": metric.second,
        "difference": metric.difference.to_dict(),
        "ahead": _find_ahead(metric, pair),
    }


def _churn_document(pair: PairComparison) -> dict[str, Any]:
    churn = pair.churn
    return {**asdict(churn), "share": churn.share.to_dict()} if isinstance(churn, Churn) else asdict(churn)


def _class_document(found: ClassDifference) -> dict[str, Any]:
    return {
        "class": found.name,
        "images": found.images,
        "metric": found.metric.name,
        "first": found.metric.first,
        "second": found.metric.second,
        "difference": found.metric.difference.to_dict(),
        "only_first": found.only_first,
        "only_second": found.only_second,
        "p_value": found.p_value,
        "corrected": found.corrected,
    }


def _find_ahead(metric: MetricDifference, pair: PairComparison) -> str | None:
    """Return the run in whose favour the whole interval of the difference lies; None where it holds 0."""
    low, high = metric.difference.low, metric.difference.high
    if low is None or high is None or low <= 0 <= high:
        return None
    return pair.first if (low > 0) != is_lower_better(metric.name) else pair.second


def _find_better(comparison: Comparison, pair: PairComparison) -> str | None:
    """Return the run that is significantly better by the corrected test; None where neither is."""
    # The test decides, not the interval: only the p-value is corrected for several pairs.
    value = pair.metric(comparison.metric).difference.value
    if not value or pair.test.corrected >= 1 - comparison.bootstrap.confidence:
        return None
    return pair.first if (value > 0) != is_lower_better(comparison.metric) else pair.second


def _choose_code(pair: PairComparison, better: str | None) -> str:
    if better:
        return "different"
    churn = pair.churn
    same = churn.changed == 0 if isinstance(churn, Churn) else churn.mean_change == 0
    return "identical" if same else "undecided"


def _describe_pair(comparison: Comparison, pair: PairComparison, better: str | None) -> Iterator[str]:
    """Yield the sentences of a pair's verdict."""
    code, one, other = _choose_code(pair, better), pair.first, pair.second
    difference = pair.metric(comparison.metric).difference
    if code == "identical":
        yield f"{one} and {other} make the same prediction on each of the {comparison.images} images."
        return
    if difference.value is None:
        yield f"{one} and {other} can't be compared by {METRICS[comparison.metric].in_words}: {difference.reason}."
        return
    if better:
        worse = other if better == one else one
        yield f"{better} is better than {worse}: {_describe_gap(comparison, pair)}."
    else:
        yield (
            f"{one} and {other} do not differ significantly on these {comparison.images} images: "
            f"{_describe_gap(comparison, pair)}."
        )
    # Interval and test are made differently, and only the test is corrected for several pairs, so they may disagree.
    if code == "undecided" and _find_ahead(pair.metric(comparison.metric), pair):
        yield "The interval excludes 0, but the test is not significant: take the difference as a hint."
    if not better:
        yield from _describe_power(comparison, pair)


def _describe_gap(comparison: Comparison, pair: PairComparison) -> str:
    """Return the difference in the deciding metric, its interval and its p-value in words, the larger value first."""
    metric, difference = comparison.metric, pair.metric(comparison.metric).difference
    value = difference.value or 0.0
    more, less, sign = (pair.first, pair.second, 1) if value >= 0 else (pair.second, pair.first, -1)
    unit = " points" if METRICS[metric].is_share else ""
    interval = ""
    if difference.low is not None and difference.high is not None:
        # The opposite sign swaps the ends.
        ends = sorted((sign * difference.low, sign * difference.high))
        span = f"{format_difference(ends[0], metric)} to {format_difference(ends[1], metric)}"
        interval = f"{100 * comparison.bootstrap.confidence:g}% interval {span}; "
    corrected = f", corrected for {format_count(len(comparison.pairs), 'pair')}" if len(comparison.pairs) > 1 else ""
    test = f"{pair.test.method} {format_p_value(pair.test.corrected)}{corrected}"
    title = METRICS[metric].in_words
    if not value:
        return f"both have the same {title} ({interval}{test})"
    amount = format_difference(abs(value), metric)
    return f"the {title} of {more} is {amount}{unit} above that of {less} ({interval}{test})"


def _describe_power(comparison: Comparison, pair: PairComparison) -> Iterator[str]:
    """Yield what the test can detect, and how many images the observed difference would take."""
    metric, power = comparison.metric, pair.power
    unit = " points" if METRICS[metric].is_share else ""
    # An estimate of fewer images than there are would contradict the test, which has found no difference.
    if power.images_needed is not None and power.images_needed > comparison.images:
        yield (
            f"If that difference is real, it takes about {round_up(power.images_needed):,} such test images to "
            f"detect it with {POWER:.0%} power."
        )
    if power.min_detectable_difference is not None:
        yield (
            f"With these {comparison.images} images the minimum detectable difference is "
            f"{format_difference(power.min_detectable_difference, metric)}{unit} ({POWER:.0%} power)."
        )


def _judge_runs(comparison: Comparison, pairs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the verdict: of two runs that of their pair, of more the best run against each of the others."""
    if len(pairs) == 1:
        code, better = pairs[0]["verdict"]["code"], pairs[0]["better"]
        titles = {"different": f"{better} is better", "identical": "The same predictions"}
        title = titles.get(code, "No significant difference")
        return {"code": code, "title": title, "text": pairs[0]["verdict"]["text"]}
    metric = comparison.metric
    values = {key: metrics[metric].value for key, metrics in comparison.metrics.items()}
    known = {key: value for key, value in values.items() if value is not None}
    if not known:
        name = METRICS[metric].in_words
        text = f"{name[:1].upper()}{name[1:]} is not defined on these images."
        return {"code": "undecided", "title": "They can't be compared", "text": text}
    best = (min if is_lower_better(metric) else max)(known, key=lambda key: known[key])
    others = [key for key in values if key != best]
    # A best run is only named where it beats each other run: significance isn't transitive.
    beaten = [key for key in others if _get_pair(pairs, best, key)["better"] == best]
    undecided = [key for key in others if key not in beaten]
    text = " ".join(_describe_best(comparison, known, best, beaten, undecided))
    if undecided:
        return {"code": "undecided", "title": f"{best} leads, but not significantly over all others", "text": text}
    return {"code": "different", "title": f"{best} is the best of these", "text": text}


def _describe_best(
    comparison: Comparison, values: Mapping[str, float], best: str, beaten: Sequence[str], undecided: Sequence[str]
) -> Iterator[str]:
    """Yield sentences on the best of several runs: which others it beats significantly, and which it doesn't."""
    metric = comparison.metric
    word = "lowest" if is_lower_better(metric) else "highest"
    yield f"{best} has the {word} {METRICS[metric].in_words} on {comparison.images} images."
    if beaten:
        unit = " points" if METRICS[metric].is_share else ""
        gaps = [f"{key} by {format_difference(abs(values[best] - values[key]), metric)}{unit}" for key in beaten]
        pairs = len(comparison.pairs)
        yield f"It beats {_join(gaps)}, which is statistically significant (Holm's correction for {pairs} pairs)."
    if undecided:
        yield (
            f"Its lead over {_join(undecided)} is not statistically significant: which of them is best on other images "
            "is open."
        )


def _get_pair(pairs: Sequence[Mapping[str, Any]], one: str, other: str) -> Mapping[str, Any]:
    return next(pair for pair in pairs if {pair["first"], pair["second"]} == {one, other})


def _join(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])} and {keys[-1]}"


def _list_differing(comparison: Comparison, predictions: Mapping[str, Predictions]) -> dict[str, Any]:
    """Return the images that the runs predict differently, with each run's prediction."""
    numbers = comparison.task == "regression"
    # A number is hardly ever predicted exactly, so that no run is marked as right.
    chosen = comparison.differing[:MAX_NUMBERS] if numbers else comparison.differing
    texts = {key: list(found.texts()) for key, found in predictions.items()}
    first = next(iter(predictions))
    listed = [
        {
            "path": predictions[first].paths[index],
            "label": texts[first][index][0],
            "predictions": {key: pairs[index][1] for key, pairs in texts.items()},
            "right": [] if numbers else [key for key, pairs in texts.items() if pairs[index][0] == pairs[index][1]],
        }
        for index in chosen.tolist()
    ]
    return {"images": len(comparison.differing), "listed": listed}


def _list_notes(comparison: Comparison) -> Iterator[str]:
    if comparison.groups is not None:
        groups = format_count(comparison.groups, "group")
        yield f"images come in {groups}, which are resampled and swapped whole; churn counts single images"
    if len(comparison.pairs) > 1:
        yield "only the p-values of the deciding metric are corrected for several pairs; intervals are not corrected"
    yield (
        "choosing a run by this comparison selects on the test images: the chosen run's metrics are slightly "
        "optimistic, the more so the more runs were compared"
    )
