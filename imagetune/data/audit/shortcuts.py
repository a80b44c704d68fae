"""Whether something that has nothing to do with what an image shows tells its label.

A model takes the easiest way: where all the sick were photographed in one hospital and all the healthy in another, it
learns the hospital (Geirhos et al., "Shortcut Learning in Deep Neural Networks", 2020). So a small decision tree is
asked to tell the label from the size alone, the shape alone, and so on. What it says about images that it was not
trained on is compared with what it would get if the labels were shuffled.
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

    from imagetune.data.audit.image_statistics import ImageFacts
    from imagetune.data.sources.catalog import Catalog
    from imagetune.data.sources.records import Record

    Matrix = npt.NDArray[np.float64]
    _Codes = npt.NDArray[np.int64]

FOLDS = 5
# Fewer images than this, or than this of a class, tell nothing that lasts.
FEWEST = 40
FEWEST_OF_A_CLASS = 10
# More don't change the prediction, only the time: what a tree learns from, and what that is chosen from.
MAX = 4000
MAX_SEEN = 100_000
SHUFFLES = 999
# No shuffle may do as well: with six checks, less than one clean set in a hundred is told.
LARGEST_P = 0.001
# What is worth telling: so much of the way from chance to certainty; or one class, found in so many more of its own
# images than of the others; or so much of a number's variance.
SKILL = 0.4
ONE_CLASS = 0.6
EXPLAINED = 0.25
# A word that is rarer tells nothing about others.
_MIN_WORD_LETTERS = 3
_MAX_WORDS = 50
# Above this many folders, one for each label is how the labels are kept, not where the images come from.
_SOURCES = 5

_TITLES = {
    "shortcut-size": "size",
    "shortcut-aspect": "shape (width to height)",
    "shortcut-colour": "mean colour",
    "shortcut-file-type": "file type",
    "shortcut-camera": "camera named in the EXIF data",
    "shortcut-folder": "folder",
}
_HINTS = {
    "shortcut-size": "use images of the same size for all classes, or look whether the sizes mean different sources",
    "shortcut-aspect": "data.resize: squash hides the shape; where it belongs to the class, data.audit.allow the code",
    "shortcut-colour": "augment the colours (ColorJitter); where they belong to the class, data.audit.allow the code",
    "shortcut-file-type": "convert all to one type; compression leaves traces that a model can learn",
    "shortcut-camera": "take images of every class with every camera, or make the camera the group of the split",
    "shortcut-folder": "make the folder the group of the split, and look at each folder's own metrics",
}


@dataclass(frozen=True)
class Told:
    """How well labels were told from something, on images that the tree had not seen.

    Attributes:
        score: Balanced accuracy; for numbers the share of variance explained (R squared).
        chance: What guessing would get.
        p: Part of 1,000 orders of the labels, the true one among them, that did as well; 1 where the score is too low
            to be told anyway, which saves the time.
        images: How many were used, of each family one.
        best_class: The class that is told best, "" for numbers.
        gain: Share of that class's images called so, minus that of the others; 0 for numbers.
    """

    score: float
    chance: float
    p: float
    images: int
    best_class: str = ""
    gain: float = 0.0

    @property
    def skill(self) -> float:
        """How far from chance (0) to certainty (1)."""
        return (self.score - self.chance) / (1 - self.chance)

    @property
    def strong(self) -> bool:
        """Whether it would be worth telling if it is no accident."""
        return self.skill >= (SKILL if self.best_class else EXPLAINED) or self.gain >= ONE_CLASS

    @property
    def worth_telling(self) -> bool:
        """Whether it is both strong and no accident."""
        return self.strong and self.p <= LARGEST_P


def tell_labels(catalog: Catalog, facts: Sequence[ImageFacts], families: Sequence[int]) -> dict[str, Told]:
    """Return how well each of size, shape, colour, file type, camera and folder tells the label.

    Args:
        catalog: The records, and how their labels are read. With several labels an image, each label is told by
            itself and the best of them counts.
        facts: One a record.
        families: For each record the first that is the same image or nearly so; one of each family is used, or
            copies would tell each other's label. Of 40 groups and more, one image of each label is used.

    Returns:
        By the finding's code; what is the same for all images, and sets too small to say, are left out.
    """
    rows = _some(np.array(_one_of_each(catalog, facts, families), np.int64), MAX_SEEN).tolist()
    records, seen = [catalog.records[at] for at in rows], [facts[at] for at in rows]
    best: dict[str, Told] = {}
    for code, features in _features(catalog, records, seen):
        if features.size and np.ptp(features, axis=0).any():
            found = list(_attempts(features, records, catalog))
            if found:
                best[code] = max(found, key=lambda told: (told.worth_telling, told.skill, told.gain))
    return best


def shortcuts(told: Mapping[str, Told]) -> Iterator[Finding]:
    """Yield a finding for each thing that tells the label strongly and by no accident."""
    return (_finding(code, one) for code, one in told.items() if one.worth_telling)


def tell_class(features: Matrix, labels: Sequence[str]) -> Told | None:
    """Return how well a small tree tells a class, five-fold cross-validated; None with too little to go by.

    Chance and significance come from shuffling the labels against the tree's predictions, which stay as they are. The
    statistic is the larger of skill and best class, so that looking at many classes is allowed for.

    Args:
        features: ``(n, d)``, finite.
        labels: ``n`` class names.
    """
    counts = Counter(labels)
    names = sorted(name for name, count in counts.items() if count >= FEWEST_OF_A_CLASS)
    if len(names) < 2 or sum(counts[name] for name in names) < FEWEST:
        return None
    most = max(FEWEST_OF_A_CLASS, MAX // len(names))
    every = np.array(labels, object)
    kept = np.concatenate([_some(np.flatnonzero(every == name), most) for name in names])
    truth = np.repeat(np.arange(len(names)), [min(counts[name], most) for name in names])
    predictions = _predictions(features[kept], truth, _classifier, stratified=True)
    score, gains = _class_scores(truth, predictions, len(names))
    best = int(gains.argmax())
    told = Told(score, 1 / len(names), 1.0, len(kept), names[best], float(gains[best]))
    if not told.strong:
        return told
    reached = max(told.skill, told.gain)

    def as_good(order: _Codes) -> bool:
        other, others = _class_scores(order, predictions, len(names))
        return max(replace(told, score=other).skill, float(others.max())) >= reached

    return replace(told, p=_p_value(as_good, truth))


def tell_number(features: Matrix, values: Sequence[float]) -> Told | None:
    """Return how much of a number's variance a small tree explains, cross-validated; None with too few images.

    Args:
        features: ``(n, d)``, finite.
        values: ``n`` numbers.
    """
    kept = _some(np.arange(len(values)), MAX)
    truth = np.array(values, np.float64)[kept]
    if len(kept) < FEWEST or not np.ptp(truth):
        return None
    predictions = _predictions(features[kept], truth, _regressor, stratified=False)
    variance = float(((truth - truth.mean()) ** 2).sum())

    def explained(order: Matrix) -> float:
        return 1 - float(((order - predictions) ** 2).sum()) / variance

    told = Told(explained(truth), 0.0, 1.0, len(kept))
    return replace(told, p=_p_value(lambda order: explained(order) >= told.score, truth)) if told.strong else told


def one_hot(words: Sequence[str]) -> Matrix:
    """Return a column for each word that is there at least three times, ``(n, words)``; at most 50, the commonest."""
    common = [word for word, count in Counter(words).most_common(_MAX_WORDS) if count >= _MIN_WORD_LETTERS]
    columns = np.zeros((len(words), len(common)))
    place = {word: column for column, word in enumerate(common)}
    for row, word in enumerate(words):
        if word in place:
            columns[row, place[word]] = 1.0
    return columns


def _attempts(features: Matrix, records: Sequence[Record], catalog: Catalog) -> Iterator[Told]:
    rule = catalog.rule
    if rule.task == "regression":
        told = tell_number(features, [float(record.label) for record in records])
        if told:
            yield told
        return
    if rule.task != "multi_label":
        told = tell_class(features, [record.label for record in records])
        if told:
            yield told
        return
    for name, _ in rule.counts(record.label for record in records).most_common(20):
        held = [name if name in rule.names(record.label) else f"not {name}" for record in records]
        if told := tell_class(features, held):
            yield told


def _features(catalog: Catalog, records: Sequence[Record], facts: Sequence[ImageFacts]) -> Iterator[tuple[str, Matrix]]:
    looks = [fact.appearance for fact in facts if fact.appearance is not None]
    sides = np.log(np.array([(fact.width, fact.height) for fact in facts], np.float64).reshape(-1, 2))
    yield "shortcut-size", sides.sum(axis=1, keepdims=True)
    yield "shortcut-aspect", np.array([look.ratio for look in looks]).reshape(-1, 1)
    yield "shortcut-colour", np.array([(look.red, look.green, look.blue) for look in looks]).reshape(-1, 3)
    yield "shortcut-file-type", one_hot(["JPEG" if fact.kind == "MPO" else fact.kind for fact in facts])
    yield "shortcut-camera", one_hot([fact.camera for fact in facts])
    root = str(catalog.root)
    folders = [_source(one.path.rpartition(os.sep)[0], root, one.label, one.split) for one in records]
    if not _keeps_labels(folders, [record.label for record in records]):
        yield "shortcut-folder", one_hot(folders)


def _one_of_each(catalog: Catalog, facts: Sequence[ImageFacts], families: Sequence[int]) -> list[int]:
    """Return a place for each family; with many groups, for each label of a group: a patient's images are alike."""
    several = catalog.rule.task == "multi_label"
    grouped = len({record.group for record in catalog.records} - {None}) >= FEWEST
    first: dict[object, int] = {}
    for at, (record, fact) in enumerate(zip(catalog.records, facts, strict=True)):
        if fact.comparable and (record.label or several):
            key = families[at] if record.group is None or not grouped else (record.group, record.label)
            first.setdefault(key, at)
    return list(first.values())


@lru_cache(10_000)
def _source(folder: str, root: str, label: str, split: str | None) -> str:
    """Return the folder below the source, without the parts that are the split or spell the label."""
    known = {_folded(label), _folded(str(split))}
    parts = Path(folder.removeprefix(root).lstrip(os.sep)).parts
    return "/".join(part for part in parts if _folded(part) not in known)


def _folded(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _keeps_labels(folders: Sequence[str], labels: Sequence[str]) -> bool:
    """Return whether each of many folders holds one label of its own: wordnet's numbers for names, for example."""
    pairs = set(zip(folders, labels, strict=True))
    return len(pairs) > _SOURCES and len(pairs) == len(set(folders)) == len(set(labels))


def _some(places: _Codes, most: int) -> _Codes:
    if len(places) <= most:
        return places
    chosen: _Codes = np.sort(np.random.default_rng(0).choice(places, most, replace=False))
    return chosen


def _p_value(as_good: Callable[[npt.NDArray[Any]], bool], truth: npt.NDArray[Any]) -> float:
    """Return Monte Carlo p: (1 + shuffles as good) / (1 + shuffles), Phipson and Smyth 2010."""
    random = np.random.default_rng(0)
    return (1 + sum(as_good(random.permutation(truth)) for _ in range(SHUFFLES))) / (1 + SHUFFLES)


def _predictions(
    features: Matrix, truth: npt.NDArray[Any], make: Callable[[], Any], *, stratified: bool
) -> npt.NDArray[Any]:
    from sklearn.model_selection import KFold, StratifiedKFold

    folds = (StratifiedKFold if stratified else KFold)(FOLDS, shuffle=True, random_state=0)
    predictions = np.zeros(len(truth), truth.dtype)
    for known, asked in folds.split(features, truth):
        predictions[asked] = make().fit(features[known], truth[known]).predict(features[asked])
    return predictions


def _classifier() -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_leaf_nodes=32, min_samples_leaf=5, class_weight="balanced", random_state=0)


def _regressor() -> Any:
    from sklearn.tree import DecisionTreeRegressor

    return DecisionTreeRegressor(max_leaf_nodes=32, min_samples_leaf=5, random_state=0)


def _class_scores(truth: _Codes, predictions: _Codes, classes: int) -> tuple[float, Matrix]:
    """Return balanced accuracy, and for each class recall minus the share of other images that are called so."""
    table = np.bincount(truth * classes + predictions, minlength=classes * classes).reshape(classes, classes)
    right, of_class, called = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    recall = right / of_class
    return float(recall.mean()), recall - (called - right) / (of_class.sum() - of_class)


def _finding(code: str, told: Told) -> Finding:
    what = _TITLES[code]
    metrics = {"score": told.score, "chance": told.chance, "p": told.p, "images": told.images}
    if not told.best_class:
        title = f"the {what} alone explains {told.score:.0%} of the label's variance"
    elif told.skill >= SKILL:
        title = f"the {what} alone tells the label"
    else:
        title = f"the {what} alone tells {told.best_class!r} from the others"
    if told.best_class:
        metrics["best_class_gain"] = told.gain
        title += f" (balanced accuracy {told.score:.2f}, by chance {told.chance:.2f})"
    explanation = f"by a small tree, cross-validated on {told.images:,} images; a model may learn that alone"
    return Finding(code, CODES[code].severity, title, explanation, hint=_HINTS[code], metrics=metrics)
