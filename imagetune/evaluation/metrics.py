"""Every figure of a split with its interval, where a picture has one class.

Averages are over the classes that have pictures in the split (macro), or weighted by their pictures. A class that is
never predicted has precision 0, as in scikit-learn; both cases are told in the notes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

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

from imagetune.data.findings import counted, shortened
from imagetune.errors import DataError, DivergedError
from imagetune.evaluation.intervals import Bootstrap, Estimate, effective_pictures, estimate
from imagetune.evaluation.ordinal import rank_figures
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.scores import TINY, resample
from imagetune.recipe.data import Task
from imagetune.recipe.tracking import EvaluateConfig

HEADLINES = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "top_k_accuracy", "log_loss", "roc_auc")
AVERAGED = ("precision", "recall", "f1")
CLASS_FIGURES = (*AVERAGED, "roc_auc")
# With fewer pictures than this in a class, resampling them says little about pictures that were never seen.
FEW = 5

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClassEvaluation:
    """The figures of one class.

    Attributes:
        name: Class name.
        pictures: Pictures that are of it.
        predicted: Pictures that were taken for it.
        right: Both.
        figures: precision, recall, f1 and roc_auc (against all other classes).
        threshold: Of multi_label: from which probability on the label is given.
    """

    name: str
    pictures: int
    predicted: int
    right: int
    figures: Mapping[str, Estimate]
    threshold: float | None = None


@dataclass(frozen=True)
class SplitEvaluation:
    """The figures of one split.

    Attributes:
        class_names: The k classes.
        pictures: Labelled pictures that were tested.
        left_out: Pictures left out because their label is not one of the classes.
        top_k: k of the top-k accuracy.
        figures: The headline figures, by the names in `HEADLINES`; macro where averaged. For ordinal those of
            `imagetune.evaluation.ordinal`, too.
        averages: ``macro`` and ``weighted`` precision, recall and F1.
        classes: The figures of each class.
        confusion: (k, k) int64 counts, rows true and columns predicted.
        bootstrap: How the intervals were made.
        notes: What a reader should know about these figures.
        task: What a label is: single_label or ordinal.
    """

    class_names: tuple[str, ...]
    pictures: int
    left_out: int
    top_k: int
    figures: Mapping[str, Estimate]
    averages: Mapping[str, Mapping[str, float]]
    classes: tuple[ClassEvaluation, ...]
    confusion: Ints
    bootstrap: Bootstrap
    notes: tuple[str, ...]
    task: Task = "single_label"

    @property
    def baseline(self) -> float:
        """Accuracy of always naming the largest class."""
        return float(self.confusion.sum(axis=1).max() / self.pictures)


def evaluate_predictions(
    predictions: Predictions, *, config: EvaluateConfig, seed: int, stratified: bool = True
) -> SplitEvaluation:
    """Compute every figure with its interval.

    Args:
        predictions: Of one split.
        config: k of the top-k accuracy, and the bootstrap's settings.
        seed: Of the bootstrap.
        stratified: Whether each resampling keeps the number of pictures of each class.

    Raises:
        DataError: No picture has a label among the classes.
        DivergedError: A probability is not a finite number.
    """
    known = predictions.labels >= 0
    if not known.any():
        what = f"none of {len(known)} pictures has a label among the classes {', '.join(predictions.class_names)}"
        raise DataError(what, hint="test pictures must be labelled with the names that the model was trained on")
    labels, probabilities, predicted = (
        predictions.labels[known],
        _normalised(predictions)[known],
        predictions.predicted[known],
    )
    bootstrap = Bootstrap(config.bootstrap_samples, config.confidence, seed, stratified)
    samples = resample(labels, probabilities, predicted, top_k=config.top_k, bootstrap=bootstrap)
    values = _class_values(labels, probabilities, predicted)
    confusion = confusion_matrix(labels, predicted, labels=range(probabilities.shape[1]))
    classes = _class_evaluations(predictions.class_names, confusion, values, samples.per_class, bootstrap)
    headlines = _headline_values(labels, probabilities, predicted, values, config.top_k)
    figures = _headline_estimates(headlines, samples.headline, confusion.sum(axis=1), bootstrap)
    if predictions.rule.task == "ordinal":
        figures |= rank_figures(labels, predicted, len(confusion), bootstrap)
    left_out = int((~known).sum())
    return SplitEvaluation(
        class_names=predictions.class_names,
        pictures=len(labels),
        left_out=left_out,
        top_k=config.top_k,
        figures=figures,
        averages=_averages(values, confusion.sum(axis=1)),
        classes=classes,
        confusion=confusion.astype(np.int64),
        bootstrap=bootstrap,
        notes=tuple(_notes(classes, left_out)),
        task=predictions.rule.task,
    )


def _normalised(predictions: Predictions) -> Floats:
    """Return probabilities whose rows sum to 1, which float32 ones do only nearly."""
    finite = np.isfinite(predictions.probabilities).all(axis=1)
    if not finite.all():
        where = predictions.paths[int(np.flatnonzero(~finite)[0])]
        hint = "train again with a smaller learning rate"
        raise DivergedError("the model's probabilities are not finite numbers", where=where, hint=hint)
    sums = predictions.probabilities.sum(axis=1, keepdims=True)
    normalised: Floats = predictions.probabilities / np.maximum(sums, TINY)
    return normalised


def _class_values(labels: Ints, probabilities: Floats, predicted: Ints) -> dict[str, Floats]:
    """Return precision, recall, f1 and roc_auc as (k,), NaN for a class without pictures."""
    classes = np.arange(probabilities.shape[1])
    # zero_division: a class that is never predicted has precision 0 without a warning; the notes tell it.
    precision, recall, f1, pictures = precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0.0
    )
    areas = [
        roc_auc_score(labels == index, probabilities[:, index]) if 0 < pictures[index] < len(labels) else np.nan
        for index in classes
    ]
    shares = {"precision": precision, "recall": recall, "f1": f1}
    missing = pictures == 0
    return {**{name: np.where(missing, np.nan, share) for name, share in shares.items()}, "roc_auc": np.array(areas)}


def _headline_values(
    labels: Ints, probabilities: Floats, predicted: Ints, by_class: Mapping[str, Floats], top_k: int
) -> dict[str, float | None]:
    classes = probabilities.shape[1]
    means = {
        name: float(values[present].mean()) for name, values in by_class.items() if (present := ~np.isnan(values)).any()
    }
    top = top_k_accuracy_score(labels, probabilities, k=top_k, labels=range(classes)) if top_k < classes else None
    return {
        **means,
        "accuracy": float(accuracy_score(labels, predicted)),
        "balanced_accuracy": means["recall"],
        "top_k_accuracy": None if top is None else float(top),
        "log_loss": float(log_loss(labels, probabilities, labels=range(classes))),
    }


def _headline_estimates(
    values: Mapping[str, float | None], samples: Mapping[str, Floats], counts: Ints, bootstrap: Bootstrap
) -> dict[str, Estimate]:
    pictures, classes = float(counts.sum()), len(counts)
    macro = effective_pictures(counts[counts > 0].astype(np.float64))
    effective = {"accuracy": pictures, "top_k_accuracy": pictures}
    reasons = {
        "top_k_accuracy": f"always 1: there are only {classes} classes",
        "roc_auc": "there are pictures of one class only",
    }
    return {
        name: estimate(
            values.get(name),
            samples[name],
            bootstrap,
            pictures=None if name == "log_loss" else effective.get(name, macro),
            reason=reasons.get(name, ""),
        )
        for name in HEADLINES
    }


def _class_evaluations(
    names: Sequence[str],
    confusion: Ints,
    values: Mapping[str, Floats],
    samples: Mapping[str, Floats],
    bootstrap: Bootstrap,
) -> tuple[ClassEvaluation, ...]:
    true, predicted, right = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    evaluations = []
    for index, name in enumerate(names):
        figures = {}
        for figure in CLASS_FIGURES:
            value = values[figure][index]
            figures[figure] = estimate(
                None if np.isnan(value) else float(value),
                samples[figure][:, index],
                bootstrap,
                pictures=float(predicted[index] if figure == "precision" else true[index]),
                reason="no pictures of this class" if not true[index] else "no pictures of other classes",
            )
        evaluations.append(ClassEvaluation(name, int(true[index]), int(predicted[index]), int(right[index]), figures))
    return tuple(evaluations)


def _averages(values: Mapping[str, Floats], counts: Ints) -> dict[str, dict[str, float]]:
    present = counts > 0
    return {
        "macro": {name: float(values[name][present].mean()) for name in AVERAGED},
        "weighted": {name: float(np.average(values[name][present], weights=counts[present])) for name in AVERAGED},
    }


def _notes(classes: Sequence[ClassEvaluation], left_out: int) -> Iterator[str]:
    absent = [found.name for found in classes if not found.pictures]
    unused = [found.name for found in classes if found.pictures and not found.predicted]
    few = [found.name for found in classes if 0 < found.pictures < FEW]
    if left_out:
        yield f"{counted(left_out, 'picture')} left out: the label is not one of the classes"
    if absent:
        yield f"no pictures of {shortened(absent)}: left out of the averages"
    if unused:
        yield f"never predicted: {shortened(unused)}; the precision counts as 0"
    if few:
        yield f"fewer than {FEW} pictures of {shortened(few)}: the figures of so few say little"
