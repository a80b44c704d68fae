"""Pictures that are probably mislabelled, by confident learning (Northcutt, Jiang and Chuang, JAIR 70, 2021).

A linear probe says of each picture how likely each class is, without having learned from the picture itself or from
its near-copies (out of fold). Where it names another class, the label is doubted; where it is surer of that class than
it usually is of it, as confident learning counts, the label is probably wrong. The library `cleanlab`, by the paper's
authors, does that estimate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.core import run_files
from imagetune.data.sources.labels import join_labels
from imagetune.evaluation.context import Examined
from imagetune.evaluation.features.feature_models import (
    LabelledFeatures,
    few_threads,
    fit_probe,
    joined,
    rows_to_learn_from,
)
from imagetune.evaluation.features.label_errors_file import doubts_document, write_doubts
from imagetune.evaluation.features.out_of_fold import FOLDS, Pool, deal_folds, out_of_fold, places_of, pool_of, units_of
from imagetune.evaluation.features.regression_label_errors import value_doubts
from imagetune.evaluation.predictions import Predictions, told_path

_HEADER = ("path", "split", "label", "likely_label", "self_confidence", "likely_confidence", "confident")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Doubt:
    """A picture whose label is doubted.

    Attributes:
        path: Absolute path.
        split: Which split it is in.
        label: The given label.
        likely: What it probably should be.
        self_confidence: Probability of the given label, out of fold; of several labels the least.
        likely_confidence: Probability of the likely one.
        confident: Whether confident learning holds the label for wrong.
    """

    path: str
    split: str
    label: str
    likely: str
    self_confidence: float
    likely_confidence: float
    confident: bool


def label_errors(run: Examined) -> dict[str, Any] | None:
    """Return the pictures whose label is doubted, and write all of them to ``label_errors.csv`` in the run folder.

    Training and validation pictures are judged out of fold. Test pictures are judged by a probe of all of those; that
    is done last, and nothing is chosen by it.

    The document::

        {"file": "label_errors.csv", "folds": 5, "strength": 0.01, "fine_tuned": true,
         "learned": {"splits": ["train", "val"], "pictures": 335, "found": 29, "confident": 9,
                     "doubts": [{"path", "split", "label", "likely", "self_confidence", "likely_confidence",
                                 "confident"}]},
         "test": the same, or null}

    ``doubts`` names the surest of them, the least self-confidence first; paths are relative to the root.

    Returns:
        None where the recipe doesn't want it, or where features are missing. Of numbers: `value_doubts`.
    """
    learned = pool_of(run, ("train", "val"))
    if not run.evaluate.label_errors or learned is None:
        return None
    if run.data.task == "regression":
        return value_doubts(run, learned)
    folds = deal_folds(units_of(run, learned), learned.taught, folds=FOLDS, seed=run.seed)
    if folds.max() < 1:
        return None
    test, test_doubts = pool_of(run, ("test",)), None
    with few_threads(learned.taught):
        strength, judged = out_of_fold(learned.taught, folds, seed=run.seed)
        doubts = [*_doubts(run, learned, judged, wrong_labels(judged, learned.taught))]
        if test is not None:
            test_doubts = [*_tested(run, learned, judged, test, strength)]
    listed = partial(_listed, root=run.root)
    write_doubts(run.folder, _HEADER, (_row(doubt, run.root) for doubt in (*doubts, *(test_doubts or ()))))
    return {
        "file": run_files.LABEL_ERRORS,
        "folds": int(folds.max()) + 1,
        "strength": strength,
        "fine_tuned": run.fine_tuned,
        "learned": doubts_document(learned, doubts, listed),
        "test": None if test is None or test_doubts is None else doubts_document(test, test_doubts, listed),
    }


def wrong_labels(answers: Floats, taught: LabelledFeatures) -> Bools:
    """Return which labels confident learning holds for wrong.

    Of its ways to count, that is taken in which two agree: the surest pictures of each pair of classes, and the least
    sure of each class, as many as its estimate says are wrong.

    Args:
        answers: (n, k) probabilities, out of fold.
        taught: The given labels.

    Returns:
        (n,) for pictures with one class; (n, k) for multi_label, each label judged for itself.
    """
    if taught.task != "multi_label":
        from cleanlab.filter import find_label_issues

        rows = answers / np.maximum(answers.sum(axis=1, keepdims=True), 1e-12)
        issues = find_label_issues(taught.labels, rows, filter_by="both", n_jobs=1)
        return np.asarray(issues, bool)
    given = taught.targets >= 0.5
    from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class

    # cleanlab refuses a label that all pictures have, or none.
    judged = given.any(axis=0) & ~given.all(axis=0)
    wrong = np.zeros(given.shape, bool)
    if judged.any():
        labels = [np.flatnonzero(row).tolist() for row in given[:, judged]]
        wrong[:, judged] = find_multilabel_issues_per_class(labels, answers[:, judged], filter_by="both", n_jobs=1)
    return wrong


def disagreements(answers: Floats, taught: LabelledFeatures) -> Bools:
    """Return where the likeliest answer is not the given label: (n,), for multi_label (n, k)."""
    if taught.task == "multi_label":
        differing: Bools = (answers >= 0.5) != (taught.targets >= 0.5)
        return differing
    other: Bools = answers.argmax(axis=1) != taught.labels
    return other


def _tested(run: Examined, learned: Pool, judged: Floats, test: Pool, strength: float) -> Iterator[Doubt]:
    """Yield the doubts about test pictures, judged as if they had come after all others."""
    rest = learned.taught.taken(rows_to_learn_from(learned.taught, seed=run.seed))
    said = fit_probe(rest, strength)(test.taught.features)
    together = joined([learned.taught, test.taught])
    found = wrong_labels(np.concatenate([judged, said]), together)[len(judged) :]
    yield from _doubts(run, test, said, found)


def _doubts(run: Examined, pool: Pool, answers: Floats, wrong: Bools) -> Iterator[Doubt]:
    """Yield the doubted pictures, the least self-confidence first."""
    places, doubts = list(places_of(pool)), []
    other = disagreements(answers, pool.taught) | wrong
    for index in np.flatnonzero(other if other.ndim == 1 else other.any(axis=1)):
        split, row = places[index]
        examined = run.splits[pool.names[split]]
        texts = (_texts if other.ndim == 1 else _label_texts)(examined.predictions, row, answers[index], other[index])
        sure = bool(np.any(wrong[index]))
        doubts.append(Doubt(examined.records[row].path, pool.names[split], *texts, sure))
    return iter(sorted(doubts, key=lambda doubt: (doubt.self_confidence, doubt.path)))


def _texts(predictions: Predictions, row: int, answers: Floats, _: Any) -> tuple[str, str, float, float]:
    """Return the given class, the likely other one, and the probabilities of both."""
    label = int(predictions.labels[row])
    likely = int(np.where(np.arange(len(answers)) == label, -1.0, answers).argmax())
    names = predictions.class_names
    return names[label], names[likely], float(answers[label]), float(answers[likely])


def _label_texts(predictions: Predictions, row: int, answers: Floats, found: Any) -> tuple[str, str, float, float]:
    """Return the given labels, those without the doubts, and the probabilities of the most doubted one."""
    names, separator = np.array(predictions.class_names, object), predictions.rule.separator
    given = predictions.targets[row] >= 0.5
    own = float(np.where(given, answers, 1 - answers)[found].min())
    likely = join_labels(names[given ^ found], separator)
    return join_labels(names[given], separator), likely, own, 1 - own


def _listed(doubt: Doubt, root: Path) -> dict[str, Any]:
    return {
        "path": told_path(doubt.path, root),
        "split": doubt.split,
        "label": doubt.label,
        "likely": doubt.likely,
        "self_confidence": round(doubt.self_confidence, 6),
        "likely_confidence": round(doubt.likely_confidence, 6),
        "confident": doubt.confident,
    }


def _row(doubt: Doubt, root: Path) -> list[str]:
    shares = f"{doubt.self_confidence:.6g}", f"{doubt.likely_confidence:.6g}"
    texts = told_path(doubt.path, root), doubt.split, doubt.label, doubt.likely
    return [*texts, *shares, "yes" if doubt.confident else "no"]
