"""Suspected label errors, found by confident learning (Northcutt, Jiang and Chuang, JAIR 70, 2021).

A linear probe predicts the classes of each image out of fold: it hasn't learned from the image itself or from its
near-duplicates. Where it predicts another class, the label is suspected. Where its confidence in that class exceeds its
average for images of that class, confident learning counts the label as an error. The estimate is that of `cleanlab`,
the library by the paper's authors.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.core import run_files
from imagetune.data.sources.labels import join_labels
from imagetune.evaluation.context import EvaluationContext
from imagetune.evaluation.features.false_alarms import expect_false_alarms
from imagetune.evaluation.features.feature_models import (
    LabelledFeatures,
    fit_probe,
    join_features,
    limit_threads,
    sample_training_rows,
)
from imagetune.evaluation.features.label_errors_file import describe_label_errors, write_label_errors
from imagetune.evaluation.features.out_of_fold import (
    FOLDS,
    Pool,
    deal_folds,
    find_units,
    list_places,
    pool_splits,
    predict_out_of_fold,
)
from imagetune.evaluation.features.regression_label_errors import analyse_regression_label_errors
from imagetune.evaluation.predictions import Predictions, make_relative_path

# With fewer images most of what confident learning marks are false alarms: 9 of 11 on a clean set of 142.
MIN_MARKED = 200

_HEADER = ("path", "split", "label", "likely_label", "self_confidence", "likely_confidence", "confident")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class LabelError:
    """An image whose label is suspected.

    Attributes:
        path: Absolute path.
        split: Name of its split.
        label: The given label.
        likely: The label that the probe predicts.
        self_confidence: Out-of-fold probability of the given label; of several labels the lowest.
        likely_confidence: Probability of the likely label.
        confident: Whether confident learning confirms it, where there are enough images to say so.
    """

    path: str
    split: str
    label: str
    likely: str
    self_confidence: float
    likely_confidence: float
    confident: bool


def analyse_label_errors(run: EvaluationContext) -> dict[str, Any] | None:
    """Return suspected label errors, and write all of them to ``label_errors.csv`` in the run folder.

    Training and validation images are predicted out of fold. Test images are predicted by a probe of all of those;
    that is done last, and nothing is chosen by it.

    The document::

        {"file": "label_errors.csv", "folds": 5, "strength": 0.01, "fine_tuned": true,
         "learned": {"splits": ["train", "val"], "images": 335, "found": 29, "confident": 9, "marked": true,
                     "expected_false_alarms": {"found": 21.4, "confident": 3.1},    if every label were right
                     "beyond_chance": false,    whether so many more are found (binomial test at 1%)
                     "suspects": [{"path", "split", "label", "likely", "self_confidence", "likely_confidence",
                                 "confident"}]},
         "test": the same, or null}

    ``suspects`` lists those with the lowest self-confidence first; paths are relative to the root. Of fewer than
    `MIN_MARKED` training and validation images, and where chance alone would mark half as many, this ranking is all
    there is: none is marked as confirmed by confident learning.

    Returns:
        The document, for regression that of `analyse_regression_label_errors`; None where the recipe doesn't ask for
        it, or where features are missing.
    """
    learned = pool_splits(run, ("train", "val"))
    if not run.evaluate.label_errors or learned is None:
        return None
    if run.data.task == "regression":
        return analyse_regression_label_errors(run, learned)
    folds = deal_folds(find_units(run, learned), learned.taught, folds=FOLDS, seed=run.seed)
    # All images depend on each other: no probe could predict any of them without having learned from it.
    if folds.max() < 1:
        return None
    test, test_label_errors = pool_splits(run, ("test",)), None
    with limit_threads(learned.taught):
        strength, judged = predict_out_of_fold(learned.taught, folds, seed=run.seed)
        alarms = _expect(judged, learned.taught, seed=run.seed)
        wrong = find_wrong_labels(judged, learned.taught)
        confirmed = np.count_nonzero(_by_image(wrong))
        marked = len(learned.taught) >= MIN_MARKED and bool(2 * alarms.confident.sum() <= confirmed)
        suspects = [*_find_suspects(run, learned, judged, wrong, marked=marked)]
        if test is not None:
            test_label_errors, test_alarms = _find_test_suspects(run, learned, judged, test, strength, marked=marked)
    listed = partial(_describe_suspect, root=run.root)
    write_label_errors(
        run.folder, _HEADER, (_format_row(suspect, run.root) for suspect in (*suspects, *(test_label_errors or ())))
    )
    return {
        "file": run_files.LABEL_ERRORS,
        "folds": int(folds.max()) + 1,
        "strength": strength,
        "fine_tuned": run.fine_tuned,
        "learned": describe_label_errors(learned, suspects, listed, expected=alarms.to_dict(), marked=marked),
        "test": None
        if test is None or test_label_errors is None
        else describe_label_errors(test, test_label_errors, listed, expected=test_alarms, marked=marked),
    }


def find_wrong_labels(predictions: Floats, taught: LabelledFeatures) -> Bools:
    """Return which labels confident learning counts as errors.

    Of cleanlab's filters "both" is used, the most conservative one: a label must be pruned by noise rate (the most
    confident off-diagonal images of each pair of classes) and by class (the lowest self-confidence of each class).

    Args:
        predictions: (n, k) probabilities, out of fold.
        taught: The given labels.

    Returns:
        (n,) bool for images with one class; (n, k) bool for multi_label, each label by itself.
    """
    if taught.task != "multi_label":
        from cleanlab.filter import find_label_issues

        rows = predictions / np.maximum(predictions.sum(axis=1, keepdims=True), 1e-12)
        with _quiet():
            return np.asarray(find_label_issues(taught.labels, rows, filter_by="both", n_jobs=1), bool)
    given = taught.targets >= 0.5
    from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class

    # cleanlab refuses a label that all images have, or none.
    judged = given.any(axis=0) & ~given.all(axis=0)
    wrong = np.zeros(given.shape, bool)
    if judged.any():
        labels = [np.flatnonzero(row).tolist() for row in given[:, judged]]
        with _quiet():
            wrong[:, judged] = find_multilabel_issues_per_class(
                labels, predictions[:, judged], filter_by="both", n_jobs=1
            )
    return wrong


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what cleanlab says of classes with few images: that they may be empty, which is no news to anyone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def find_disagreements(predictions: Floats, taught: LabelledFeatures) -> Bools:
    """Return where the most probable class is not the given label: (n,) bool, for multi_label (n, k) bool."""
    if taught.task == "multi_label":
        differing: Bools = (predictions >= 0.5) != (taught.targets >= 0.5)
        return differing
    other: Bools = predictions.argmax(axis=1) != taught.labels
    return other


def _find_test_suspects(
    run: EvaluationContext, learned: Pool, judged: Floats, test: Pool, strength: float, *, marked: bool
) -> tuple[list[LabelError], dict[str, float]]:
    """Return the suspects among test images, predicted by a probe of all others, and the false alarms to expect."""
    rest = learned.taught.taken(sample_training_rows(learned.taught, seed=run.seed))
    predicted = fit_probe(rest, strength)(test.taught.features)
    together = join_features([learned.taught, test.taught])
    # With all images, as confident learning estimates each class's average confidence from them.
    everything = np.concatenate([judged, predicted])
    found = find_wrong_labels(everything, together)[len(judged) :]
    alarms = _expect(everything, together, seed=run.seed).of(slice(len(judged), None))
    return [*_find_suspects(run, test, predicted, found, marked=marked)], alarms.to_dict()


@dataclass(frozen=True)
class _FalseAlarms:
    """How often each of n images would be suspected, and confirmed by confident learning, if all labels were right."""

    found: Floats
    confident: Floats

    def of(self, rows: slice) -> _FalseAlarms:
        return _FalseAlarms(self.found[rows], self.confident[rows])

    def to_dict(self) -> dict[str, float]:
        return {"found": round(float(self.found.sum()), 2), "confident": round(float(self.confident.sum()), 2)}


def _expect(predictions: Floats, taught: LabelledFeatures, *, seed: int) -> _FalseAlarms:
    return _FalseAlarms(
        expect_false_alarms(predictions, taught, find_disagreements, seed=seed),
        expect_false_alarms(predictions, taught, find_wrong_labels, seed=seed),
    )


def _by_image(found: Bools) -> Bools:
    """Return which images (n,) have something that was found, (n,) or (n, k)."""
    return found if found.ndim == 1 else np.asarray(found.any(axis=1), np.bool_)


def _find_suspects(
    run: EvaluationContext, pool: Pool, predictions: Floats, wrong: Bools, *, marked: bool
) -> Iterator[LabelError]:
    """Yield the suspected images, the lowest self-confidence first, and mark those that are confirmed, if so asked."""
    places, suspects = list(list_places(pool)), []
    other = find_disagreements(predictions, pool.taught) | wrong
    for index in np.flatnonzero(_by_image(other)):
        split, row = places[index]
        examined = run.splits[pool.names[split]]
        texts = (_describe_class if other.ndim == 1 else _describe_labels)(
            examined.predictions, row, predictions[index], other[index]
        )
        sure = marked and bool(np.any(wrong[index]))
        suspects.append(LabelError(examined.records[row].path, pool.names[split], *texts, sure))
    return iter(sorted(suspects, key=lambda suspect: (suspect.self_confidence, suspect.path)))


def _describe_class(predictions: Predictions, row: int, probabilities: Floats, _: Any) -> tuple[str, str, float, float]:
    """Return the given class, the likely other one, and the probabilities of both."""
    label = int(predictions.labels[row])
    likely = int(np.where(np.arange(len(probabilities)) == label, -1.0, probabilities).argmax())
    names = predictions.class_names
    return names[label], names[likely], float(probabilities[label]), float(probabilities[likely])


def _describe_labels(
    predictions: Predictions, row: int, probabilities: Floats, found: Any
) -> tuple[str, str, float, float]:
    """Return the given labels, the likely labels, and the probability of the most suspected one and of its opposite."""
    names, separator = np.array(predictions.class_names, object), predictions.rule.separator
    given = predictions.targets[row] >= 0.5
    own = float(np.where(given, probabilities, 1 - probabilities)[found].min())
    likely = join_labels(names[given ^ found], separator)
    return join_labels(names[given], separator), likely, own, 1 - own


def _describe_suspect(suspect: LabelError, root: Path) -> dict[str, Any]:
    return {
        "path": make_relative_path(suspect.path, root),
        "split": suspect.split,
        "label": suspect.label,
        "likely": suspect.likely,
        "self_confidence": round(suspect.self_confidence, 6),
        "likely_confidence": round(suspect.likely_confidence, 6),
        "confident": suspect.confident,
    }


def _format_row(suspect: LabelError, root: Path) -> list[str]:
    shares = f"{suspect.self_confidence:.6g}", f"{suspect.likely_confidence:.6g}"
    texts = make_relative_path(suspect.path, root), suspect.split, suspect.label, suspect.likely
    return [*texts, *shares, "yes" if suspect.confident else "no"]
