"""Shortcuts: properties other than image content, such as size or camera, that predict the label.

A model learns the easiest rule: where all the sick were photographed in one hospital and all the healthy in another, it
learns the hospital (Geirhos et al., "Shortcut Learning in Deep Neural Networks", 2020). So a small decision tree
predicts the label from the size alone, the aspect ratio alone, and so on. Its cross-validated score is compared with
those that it gets for shuffled labels (a permutation test).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imagetune.data.findings import CODES, Finding

if TYPE_CHECKING:
    import numpy.typing as npt

    from imagetune.data.audit.image_statistics import ImageStatistics
    from imagetune.data.sources.catalog import Catalog
    from imagetune.data.sources.records import Record

    Matrix = npt.NDArray[np.float64]
    _Codes = npt.NDArray[np.int64]

FOLDS = 5
# With fewer images than this, in all or of a class, the score is too noisy.
MIN_IMAGES = 40
MIN_CLASS_IMAGES = 10
# More images change the time, but not the result: those that a tree learns from, and those to draw them from.
MAX_IMAGES = 4000
MAX_DRAWN = 100_000
PERMUTATIONS = 999
# No permutation may do as well: with six checks, fewer than one clean data set in a hundred gets a finding.
MAX_P = 0.001
# Effect sizes worth reporting: the share of the way from chance to certainty; or, for a single class, its true minus
# its false positive rate; or the share of a number's variance that is explained.
SKILL = 0.4
CLASS_GAIN = 0.6
EXPLAINED_VARIANCE = 0.25
# A rarer value predicts nothing about held-out images.
_MIN_WORD_COUNT = 3
_MAX_WORDS = 50
# More folders than this, one for each label, are how the labels are stored, not where the images come from.
_MAX_SOURCES = 5

_TITLES = {
    "shortcut-size": "size",
    "shortcut-aspect": "aspect ratio",
    "shortcut-colour": "mean colour",
    "shortcut-file-type": "file type",
    "shortcut-camera": "camera in the EXIF data",
    "shortcut-folder": "folder",
}
_HINTS = {
    "shortcut-size": "use the same image sizes for all classes, or check whether the sizes come from different sources",
    "shortcut-aspect": "set data.resize: squash to hide it, or add the code to data.audit.allow if it fits the classes",
    "shortcut-colour": "augment colours (ColorJitter), or add the code to data.audit.allow if they belong to the class",
    "shortcut-file-type": "convert all images to one type; a model can still learn traces of compression",
    "shortcut-camera": "take images of every class with every camera, or use the camera as data.columns.group",
    "shortcut-folder": "use the folder as data.columns.group, and read the metrics of each folder",
}


@dataclass(frozen=True)
class ShortcutScore:
    """Cross-validated score of predicting the label from one property.

    Attributes:
        score: Balanced accuracy; for numbers the share of variance explained (R squared).
        chance: The score of guessing.
        p: p-value of the permutation test, the true order among its 1,000; 1 where the score is too low to be reported
            anyway, which saves the time.
        images: The number of images used, one of each near-duplicate group.
        best_class: The class that is predicted best, "" for numbers.
        gain: True positive rate minus false positive rate of that class (Youden's J); 0 for numbers.
    """

    score: float
    chance: float
    p: float
    images: int
    best_class: str = ""
    gain: float = 0.0

    @property
    def skill(self) -> float:
        """The score on a scale from chance (0) to certainty (1)."""
        return (self.score - self.chance) / (1 - self.chance)

    @property
    def strong(self) -> bool:
        """Whether the effect is large enough to report, if it is statistically significant."""
        return self.skill >= (SKILL if self.best_class else EXPLAINED_VARIANCE) or self.gain >= CLASS_GAIN

    @property
    def significant(self) -> bool:
        """Whether the effect is both strong and statistically significant."""
        return self.strong and self.p <= MAX_P


def measure_shortcuts(
    catalog: Catalog, statistics: Sequence[ImageStatistics], duplicate_groups: Sequence[int]
) -> dict[str, ShortcutScore]:
    """Return how well each of size, aspect ratio, colour, file type, camera and folder predicts the label.

    Args:
        catalog: The records and their label rule. With several labels an image, each label is predicted by itself and
            the best score counts.
        statistics: The image statistics of each record.
        duplicate_groups: The near-duplicate group of each record; one image of each is used, because copies would
            predict each other's label. Where the source has 40 groups or more, one image of each label and group is.

    Returns:
        Scores by finding code; properties that are the same for all images, and data sets too small for a score, are
        left out.
    """
    rows = _limit(np.array(_select_independent(catalog, statistics, duplicate_groups), np.int64), MAX_DRAWN).tolist()
    records, seen = [catalog.records[at] for at in rows], [statistics[at] for at in rows]
    best: dict[str, ShortcutScore] = {}
    for code, features in _build_features(catalog, records, seen):
        if features.size and np.ptp(features, axis=0).any():
            found = list(_score_labels(features, records, catalog))
            if found:
                best[code] = max(found, key=lambda score: (score.significant, score.skill, score.gain))
    return best


def find_shortcuts(score: Mapping[str, ShortcutScore]) -> Iterator[Finding]:
    """Yield a finding for each property that predicts the label strongly and significantly."""
    return (_build_finding(code, one) for code, one in score.items() if one.significant)


def score_class_prediction(features: Matrix, labels: Sequence[str]) -> ShortcutScore | None:
    """Return how well a small tree predicts a class, five-fold cross-validated; None with too few images or classes.

    The p-value comes from shuffling the labels against the tree's predictions, which stay as they are. The statistic is
    the larger of skill and best gain, which corrects for choosing the best of many classes.

    Args:
        features: ``(n, d)`` float64, finite.
        labels: ``n`` class names.
    """
    counts = Counter(labels)
    names = sorted(name for name, count in counts.items() if count >= MIN_CLASS_IMAGES)
    if len(names) < 2 or sum(counts[name] for name in names) < MIN_IMAGES:
        return None
    most = max(MIN_CLASS_IMAGES, MAX_IMAGES // len(names))
    every = np.array(labels, object)
    kept = np.concatenate([_limit(np.flatnonzero(every == name), most) for name in names])
    truth = np.repeat(np.arange(len(names)), [min(counts[name], most) for name in names])
    predictions = _predict_held_out(features[kept], truth, _build_classifier, stratified=True)
    accuracy, gains = _score_classes(truth, predictions, len(names))
    best = int(gains.argmax())
    score = ShortcutScore(accuracy, 1 / len(names), 1.0, len(kept), names[best], float(gains[best]))
    if not score.strong:
        return score
    reached = max(score.skill, score.gain)

    def is_as_good(order: _Codes) -> bool:
        other, others = _score_classes(order, predictions, len(names))
        return max(replace(score, score=other).skill, float(others.max())) >= reached

    return replace(score, p=_compute_p_value(is_as_good, truth))


def score_value_prediction(features: Matrix, values: Sequence[float]) -> ShortcutScore | None:
    """Return how much of a number's variance a small tree explains, cross-validated; None with too few images.

    Args:
        features: ``(n, d)`` float64, finite.
        values: ``n`` numbers.
    """
    kept = _limit(np.arange(len(values)), MAX_IMAGES)
    truth = np.array(values, np.float64)[kept]
    if len(kept) < MIN_IMAGES or not np.ptp(truth):
        return None
    predictions = _predict_held_out(features[kept], truth, _build_regressor, stratified=False)
    variance = float(((truth - truth.mean()) ** 2).sum())

    def explained(order: Matrix) -> float:
        return 1 - float(((order - predictions) ** 2).sum()) / variance

    score = ShortcutScore(explained(truth), 0.0, 1.0, len(kept))
    return (
        replace(score, p=_compute_p_value(lambda order: explained(order) >= score.score, truth))
        if score.strong
        else score
    )


def encode_one_hot(words: Sequence[str]) -> Matrix:
    """Return one-hot columns ``(n, words)`` for the 50 most common words that occur at least three times."""
    common = [word for word, count in Counter(words).most_common(_MAX_WORDS) if count >= _MIN_WORD_COUNT]
    columns = np.zeros((len(words), len(common)))
    place = {word: column for column, word in enumerate(common)}
    for row, word in enumerate(words):
        if word in place:
            columns[row, place[word]] = 1.0
    return columns


def _score_labels(features: Matrix, records: Sequence[Record], catalog: Catalog) -> Iterator[ShortcutScore]:
    rule = catalog.rule
    if rule.task == "regression":
        score = score_value_prediction(features, [float(record.label) for record in records])
        if score:
            yield score
        return
    if rule.task != "multi_label":
        score = score_class_prediction(features, [record.label for record in records])
        if score:
            yield score
        return
    for name, _ in rule.counts(record.label for record in records).most_common(20):
        held = [name if name in rule.names(record.label) else f"not {name}" for record in records]
        if score := score_class_prediction(features, held):
            yield score


def _build_features(
    catalog: Catalog, records: Sequence[Record], statistics: Sequence[ImageStatistics]
) -> Iterator[tuple[str, Matrix]]:
    appearances = [image.appearance for image in statistics if image.appearance is not None]
    sides = np.log(np.array([(image.width, image.height) for image in statistics], np.float64).reshape(-1, 2))
    yield "shortcut-size", sides.sum(axis=1, keepdims=True)
    yield "shortcut-aspect", np.array([appearance.ratio for appearance in appearances]).reshape(-1, 1)
    yield (
        "shortcut-colour",
        np.array([(appearance.red, appearance.green, appearance.blue) for appearance in appearances]).reshape(-1, 3),
    )
    yield "shortcut-file-type", encode_one_hot(["JPEG" if image.kind == "MPO" else image.kind for image in statistics])
    yield "shortcut-camera", encode_one_hot([image.camera for image in statistics])
    root = str(catalog.root)
    folders = [_find_source(one.path.rpartition(os.sep)[0], root, one.label, one.split) for one in records]
    if not _stores_labels(folders, [record.label for record in records]):
        yield "shortcut-folder", encode_one_hot(folders)


def _select_independent(
    catalog: Catalog, statistics: Sequence[ImageStatistics], duplicate_groups: Sequence[int]
) -> list[int]:
    """Return one position for each near-duplicate group or, with many groups of the source, for each label of a group.

    The images of one patient, for example, are not independent.
    """
    several = catalog.rule.task == "multi_label"
    grouped = len({record.group for record in catalog.records} - {None}) >= MIN_IMAGES
    first: dict[object, int] = {}
    for at, (record, image) in enumerate(zip(catalog.records, statistics, strict=True)):
        if image.comparable and (record.label or several):
            key = duplicate_groups[at] if record.group is None or not grouped else (record.group, record.label)
            first.setdefault(key, at)
    return list(first.values())


# A million images lie in few folders.
@lru_cache(10_000)
def _find_source(folder: str, root: str, label: str, split: str | None) -> str:
    """Return the folder relative to the source, without the parts that name the split or the label."""
    known = {_fold(label), _fold(str(split))}
    parts = Path(folder.removeprefix(root).lstrip(os.sep)).parts
    return "/".join(part for part in parts if _fold(part) not in known)


def _fold(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _stores_labels(folders: Sequence[str], labels: Sequence[str]) -> bool:
    """Return whether each of many folders holds one label of its own, as with WordNet numbers for names."""
    pairs = set(zip(folders, labels, strict=True))
    return len(pairs) > _MAX_SOURCES and len(pairs) == len(set(folders)) == len(set(labels))


def _limit(places: _Codes, most: int) -> _Codes:
    if len(places) <= most:
        return places
    # A fixed seed, so that a second check of the same images finds the same.
    chosen: _Codes = np.sort(np.random.default_rng(0).choice(places, most, replace=False))
    return chosen


def _compute_p_value(as_good: Callable[[npt.NDArray[Any]], bool], truth: npt.NDArray[Any]) -> float:
    """Return the p-value of a permutation test, (1 + as good) / (1 + all): Phipson and Smyth 2010."""
    random = np.random.default_rng(0)
    # The true order counts as one of the permutations, so that p is never 0.
    return (1 + sum(as_good(random.permutation(truth)) for _ in range(PERMUTATIONS))) / (1 + PERMUTATIONS)


def _predict_held_out(
    features: Matrix, truth: npt.NDArray[Any], make: Callable[[], Any], *, stratified: bool
) -> npt.NDArray[Any]:
    from sklearn.model_selection import KFold, StratifiedKFold

    folds = (StratifiedKFold if stratified else KFold)(FOLDS, shuffle=True, random_state=0)
    predictions = np.zeros(len(truth), truth.dtype)
    for fitted, held_out in folds.split(features, truth):
        predictions[held_out] = make().fit(features[fitted], truth[fitted]).predict(features[held_out])
    return predictions


def _build_classifier() -> Any:
    from sklearn.tree import DecisionTreeClassifier

    # Balanced like the score, or the tree would leave rare classes out.
    return DecisionTreeClassifier(max_leaf_nodes=32, min_samples_leaf=5, class_weight="balanced", random_state=0)


def _build_regressor() -> Any:
    from sklearn.tree import DecisionTreeRegressor

    return DecisionTreeRegressor(max_leaf_nodes=32, min_samples_leaf=5, random_state=0)


def _score_classes(truth: _Codes, predictions: _Codes, classes: int) -> tuple[float, Matrix]:
    """Return the balanced accuracy, and true positive rate minus false positive rate of each class."""
    table = np.bincount(truth * classes + predictions, minlength=classes * classes).reshape(classes, classes)
    right, of_class, predicted = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    recall = right / of_class
    return float(recall.mean()), recall - (predicted - right) / (of_class.sum() - of_class)


def _build_finding(code: str, score: ShortcutScore) -> Finding:
    what = _TITLES[code]
    metrics = {"score": score.score, "chance": score.chance, "p": score.p, "images": score.images}
    if not score.best_class:
        title = f"the {what} alone explains {score.score:.0%} of the label's variance"
    elif score.skill >= SKILL:
        title = f"the {what} alone predicts the label"
    else:
        title = f"the {what} alone distinguishes {score.best_class!r} from the other classes"
    if score.best_class:
        metrics["best_class_gain"] = score.gain
        title += f" (balanced accuracy {score.score:.2f}, by chance {score.chance:.2f})"
    explanation = f"a small decision tree, cross-validated on {score.images:,} images; a model may learn only this"
    return Finding(code, CODES[code].severity, title, explanation, hint=_HINTS[code], metrics=metrics)
