"""What lies near an image, as the backbone sees it: why a mistake was made, and which labels contradict each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.context import Examined
from imagetune.evaluation.errors.mistakes import wrong_images
from imagetune.evaluation.features.feature_models import nearest
from imagetune.recipe.data import Task

# Mistakes with their neighbours, neighbours of each, and pairs of like images with other labels.
MAX_MISTAKES = 24
NEIGHBOURS = 5
MAX_PAIRS = 24
# Every image is compared with every other: with more, some are drawn.
MAX_COMPARED = 6000


def neighbours(run: Examined) -> dict[str, Any] | None:
    """Return the training images nearest to the worst mistakes, and like images that are labelled differently.

    Nearness is the cosine of the features. A pair is told where each of the two is the other's nearest image; with
    numbers for labels where they lie further apart than the standard deviation of all numbers, the furthest first.

    The document::

        {"tested": "test", "trained_on": 300,
         "mistakes": [{"path", "label", "predicted", "nearest": [{"path", "label", "cosine"}]}],
         "compared": 500, "images": 500,
         "pairs": [{"cosine": 0.98, "images": [{"path", "label", "split"}, {...}]}]}

    Returns:
        None where features are missing.
    """
    train = run.splits.get("train")
    tested = "test" if "test" in run.splits else "val"
    split = run.splits.get(tested)
    if train is None or train.features is None or split is None or split.features is None:
        return None
    images = sum(len(one.records) for one in run.splits.values())
    return {
        "tested": tested,
        "trained_on": len(train.records),
        "mistakes": list(_mistakes(run, tested)),
        "compared": min(images, MAX_COMPARED),
        "images": images,
        "pairs": list(_pairs(run))[:MAX_PAIRS],
    }


def mutual_pairs(features: NDArray[np.floating]) -> Iterator[tuple[int, int, float]]:
    """Yield the pairs of images that are each other's nearest one, with their cosine, the nearest first.

    Args:
        features: (n, d).
    """
    if len(features) < 2:
        return
    found, cosines = nearest(features, features, 2)
    own = np.arange(len(features))
    # A copy of an image is as near to it as itself.
    other = np.where(found[:, 0] == own, found[:, 1], found[:, 0])
    cosine = np.where(found[:, 0] == own, cosines[:, 1], cosines[:, 0])
    mutual = np.flatnonzero((other[other] == own) & (own < other))
    for index in mutual[np.argsort(-cosine[mutual], kind="stable")].tolist():
        yield index, int(other[index]), float(cosine[index])


def _mistakes(run: Examined, tested: str) -> Iterator[dict[str, Any]]:
    split, train = run.splits[tested], run.splits["train"]
    if split.features is None or train.features is None:
        return
    rule = split.predictions.rule
    wrong = wrong_images(split.predictions)[: min(MAX_MISTAKES, run.evaluate.mistakes)]
    if not len(wrong):
        return
    count = min(NEIGHBOURS, len(train.records))
    found, cosines = nearest(_flat(split.features[wrong]), _flat(train.features), count)
    texts = list(split.predictions.texts())
    for place, index in enumerate(wrong.tolist()):
        yield {
            "path": _relative(run, split.records[index].path),
            "label": rule.told(split.records[index].label),
            "predicted": rule.told(texts[index][1]),
            "nearest": [
                {
                    "path": _relative(run, train.records[other].path),
                    "label": rule.told(train.records[other].label),
                    "cosine": round(cosine, 6),
                }
                for other, cosine in zip(found[place].tolist(), cosines[place].tolist(), strict=True)
            ],
        }


def _pairs(run: Examined) -> Iterator[dict[str, Any]]:
    """Yield the pairs of like images with different labels, the likest first."""
    kept = [(name, split) for name, split in run.splits.items() if split.features is not None]
    features = np.concatenate([_flat(split.features) for _, split in kept if split.features is not None])
    places = [(name, row) for name, split in kept for row in range(len(split.records))]
    if len(places) > MAX_COMPARED:
        drawn = np.random.default_rng(run.seed).choice(len(places), MAX_COMPARED, replace=False)
        features, places = features[drawn], [places[index] for index in drawn.tolist()]
    labels = [run.splits[name].records[row].label for name, row in places]
    for one, other, cosine in _contradicting(mutual_pairs(features), labels, run.data.task):
        records = [(name, run.splits[name].records[row]) for name, row in (places[one], places[other])]
        yield {
            "cosine": round(cosine, 6),
            "images": [
                {
                    "path": _relative(run, record.path),
                    "label": run.splits[name].predictions.rule.told(record.label),
                    "split": name,
                }
                for name, record in records
            ],
        }


def _contradicting(
    pairs: Iterator[tuple[int, int, float]], labels: Sequence[str], task: Task
) -> list[tuple[int, int, float]]:
    """Return the pairs whose labels differ; of numbers those far apart, the furthest first."""
    if task != "regression":
        return [pair for pair in pairs if labels[pair[0]] != labels[pair[1]]]
    numbers = np.array([float(label) for label in labels])
    apart = {pair: abs(float(numbers[pair[0]] - numbers[pair[1]])) for pair in pairs}
    least = float(numbers.std())
    return sorted((pair for pair, gap in apart.items() if gap > least), key=lambda pair: -apart[pair])


def _flat(features: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(features, np.float32).reshape(len(features), -1)


def _relative(run: Examined, path: str) -> str:
    return path.removeprefix(f"{run.root}/")
