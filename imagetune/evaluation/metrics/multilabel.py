"""Multi-label metrics of a split with confidence intervals (average precision, F1, Hamming loss), and thresholds.

Averages are over the labels that occur in the split. A label that is never predicted has precision 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from imagetune.core.text import format_count, format_list
from imagetune.errors import DataError, DivergedError
from imagetune.evaluation.metrics.areas import estimate_average_precision
from imagetune.evaluation.metrics.class_means import ClassShares, Jackknife, build_class_shares
from imagetune.evaluation.metrics.classification import FEW, ClassEvaluation, estimate_class_shares
from imagetune.evaluation.metrics.scores import AUC_STEPS, TINY, average_present_classes
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.bootstrap import Bootstrap, compute_precision
from imagetune.evaluation.statistics.intervals import (
    Estimate,
    encode_groups,
    estimate_share,
    leave_out_weights,
    list_group_notes,
    list_units,
)
from imagetune.recipe.metrics import list_class_metrics, list_test_metrics
from imagetune.recipe.sections.evaluate import EvaluateConfig
from imagetune.recipe.tasks import Task

DEFAULT_THRESHOLD = 0.5
HEADLINES = list_test_metrics("multi_label")
LABEL_METRICS = list_class_metrics("multi_label")
# Metrics that are means over labels, with the metric of a label that each is the mean of.
MEANS = {
    {"average_precision": "mean_average_precision"}.get(name, name): name for name in list_class_metrics("multi_label")
}

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class LabelEvaluation:
    """Every metric of one split with its interval, where an image has any number of labels.

    Attributes:
        class_names: Names of the k labels.
        images: Number of images that were tested, those without any label included.
        metrics: The headline metrics, by the names in `HEADLINES`; macro where averaged, except micro_f1.
        classes: The metrics of each label, by the names in `LABEL_METRICS`, with its threshold.
        bootstrap: Settings of the intervals.
        notes: Caveats for the reader, such as labels without images.
        baseline: Macro F1 of predicting every label for every image.
        groups: Number of groups where some images share one; else 0.
    """

    class_names: tuple[str, ...]
    images: int
    metrics: Mapping[str, Estimate]
    classes: tuple[ClassEvaluation, ...]
    bootstrap: Bootstrap
    notes: tuple[str, ...]
    baseline: float
    groups: int = 0
    task: ClassVar[Task] = "multi_label"
    left_out: ClassVar[int] = 0


def choose_thresholds(predictions: Predictions) -> tuple[float, ...]:
    """Return the threshold of each label with the highest F1; ``predictions`` are those of the validation split.

    Of equally good thresholds the one nearest to 0.5 is chosen: 0.5 itself, or else half-way between two probabilities,
    so that rounding decides nothing. A label without images keeps 0.5.
    """
    true = predictions.targets >= 0.5
    return tuple(
        _choose_threshold(true[:, label], predictions.probabilities[:, label]) for label in range(true.shape[1])
    )


def evaluate_labels(
    predictions: Predictions, *, config: EvaluateConfig, seed: int, groups: Sequence[str | None] = ()
) -> LabelEvaluation:
    """Return the multi-label metrics of a split with their jackknife intervals.

    Args:
        predictions: The predictions of one split.
        config: The recipe's evaluate section, for the settings of the intervals.
        seed: Seed of the intervals.
        groups: The group of each image, None for one without; empty where there are none. Whole groups are left out.

    Raises:
        DataError: There is no image, or none has a label that the model knows.
        DivergedError: A probability is not a finite number.
    """
    true, given = predictions.targets >= 0.5, predictions.given
    _require_metrics(predictions, true)
    # Not stratified: an image with several labels belongs to no single stratum.
    bootstrap = Bootstrap(config.bootstrap_samples, config.confidence, seed, stratified=False)
    rankings = [_Ranking.of(true[:, label], predictions.probabilities[:, label]) for label in range(true.shape[1])]
    values, by_label = _compute_metrics(true, given, rankings, np.ones((len(true), 1), np.float32))
    # Average precision ranks every label's images for each unit: with very many images it has no interval.
    with_ranking = true.size * bootstrap.samples <= AUC_STEPS
    codes, strata = encode_groups(groups), np.zeros(len(true), np.int64)
    units = list_units(strata, bootstrap, codes)
    chunks = [
        _compute_metrics(true, given, rankings if with_ranking else [], weights)
        for weights in leave_out_weights(units, cells_a_sample=true.shape[1])
    ]
    others = {name: np.concatenate([chunk[0][name] for chunk in chunks]) for name in HEADLINES}
    label_others = {name: np.concatenate([chunk[1][name] for chunk in chunks], axis=1) for name in LABEL_METRICS}
    counts = (true.sum(axis=0), given.sum(axis=0), (true & given).sum(axis=0))
    jackknife = Jackknife(
        units.strata, config.confidence, compute_precision(strata, bootstrap, codes).worth, codes is not None
    )
    shares = _build_shares(by_label, counts, len(true))
    classes = tuple(
        _evaluate_label(predictions, label, counts, shares, label_others, jackknife) for label in range(true.shape[1])
    )
    # Predicting a label for every image has its prevalence as precision and a recall of 1.
    prevalences = counts[0][counts[0] > 0] / len(true)
    return LabelEvaluation(
        class_names=predictions.class_names,
        images=len(true),
        metrics=_estimate_headlines(values, shares, others, jackknife, len(true)),
        classes=classes,
        bootstrap=bootstrap,
        notes=(*_list_notes(classes, true, predictions.unknown), *list_group_notes(groups)),
        baseline=float((2 * prevalences / (1 + prevalences)).mean()),
        groups=0 if codes is None else int(codes.max()) + 1,
    )


def build_label_metric_function(
    true: Bools, given: Bools, probabilities: Floats, *, with_ranking: bool = True
) -> Callable[[Floats], tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]]:
    """Return a function from weights (n, b) to headline metrics (b,) and metrics of each label (k, b).

    Args:
        true: (n, k) which labels are true.
        given: (n, k) which labels are predicted.
        probabilities: (n, k) of the labels.
        with_ranking: False leaves out the average precision, which takes most of the time.
    """
    labels = range(true.shape[1] if with_ranking else 0)
    rankings = [_Ranking.of(true[:, label], probabilities[:, label]) for label in labels]
    return lambda weights: _compute_metrics(true, given, rankings, weights)


@dataclass(frozen=True)
class _Ranking:
    """The images ranked by one label's probability, sorted once for all resamplings.

    Attributes:
        order: (n,) images, the likeliest first.
        true: (n,) whether each has the label, in that order.
        last: (n,) place of the last image that is as likely, in that order.
    """

    order: NDArray[np.int64]
    true: Bools
    last: NDArray[np.int64]

    @classmethod
    def of(cls, true: Bools, probabilities: Floats) -> _Ranking:
        order = np.argsort(-probabilities, kind="stable")
        fallen = -probabilities[order]
        return cls(order, true[order], np.searchsorted(fallen, fallen, side="right") - 1)

    def average_precision(self, weights: Floats) -> NDArray[np.float64]:
        """Return the average precision (b,) from weights (n, b); ties count together, as in scikit-learn."""
        drawn = weights[self.order]
        found = np.cumsum(np.where(self.true[:, None], drawn, 0), axis=0, dtype=np.float64)
        places = self.last[self.true]
        seen = np.cumsum(drawn, axis=0, dtype=np.float64)[places]
        precision = found[places] / np.maximum(seen, 1e-12)
        total = found[-1]
        summed = (drawn[self.true] * precision).sum(axis=0)
        mean: NDArray[np.float64] = np.divide(summed, total, out=np.full_like(total, np.nan), where=total > 0)
        return mean


def _compute_metrics(
    true: Bools, given: Bools, rankings: Sequence[_Ranking], weights: Floats
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Return headline metrics (b,) and metrics of each label (k, b), from weights (n, b); NaN where not defined."""
    right, positives, predictions = (
        (matrix.T.astype(np.float32) @ weights).astype(np.float64) for matrix in (true & given, true, given)
    )
    present = positives > 0
    by_label = {
        "precision": right / np.maximum(predictions, 1e-12),
        "recall": right / np.maximum(positives, 1e-12),
        "f1": 2 * right / np.maximum(positives + predictions, 1e-12),
    }
    by_label = {name: np.where(present, values, np.nan) for name, values in by_label.items()}
    by_label["average_precision"] = (
        np.stack([ranking.average_precision(weights) for ranking in rankings])
        if rankings
        else np.full(present.shape, np.nan)
    )
    # Without an image some labels don't occur at all: a mean over none is NaN, and needs no warning.
    with np.errstate(invalid="ignore", divide="ignore"):
        means = {name: average_present_classes(values, present) for name, values in by_label.items()}
    total = weights.sum(axis=0, dtype=np.float64)
    wrong = true != given
    pairs = (positives + predictions).sum(axis=0)
    headline = {
        "mean_average_precision": means["average_precision"],
        "f1": means["f1"],
        "micro_f1": np.divide(2 * right.sum(axis=0), pairs, out=np.full_like(pairs, np.nan), where=pairs > 0),
        "precision": means["precision"],
        "recall": means["recall"],
        "subset_accuracy": (~wrong.any(axis=1)).astype(np.float64) @ weights / total,
        "hamming_loss": wrong.mean(axis=1) @ weights / total,
    }
    return headline, by_label


def _build_shares(
    values: Mapping[str, Floats], counts: Sequence[NDArray[np.int64]], images: int
) -> dict[str, ClassShares]:
    true, predicted = (count.astype(np.float64) for count in counts[:2])
    return {
        name: build_class_shares(
            name, values[name][:, 0].astype(np.float64), true=true, predicted=predicted, images=images
        )
        for name in LABEL_METRICS
    }


def _estimate_headlines(
    values: Mapping[str, Floats],
    shares: Mapping[str, ClassShares],
    others: Mapping[str, NDArray[np.float64]],
    jackknife: Jackknife,
    images: int,
) -> dict[str, Estimate]:
    labels = len(shares["recall"].values)
    found = {name: jackknife.estimate_mean(float(values[name][0]), others[name], shares[MEANS[name]]) for name in MEANS}
    positives = float(shares["recall"].images.sum())
    # The labels of one image are not independent: no wrong label among n x k counts as n images, not as n x k.
    worth = {
        "subset_accuracy": (images, images),
        "hamming_loss": (images, images * labels),
        "micro_f1": (positives, 2 * positives),
    }
    for name, (of, most) in worth.items():
        found[name] = jackknife.estimate(float(values[name][0]), others[name], images=float(of), most=float(most))
    if not jackknife.grouped:
        # Whether all labels of an image are right is one outcome an image, so that Wilson's interval applies.
        hits = float(values["subset_accuracy"][0]) * images
        found["subset_accuracy"] = estimate_share(hits, images, jackknife.confidence)
    return {name: found[name] for name in HEADLINES}


def _evaluate_label(
    predictions: Predictions,
    label: int,
    counts: Sequence[NDArray[np.int64]],
    shares: Mapping[str, ClassShares],
    others: Mapping[str, NDArray[np.float64]],
    jackknife: Jackknife,
) -> ClassEvaluation:
    positives, given, right = (int(count[label]) for count in counts)
    reason = "no images with this label"
    metrics = {
        name: jackknife.estimate_class(label, others[name][label], shares[name], reason=reason)
        for name in LABEL_METRICS
    }
    # Of independent images these are binomial shares: score intervals hold their coverage even with few of them.
    if positives and not jackknife.grouped:
        metrics |= estimate_class_shares(positives, given, right, jackknife.confidence)
        true, scores = predictions.targets[:, label] >= 0.5, predictions.probabilities[:, label]
        metrics["average_precision"] = estimate_average_precision(true, scores, jackknife.confidence)
    threshold = predictions.thresholds[label] if predictions.thresholds else DEFAULT_THRESHOLD
    return ClassEvaluation(predictions.class_names[label], positives, given, right, metrics, threshold)


def _choose_threshold(true: Bools, probabilities: Floats) -> float:
    if not true.any():
        return DEFAULT_THRESHOLD
    curve = precision_recall_curve(true, probabilities.astype(np.float64))
    precision, recall, above = (values[::-1] for values in curve)
    # scikit-learn's curve ends with a point at which no image is predicted; reversed it comes first, and has no F1.
    f1 = 2 * precision[1:] * recall[1:] / np.maximum(precision[1:] + recall[1:], TINY)
    below = np.append(above[1:], 0.0)
    middle = (below < DEFAULT_THRESHOLD) & (above >= DEFAULT_THRESHOLD)
    cuts = np.where(middle, DEFAULT_THRESHOLD, (above + below) / 2)
    best = cuts[f1 >= f1.max() - 1e-12]
    return float(best[np.abs(best - DEFAULT_THRESHOLD).argmin()])


def _require_metrics(predictions: Predictions, true: Bools) -> None:
    if not true.any():
        what = f"none of {len(true)} images has one of the labels {format_list(predictions.class_names)}"
        hint = "test images must be labelled with the names that the model was trained on"
        raise DataError(what, hint=hint)
    finite = np.isfinite(predictions.probabilities).all(axis=1)
    if not finite.all():
        where = predictions.paths[int(np.flatnonzero(~finite)[0])]
        hint = "train again with a smaller learning rate"
        raise DivergedError("the model's probabilities are not finite numbers", where=where, hint=hint)


def _list_notes(classes: Sequence[ClassEvaluation], true: Bools, unknown: int) -> Iterator[str]:
    absent = [found.name for found in classes if not found.images]
    unused = [found.name for found in classes if found.images and not found.predicted]
    few = [found.name for found in classes if 0 < found.images < FEW]
    if bare := int((~true.any(axis=1)).sum()):
        yield f"{format_count(bare, 'image')} without any label: predicting none is right there"
    if unknown:
        yield f"{format_count(unknown, 'image')} with labels that the model doesn't know: those labels are ignored"
    if absent:
        yield f"no images of {format_list(absent)}: left out of the averages"
    if unused:
        yield f"never predicted: {format_list(unused)}; the precision counts as 0"
    if few:
        yield f"fewer than {FEW} images of {format_list(few)}: the metrics of so few say little"
