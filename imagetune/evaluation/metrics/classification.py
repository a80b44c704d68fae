"""Classification metrics of a split with confidence intervals: accuracy, precision, recall, F1, ROC AUC, log loss.

Averages are over the classes that have images in the split (macro), or weighted by their images. A class that is
never predicted has precision 0, as in scikit-learn; the notes name classes without images and without predictions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
    top_k_accuracy_score,
)

from imagetune.core.text import format_count, format_list
from imagetune.errors import DataError, DivergedError
from imagetune.evaluation.metrics.areas import estimate_roc_auc
from imagetune.evaluation.metrics.ordinal import estimate_rank_metrics
from imagetune.evaluation.metrics.scores import TINY, Resampled, compute_metrics_without
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.bootstrap import Bootstrap, compute_precision
from imagetune.evaluation.statistics.intervals import (
    ClassShares,
    Estimate,
    compute_effective_images,
    encode_groups,
    estimate_f1,
    estimate_from_left_out,
    estimate_share,
    list_group_notes,
    list_units,
    widen_for_classes,
)
from imagetune.evaluation.statistics.jackknife import LeftOut
from imagetune.evaluation.statistics.proportions import compute_two_sided_quantile
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
    labels, probabilities, predicted = (
        predictions.labels[known],
        _normalise(predictions)[known],
        predictions.predicted[known],
    )
    bootstrap = Bootstrap(config.bootstrap_samples, config.confidence, seed, stratified)
    codes = encode_groups([group for group, kept in zip(groups, known, strict=True) if kept] if groups else ())
    jackknife = _leave_out(labels, probabilities, predicted, config.top_k, bootstrap, codes)
    values = _compute_class_values(labels, probabilities, predicted)
    confusion = confusion_matrix(labels, predicted, labels=range(probabilities.shape[1]))
    areas = [
        estimate_roc_auc(labels == index, probabilities[:, index], config.confidence) for index in range(len(confusion))
    ]
    classes = _estimate_classes(predictions.class_names, confusion, values, areas, jackknife)
    headlines = _compute_headlines(labels, probabilities, predicted, values, config.top_k)
    metrics = _estimate_headlines(headlines, values, confusion, jackknife)
    if predictions.rule.task == "ordinal":
        metrics |= estimate_rank_metrics(labels, predicted, len(confusion), bootstrap, groups=codes)
    left_out = int((~known).sum())
    return SplitEvaluation(
        class_names=predictions.class_names,
        images=len(labels),
        left_out=left_out,
        top_k=config.top_k,
        metrics=metrics,
        averages=_average_over_classes(values, confusion.sum(axis=1)),
        classes=classes,
        confusion=confusion.astype(np.int64),
        bootstrap=bootstrap,
        notes=(*_list_notes(classes, left_out), *list_group_notes(codes)),
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
    # All classes are named, here and for the log loss: a split may lack images of some, but the columns are of all.
    top = top_k_accuracy_score(labels, probabilities, k=top_k, labels=range(classes)) if top_k < classes else None
    return {
        **means,
        "accuracy": float(accuracy_score(labels, predicted)),
        "balanced_accuracy": means["recall"],
        "top_k_accuracy": None if top is None else float(top),
        "log_loss": float(log_loss(labels, probabilities, labels=range(classes))),
    }


@dataclass(frozen=True)
class _Jackknife:
    """The metrics without each image or group, with the settings of their intervals.

    Attributes:
        left_out: Metrics without each image or group.
        strata: (u,) class of each image or group that is left out.
        confidence: Coverage of the intervals.
        worth: As in `imagetune.evaluation.statistics.bootstrap.Precision`.
        grouped: Whether groups are left out instead of images.
    """

    left_out: Resampled
    strata: Ints
    confidence: float
    worth: float
    grouped: bool

    def estimate(
        self, value: float | None, others: Floats, *, images: float | None, reason: str, most: float | None
    ) -> Estimate:
        """Return a metric with its interval, from the metric without each image or group, ``others`` (u,)."""
        # Wilson's interval already allows for few mistakes; in simulations a wider quantile covers too much.
        plain = most is not None and not self.grouped
        return estimate_from_left_out(
            value,
            LeftOut(others, self.strata),
            self.confidence,
            reason=reason,
            flawless=None if images is None else images * self.worth,
            most=most,
            scale="loss",
            quantile=compute_two_sided_quantile(self.confidence) if plain else None,
        )


def _leave_out(
    labels: Ints, probabilities: Floats, predicted: Ints, top_k: int, bootstrap: Bootstrap, groups: Ints | None
) -> _Jackknife:
    units = list_units(labels, bootstrap, groups)
    left_out = compute_metrics_without(labels, probabilities, predicted, top_k=top_k, without=units)
    worth = compute_precision(labels, bootstrap, groups).worth
    return _Jackknife(left_out, units.strata, bootstrap.confidence, worth, groups is not None)


def _estimate_headlines(
    values: Mapping[str, float | None], by_class: Mapping[str, Floats], confusion: Ints, jackknife: _Jackknife
) -> dict[str, Estimate]:
    counts = confusion.sum(axis=1)
    images, classes = float(counts.sum()), len(counts)
    macro = compute_effective_images(counts[counts > 0].astype(np.float64))
    effective = {"accuracy": images, "top_k_accuracy": images, "log_loss": None}
    # An F1 near 1 varies half as much as a share: a mistake costs half of what it costs recall.
    most = {**effective, "f1": 2 * macro, "roc_auc": None}
    reasons = {
        "top_k_accuracy": f"always 1: there are only {classes} classes",
        "roc_auc": "there are images of one class only",
    }
    found = {}
    for name in HEADLINES:
        value = values.get(name)
        # A share of independent images is binomial: Wilson's interval needs no variance. Images of a group are not
        # independent.
        if value is not None and METRICS[name].mean_over == "images" and not jackknife.grouped:
            found[name] = estimate_share(value * images, images, jackknife.confidence)
            continue
        found[name] = jackknife.estimate(
            value,
            jackknife.left_out.headline[name],
            images=effective.get(name, macro),
            most=most.get(name, macro),
            reason=reasons.get(name, ""),
        )
        if name in MEANS:
            shares = ClassShares(by_class[MEANS[name]], jackknife.worth * _count_images(MEANS[name], confusion))
            found[name] = widen_for_classes(found[name], shares, jackknife.confidence)
    found["log_loss"] = _allow_for_mistakes(found["log_loss"], found["accuracy"])
    return found


def _allow_for_mistakes(loss: Estimate, accuracy: Estimate) -> Estimate:
    """Return a log loss whose interval allows for mistakes although none was made.

    The most probable class is wrong where the true one has a probability of at most 1/2, so that each mistake costs at
    least log 2 nats; the interval of the accuracy says how many there may be.
    """
    if accuracy.value != 1.0 or accuracy.low is None or loss.value is None or loss.high is None:
        return loss
    return replace(loss, high=max(loss.high, loss.value + (1 - accuracy.low) * float(np.log(2))))


def _count_images(metric: str, confusion: Ints) -> Floats:
    """Return the number of images (k,) that each class's metric is of."""
    images: Floats = confusion.sum(axis=0 if metric == "precision" else 1).astype(np.float64)
    return images


def _estimate_classes(
    names: Sequence[str],
    confusion: Ints,
    values: Mapping[str, Floats],
    areas: Sequence[Estimate],
    jackknife: _Jackknife,
) -> tuple[ClassEvaluation, ...]:
    true, predicted, right = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    evaluations = []
    for index, name in enumerate(names):
        counts = int(true[index]), int(predicted[index]), int(right[index])
        metrics = {}
        for metric in CLASS_METRICS:
            # Precision is a share of the images predicted as the class; recall and F1 count the images of the class.
            images = float(predicted[index] if metric == "precision" else true[index])
            metrics[metric] = jackknife.estimate(
                None if np.isnan(values[metric][index]) else float(values[metric][index]),
                jackknife.left_out.per_class[metric][:, index],
                images=images,
                reason="no images of this class" if not true[index] else "no images of other classes",
                most={"f1": 2 * images, "roc_auc": None}.get(metric, images),
            )
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
