"""Classification metrics of a split with confidence intervals: accuracy, precision, recall, F1, ROC AUC, log loss.

Averages are over the classes that have images in the split (macro), or weighted by their images. A class that is
never predicted has precision 0, as in scikit-learn; the notes name classes without images and without predictions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
    top_k_accuracy_score,
)

from imagetune.core.text import format_count, format_list
from imagetune.errors import DataError, DivergedError
from imagetune.evaluation.metrics.areas import estimate_roc_auc
from imagetune.evaluation.metrics.class_means import ClassShares, Jackknife, build_class_shares
from imagetune.evaluation.metrics.ordinal import estimate_rank_metrics
from imagetune.evaluation.metrics.scores import (
    TINY,
    Resampled,
    compute_log_losses,
    compute_metrics_without,
    estimate_log_loss,
)
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.bootstrap import Bootstrap, compute_precision
from imagetune.evaluation.statistics.intervals import (
    Estimate,
    encode_groups,
    estimate_f1,
    estimate_share,
    list_group_notes,
    list_units,
)
from imagetune.recipe.metrics import METRICS, list_class_metrics, list_test_metrics
from imagetune.recipe.sections.evaluate import EvaluateConfig
from imagetune.recipe.tasks import Task

HEADLINES = list_test_metrics("single_label")
AVERAGED = ("precision", "recall", "f1")
CLASS_METRICS = list_class_metrics("single_label")
# Metrics that are means over classes, with the metric of a class that each is the mean of.
MEANS = {"balanced_accuracy": "recall", **{name: name for name in CLASS_METRICS}}
# With fewer images in a class, resampling them says little about images that were never seen.
FEW = 5

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClassEvaluation:
    """Every metric of one class with its interval.

    Attributes:
        name: Name of the class.
        images: Number of images of the class.
        predicted: Number of images that were predicted as the class.
        right: Number of true positives.
        metrics: precision, recall, f1 and roc_auc (against all other classes).
        threshold: For multi_label, the probability from which on the label is predicted.
    """

    name: str
    images: int
    predicted: int
    right: int
    metrics: Mapping[str, Estimate]
    threshold: float | None = None


@dataclass(frozen=True)
class SplitEvaluation:
    """Every metric of one split with its interval, where an image has one class.

    Attributes:
        class_names: Names of the k classes.
        images: Number of labelled images that were tested.
        left_out: Number of images left out because their label is not one of the classes.
        top_k: k of the top-k accuracy.
        metrics: The headline metrics, by the names in `HEADLINES`; macro where averaged. For ordinal also those of
            `imagetune.evaluation.metrics.ordinal`.
        averages: ``macro`` and ``weighted`` precision, recall and F1.
        classes: The metrics of each class.
        confusion: (k, k) int64 counts, rows true and columns predicted.
        bootstrap: Settings of the intervals.
        notes: Caveats for the reader, such as classes without images.
        task: single_label or ordinal.
        groups: Number of groups where some images share one; else 0.
    """

    class_names: tuple[str, ...]
    images: int
    left_out: int
    top_k: int
    metrics: Mapping[str, Estimate]
    averages: Mapping[str, Mapping[str, float]]
    classes: tuple[ClassEvaluation, ...]
    confusion: Ints
    bootstrap: Bootstrap
    notes: tuple[str, ...]
    task: Task = "single_label"
    groups: int = 0

    @property
    def baseline(self) -> float:
        """Accuracy of always predicting the largest class."""
        return float(self.confusion.sum(axis=1).max() / self.images)


def evaluate_predictions(
    predictions: Predictions,
    *,
    config: EvaluateConfig,
    seed: int,
    stratified: bool = True,
    groups: Sequence[str | None] = (),
) -> SplitEvaluation:
    """Return the classification metrics of a split with their intervals, for single_label and ordinal.

    Args:
        predictions: The predictions of one split.
        config: The recipe's evaluate section, for k of the top-k accuracy and the bootstrap's settings.
        seed: Seed of the bootstrap.
        stratified: Whether each resampling keeps the number of images of each class.
        groups: The group of each image, None for one without; empty where there are none. Images of a group are not
            independent, so whole groups are left out.

    Raises:
        DataError: No image has a label among the classes.
        DivergedError: A probability is not a finite number.
    """
    known = predictions.labels >= 0
    if not known.any():
        what = f"none of {len(known)} images has a label among the classes {', '.join(predictions.class_names)}"
        raise DataError(what, hint="test images must be labelled with the names that the model was trained on")
    labels, predicted = predictions.labels[known], predictions.predicted[known]
    probabilities = _normalise(predictions)[known]
    bootstrap = Bootstrap(config.bootstrap_samples, config.confidence, seed, stratified)
    groups = [group for group, kept in zip(groups, known, strict=True) if kept] if groups else ()
    codes = encode_groups(groups)
    left_out, jackknife = _leave_out(labels, probabilities, predicted, config.top_k, bootstrap, codes)
    values = _compute_class_values(labels, probabilities, predicted)
    confusion = confusion_matrix(labels, predicted, labels=range(probabilities.shape[1]))
    areas = [
        estimate_roc_auc(labels == index, probabilities[:, index], config.confidence) for index in range(len(confusion))
    ]
    shares = _build_shares(values, confusion)
    classes = _estimate_classes(predictions.class_names, shares, areas, left_out, jackknife, confusion)
    headlines = _compute_headlines(labels, probabilities, predicted, values, config.top_k)
    metrics = _estimate_headlines(headlines, shares, left_out, jackknife, confusion)
    metrics["log_loss"] = estimate_log_loss(
        compute_log_losses(labels, probabilities), labels, labels == predicted, bootstrap, groups=codes
    )
    if predictions.rule.task == "ordinal":
        metrics |= estimate_rank_metrics(labels, predicted, len(confusion), bootstrap, groups=codes)
    unknown = int((~known).sum())
    return SplitEvaluation(
        class_names=predictions.class_names,
        images=len(labels),
        left_out=unknown,
        top_k=config.top_k,
        metrics=metrics,
        averages=_average_over_classes(values, confusion.sum(axis=1)),
        classes=classes,
        confusion=confusion.astype(np.int64),
        bootstrap=bootstrap,
        notes=(*_list_notes(classes, unknown), *list_group_notes(groups)),
        task=predictions.rule.task,
        groups=0 if codes is None else int(codes.max()) + 1,
    )


def _normalise(predictions: Predictions) -> Floats:
    """Return the probabilities (n, k) with rows that sum to 1, which float32 ones do only nearly."""
    # argmax takes a NaN for the largest probability, so that all metrics would be computed from nonsense.
    finite = np.isfinite(predictions.probabilities).all(axis=1)
    if not finite.all():
        where = predictions.paths[int(np.flatnonzero(~finite)[0])]
        hint = "train again with a smaller learning rate"
        raise DivergedError("the model's probabilities are not finite numbers", where=where, hint=hint)
    sums = predictions.probabilities.sum(axis=1, keepdims=True)
    normalised: Floats = predictions.probabilities / np.maximum(sums, TINY)
    return normalised


def _compute_class_values(labels: Ints, probabilities: Floats, predicted: Ints) -> dict[str, Floats]:
    """Return precision, recall, f1 and roc_auc as (k,), NaN for a class without images."""
    classes = np.arange(probabilities.shape[1])
    # zero_division: a class that is never predicted has precision 0 without a warning; the notes name it.
    precision, recall, f1, images = precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0.0
    )
    # The area is a share of pairs, each of an image of the class and another image: without either there is no pair.
    areas = [
        roc_auc_score(labels == index, probabilities[:, index]) if 0 < images[index] < len(labels) else np.nan
        for index in classes
    ]
    shares = {"precision": precision, "recall": recall, "f1": f1}
    missing = images == 0
    return {**{name: np.where(missing, np.nan, share) for name, share in shares.items()}, "roc_auc": np.array(areas)}


def _compute_headlines(
    labels: Ints, probabilities: Floats, predicted: Ints, by_class: Mapping[str, Floats], top_k: int
) -> dict[str, float | None]:
    classes = probabilities.shape[1]
    means = {
        name: float(values[present].mean()) for name, values in by_class.items() if (present := ~np.isnan(values)).any()
    }
    # All classes are named: a split may lack images of some, but the columns are of all.
    top = top_k_accuracy_score(labels, probabilities, k=top_k, labels=range(classes)) if top_k < classes else None
    return {
        **means,
        "accuracy": float(accuracy_score(labels, predicted)),
        "balanced_accuracy": means["recall"],
        "top_k_accuracy": None if top is None else float(top),
    }


def _leave_out(
    labels: Ints, probabilities: Floats, predicted: Ints, top_k: int, bootstrap: Bootstrap, groups: Ints | None
) -> tuple[Resampled, Jackknife]:
    units = list_units(labels, bootstrap, groups)
    left_out = compute_metrics_without(labels, probabilities, predicted, top_k=top_k, without=units)
    worth = compute_precision(labels, bootstrap, groups).worth
    return left_out, Jackknife(units.strata, bootstrap.confidence, worth, groups is not None)


def _estimate_headlines(
    values: Mapping[str, float | None],
    shares: Mapping[str, ClassShares],
    left_out: Resampled,
    jackknife: Jackknife,
    confusion: Ints,
) -> dict[str, Estimate]:
    images = float(confusion.sum())
    reasons = {
        "top_k_accuracy": f"always 1: there are only {len(confusion)} classes",
        "roc_auc": "there are images of one class only",
    }
    found = {}
    for name in [name for name in HEADLINES if name != "log_loss"]:
        value, others, reason = values.get(name), left_out.headline[name], reasons.get(name, "")
        if name in MEANS:
            found[name] = jackknife.estimate_mean(value, others, shares[MEANS[name]], reason=reason)
        elif value is not None and METRICS[name].mean_over == "images" and not jackknife.grouped:
            # A share of independent images is binomial: Wilson's interval needs no variance.
            found[name] = estimate_share(value * images, images, jackknife.confidence)
        else:
            found[name] = jackknife.estimate(value, others, images=images, most=images, reason=reason)
    return found


def _build_shares(values: Mapping[str, Floats], confusion: Ints) -> dict[str, ClassShares]:
    true, predicted = confusion.sum(axis=1).astype(np.float64), confusion.sum(axis=0).astype(np.float64)
    images = int(confusion.sum())
    return {
        name: build_class_shares(name, values[name], true=true, predicted=predicted, images=images)
        for name in CLASS_METRICS
    }


def _estimate_classes(
    names: Sequence[str],
    shares: Mapping[str, ClassShares],
    areas: Sequence[Estimate],
    left_out: Resampled,
    jackknife: Jackknife,
    confusion: Ints,
) -> tuple[ClassEvaluation, ...]:
    true, predicted, right = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    evaluations = []
    for index, name in enumerate(names):
        counts = int(true[index]), int(predicted[index]), int(right[index])
        reason = "no images of this class" if not true[index] else "no images of other classes"
        metrics = {
            metric: jackknife.estimate_class(index, left_out.per_class[metric][:, index], shares[metric], reason=reason)
            for metric in CLASS_METRICS
        }
        # Of independent images these are binomial shares: score intervals hold their coverage even with few of them.
        if true[index] and not jackknife.grouped:
            metrics |= estimate_class_shares(*counts, jackknife.confidence)
            metrics["roc_auc"] = areas[index]
        evaluations.append(ClassEvaluation(name, *counts, metrics))
    return tuple(evaluations)


def estimate_class_shares(images: int, predicted: int, right: int, confidence: float) -> dict[str, Estimate]:
    """Return precision, recall and F1 of a class with Wilson's intervals; precision only if the class was predicted.

    Args:
        images: Number of images of the class, at least one.
        predicted: Number of images that were predicted as the class.
        right: Number of true positives.
        confidence: Coverage of the intervals, in (0, 1).
    """
    found = {
        "recall": estimate_share(right, images, confidence),
        "f1": estimate_f1(right, images, predicted, confidence),
    }
    return found | ({"precision": estimate_share(right, predicted, confidence)} if predicted else {})


def _average_over_classes(values: Mapping[str, Floats], counts: Ints) -> dict[str, dict[str, float]]:
    present = counts > 0
    return {
        "macro": {name: float(values[name][present].mean()) for name in AVERAGED},
        "weighted": {name: float(np.average(values[name][present], weights=counts[present])) for name in AVERAGED},
    }


def _list_notes(classes: Sequence[ClassEvaluation], left_out: int) -> Iterator[str]:
    absent = [found.name for found in classes if not found.images]
    unused = [found.name for found in classes if found.images and not found.predicted]
    few = [found.name for found in classes if 0 < found.images < FEW]
    if left_out:
        yield f"{format_count(left_out, 'image')} left out: the label is not one of the classes"
    if absent:
        yield f"no images of {format_list(absent)}: left out of the averages"
    if unused:
        yield f"never predicted: {format_list(unused)}; the precision counts as 0"
    if few:
        yield f"fewer than {FEW} images of {format_list(few)}: the metrics of so few say little"
