"""Pictures that are probably mislabelled, by confident learning (Northcutt, Jiang and Chuang, JAIR 70, 2021).

A linear probe says of each picture how likely each class is, without having learned from the picture itself or from
its near-copies (out of fold). Where it names another class, the label is doubted; where it is surer of that class than
it usually is of it, as confident learning counts, the label is probably wrong. The library `cleanlab`, by the paper's
authors, does that estimate.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.data.families import components, equal_pairs, members
from imagetune.data.labels import join_labels
from imagetune.evaluation.examined import Examined
from imagetune.evaluation.feature_models import (
    LabelledFeatures,
    few_threads,
    fit_probe,
    joined,
    labelled_features,
    learns,
    probe_loss,
    rows_to_learn_from,
    strengths,
)
from imagetune.evaluation.predictions import Predictions
from imagetune.files import atomic_path

CSV_FILE = "label_errors.csv"
FOLDS = 5
# evaluation.json names so many; the CSV file names all.
MOST_LISTED = 200
_HEADER = ("path", "split", "label", "likely_label", "self_confidence", "likely_confidence", "confident")
# Findings of the picture check whose groups belong on one side of a fold.
_ALIKE = frozenset(("identical-pictures", "near-duplicates", "leak", "conflict"))

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


@dataclass(frozen=True)
class _Pool:
    """Pictures of some splits together.

    Attributes:
        taught: Their features and labels.
        splits: (n,) index into ``names``.
        names: Names of the splits.
    """

    taught: LabelledFeatures
    splits: Ints
    names: tuple[str, ...]


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

    ``doubts`` names the surest `MOST_LISTED`, the least self-confidence first; paths are relative to the root.

    Returns:
        None where the recipe doesn't want it, where labels are numbers, or where features are missing.
    """
    learned = _pool(run, ("train", "val"))
    if not run.recipe.evaluate.label_errors or learned is None or run.recipe.data.task == "regression":
        return None
    folds = deal_folds(_units(run, learned), learned.taught, folds=FOLDS, seed=run.recipe.seed)
    if folds.max() < 1:
        return None
    test, test_doubts = _pool(run, ("test",)), None
    with few_threads(learned.taught):
        strength, judged = out_of_fold(learned.taught, folds, seed=run.recipe.seed)
        doubts = [*_doubts(run, learned, judged, wrong_labels(judged, learned.taught))]
        if test is not None:
            test_doubts = [*_tested(run, learned, judged, test, strength)]
    _write_csv(run.folder / CSV_FILE, [*doubts, *(test_doubts or ())], run.root)
    return {
        "file": CSV_FILE,
        "folds": int(folds.max()) + 1,
        "strength": strength,
        "fine_tuned": learns(run.recipe),
        "learned": _document(learned, doubts, run.root),
        "test": None if test is None or test_doubts is None else _document(test, test_doubts, run.root),
    }


def deal_folds(units: Sequence[int], taught: LabelledFeatures, *, folds: int, seed: int) -> Ints:
    """Return the fold of each picture: classes are spread evenly, and what belongs together stays together.

    Args:
        units: For each of n pictures which unit it belongs to: those of one family or group have the same.
        taught: The pictures' labels.
        folds: How many folds at most.
        seed: Of the order in which units are dealt.

    Returns:
        (n,) in [0, folds).
    """
    dealt = np.zeros(len(units), np.int64)
    kinds = taught.labels if taught.task != "multi_label" else _rarest_label(taught.targets)
    together = [*members(components(len(units), equal_pairs(units)))]
    order = np.random.default_rng(seed).permutation(len(together))
    # Large units first: small ones then fill up what those left uneven.
    queue = sorted(order.tolist(), key=lambda place: -len(together[place]))
    sizes = np.zeros(folds, np.int64)
    counts: dict[int, Ints] = {}
    for place in queue:
        unit = together[place]
        kind = Counter(kinds[unit].tolist()).most_common(1)[0][0]
        known = counts.setdefault(kind, np.zeros(folds, np.int64))
        fold = int(np.lexsort((sizes, known))[0])
        dealt[unit] = fold
        known[fold] += len(unit)
        sizes[fold] += len(unit)
    return dealt


def out_of_fold(taught: LabelledFeatures, folds: Ints, *, seed: int) -> tuple[float, Floats]:
    """Return what a linear probe says of each picture that it did not learn from.

    The penalty is the one that is best for the first fold.

    Args:
        taught: n pictures.
        folds: (n,) the fold of each.
        seed: Of the pictures that a probe learns from, where there are very many.

    Returns:
        The probe's strength, and probabilities (n, k).
    """
    answers = np.zeros_like(taught.targets)
    chosen: float | None = None
    for fold in range(int(folds.max()) + 1):
        rest, held = taught.taken(np.flatnonzero(folds != fold)), taught.taken(np.flatnonzero(folds == fold))
        rest = rest.taken(rows_to_learn_from(rest, seed=seed))
        if chosen is None:
            chosen, answers[folds == fold] = _best_probe(rest, held)
        else:
            answers[folds == fold] = fit_probe(rest, chosen)(held.features)
    return chosen or strengths(taught)[0], answers


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
    from cleanlab.filter import find_label_issues

    if taught.task != "multi_label":
        rows = answers / np.maximum(answers.sum(axis=1, keepdims=True), 1e-12)
        issues = find_label_issues(taught.labels, rows, filter_by="both", n_jobs=1)
        return np.asarray(issues, bool)
    given = taught.targets >= 0.5
    columns = [
        find_label_issues(
            given[:, label].astype(np.int64),
            np.stack([1 - answers[:, label], answers[:, label]], axis=1),
            filter_by="both",
            n_jobs=1,
        )
        if 0 < given[:, label].sum() < len(given)
        else np.zeros(len(given), bool)
        for label in range(given.shape[1])
    ]
    return np.stack(columns, axis=1)


def disagreements(answers: Floats, taught: LabelledFeatures) -> Bools:
    """Return where the likeliest answer is not the given label: (n,), for multi_label (n, k)."""
    if taught.task == "multi_label":
        differing: Bools = (answers >= 0.5) != (taught.targets >= 0.5)
        return differing
    other: Bools = answers.argmax(axis=1) != taught.labels
    return other


def _best_probe(rest: LabelledFeatures, held: LabelledFeatures) -> tuple[float, Floats]:
    best: tuple[float, float, Floats] | None = None
    for strength in strengths(rest):
        said = fit_probe(rest, strength)(held.features)
        loss = probe_loss(said, held)
        if best is not None and loss >= best[0]:
            break
        best = (loss, strength, said)
    assert best is not None  # noqa: S101 - the first one is always better than none
    return best[1], best[2]


def _tested(run: Examined, learned: _Pool, judged: Floats, test: _Pool, strength: float) -> Iterator[Doubt]:
    """Yield the doubts about test pictures, judged as if they had come after all others."""
    rest = learned.taught.taken(rows_to_learn_from(learned.taught, seed=run.recipe.seed))
    said = fit_probe(rest, strength)(test.taught.features)
    together = joined([learned.taught, test.taught])
    found = wrong_labels(np.concatenate([judged, said]), together)[len(judged) :]
    yield from _doubts(run, test, said, found)


def _pool(run: Examined, names: Sequence[str]) -> _Pool | None:
    found = [(name, labelled_features(run.splits.get(name))) for name in names]
    present = [(name, part) for name, part in found if part is not None]
    if not present:
        return None
    splits = np.concatenate([np.full(len(part), place) for place, (_, part) in enumerate(present)])
    return _Pool(joined([part for _, part in present]), splits, tuple(name for name, _ in present))


def _units(run: Examined, pool: _Pool) -> list[int]:
    """Return the unit of each picture: pictures of one group, and copies that the check of the pictures found."""
    records = [run.splits[pool.names[split]].records[row] for split, row in _places(pool)]
    place = {record.path: index for index, record in enumerate(records)}
    pairs = [*equal_pairs([record.group for record in records]), *equal_pairs([record.path for record in records])]
    for group in _alike(run.folder / "audit.json"):
        known = [place[path] for path in group if path in place]
        pairs.extend((known[0], other) for other in known[1:])
    return components(len(records), pairs)


def _alike(audit: Path) -> Iterator[list[str]]:
    """Yield the pictures that the check found to be copies of each other."""
    if audit.exists():
        for finding in json.loads(audit.read_text(encoding="utf-8")).get("findings", []):
            if finding.get("code") in _ALIKE:
                yield from finding.get("groups", [])


def _places(pool: _Pool) -> Iterator[tuple[int, int]]:
    return zip(pool.splits.tolist(), pool.taught.rows.tolist(), strict=True)


def _doubts(run: Examined, pool: _Pool, answers: Floats, wrong: Bools) -> Iterator[Doubt]:
    """Yield the doubted pictures, the least self-confidence first."""
    places, doubts = list(_places(pool)), []
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


def _rarest_label(targets: Floats) -> Ints:
    """Return for each picture the rarest of its labels; k where it has none."""
    given = targets >= 0.5
    sizes = np.where(given, given.sum(axis=0), len(given) + 1)
    rarest: Ints = np.where(given.any(axis=1), sizes.argmin(axis=1), targets.shape[1]).astype(np.int64)
    return rarest


def _document(pool: _Pool, doubts: Sequence[Doubt], root: Path) -> dict[str, Any]:
    listed = [
        {
            "path": _told(doubt.path, root),
            "split": doubt.split,
            "label": doubt.label,
            "likely": doubt.likely,
            "self_confidence": round(doubt.self_confidence, 6),
            "likely_confidence": round(doubt.likely_confidence, 6),
            "confident": doubt.confident,
        }
        for doubt in doubts[:MOST_LISTED]
    ]
    sure = sum(doubt.confident for doubt in doubts)
    pictures = len(pool.taught)
    return {"splits": list(pool.names), "pictures": pictures, "found": len(doubts), "confident": sure, "doubts": listed}


def _write_csv(path: Path, doubts: Sequence[Doubt], root: Path) -> None:
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_HEADER)
        for doubt in doubts:
            shares = f"{doubt.self_confidence:.6g}", f"{doubt.likely_confidence:.6g}"
            sure = "yes" if doubt.confident else "no"
            writer.writerow([_told(doubt.path, root), doubt.split, doubt.label, doubt.likely, *shares, sure])


def _told(path: str, root: Path) -> str:
    given = Path(path)
    return given.relative_to(root).as_posix() if given.is_relative_to(root) else path
