"""Nearest neighbours in feature space: the training images behind a mistake, and alike images with different labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.context import EvaluationContext
from imagetune.evaluation.errors.mistakes import find_mistakes
from imagetune.evaluation.features.feature_models import find_nearest
from imagetune.evaluation.predictions import make_relative_path
from imagetune.recipe.tasks import Task

# Mistakes that are shown with neighbours, neighbours of each, and pairs of alike images with different labels.
MAX_MISTAKES = 24
NEIGHBOURS = 5
MAX_PAIRS = 24
# Every image is compared with every other, so the time grows with the square: of more images, some are drawn.
MAX_COMPARED = 6000


def analyse_neighbours(run: EvaluationContext) -> dict[str, Any] | None:
    """Return the training images nearest to the worst mistakes, and pairs of alike images with different labels.

    Nearness is the cosine similarity of the features. A pair consists of images that are each other's nearest one; for
    regression their numbers must lie further apart than the standard deviation of all, the furthest apart first.

    The document::

        {"tested": "test", "trained_on": 300,
         "mistakes": [{"path", "label", "predicted", "nearest": [{"path", "label", "cosine"}]}],
         "compared": 500, "images": 500,
         "pairs": [{"cosine": 0.98, "images": [{"path", "label", "split"}, {...}]}]}

    Returns:
        The document; None where features are missing.
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
        "mistakes": list(_describe_mistakes(run, tested)),
        "compared": min(images, MAX_COMPARED),
        "images": images,
        "pairs": list(_find_pairs(run))[:MAX_PAIRS],
    }


def find_mutual_neighbours(features: NDArray[np.floating]) -> Iterator[tuple[int, int, float]]:
    """Yield mutual nearest neighbours: pairs of images that are each other's nearest, with their cosine, highest first.

    Args:
        features: (n, d) features of the images.
    """
    if len(features) < 2:
        return
    found, cosines = find_nearest(features, features, 2)
    own = np.arange(len(features))
    # An image's nearest is itself, unless a copy of it, which is just as near, comes first.
    other = np.where(found[:, 0] == own, found[:, 1], found[:, 0])
    cosine = np.where(found[:, 0] == own, cosines[:, 1], cosines[:, 0])
    mutual = np.flatnonzero((other[other] == own) & (own < other))
    for index in mutual[np.argsort(-cosine[mutual], kind="stable")].tolist():
        yield index, int(other[index]), float(cosine[index])


def _describe_mistakes(run: EvaluationContext, tested: str) -> Iterator[dict[str, Any]]:
    """Yield the worst mistakes, each with its nearest training images."""
    split, train = run.splits[tested], run.splits["train"]
    if split.features is None or train.features is None:
        return
    rule = split.predictions.rule
    wrong = find_mistakes(split.predictions)[: min(MAX_MISTAKES, run.evaluate.mistakes)]
    if not len(wrong):
        return
    count = min(NEIGHBOURS, len(train.records))
    found, cosines = find_nearest(_flatten(split.features[wrong]), _flatten(train.features), count)
    texts = list(split.predictions.texts())
    for place, index in enumerate(wrong.tolist()):
        yield {
            "path": make_relative_path(split.records[index].path, run.root),
            "label": rule.describe(split.records[index].label),
            "predicted": rule.describe(texts[index][1]),
            "nearest": [
                {
                    "path": make_relative_path(train.records[other].path, run.root),
                    "label": rule.describe(train.records[other].label),
                    # Two libraries' float32 cosines differ by up to 2e-7: further digits would be noise.
                    "cosine": round(cosine, 6),
                }
                for other, cosine in zip(found[place].tolist(), cosines[place].tolist(), strict=True)
            ],
        }


def _find_pairs(run: EvaluationContext) -> Iterator[dict[str, Any]]:
    """Yield the pairs of alike images with different labels, the most alike first."""
    kept = [(name, split) for name, split in run.splits.items() if split.features is not None]
    features = np.concatenate([_flatten(split.features) for _, split in kept if split.features is not None])
    places = [(name, row) for name, split in kept for row in range(len(split.records))]
    if len(places) > MAX_COMPARED:
        drawn = np.random.default_rng(run.seed).choice(len(places), MAX_COMPARED, replace=False)
        features, places = features[drawn], [places[index] for index in drawn.tolist()]
    labels = [run.splits[name].records[row].label for name, row in places]
    for one, other, cosine in _select_contradictions(find_mutual_neighbours(features), labels, run.data.task):
        records = [(name, run.splits[name].records[row]) for name, row in (places[one], places[other])]
        yield {
            "cosine": round(cosine, 6),
            "images": [
                {
                    "path": make_relative_path(record.path, run.root),
                    "label": run.splits[name].predictions.rule.describe(record.label),
                    "split": name,
                }
                for name, record in records
            ],
        }


def _select_contradictions(
    pairs: Iterator[tuple[int, int, float]], labels: Sequence[str], task: Task
) -> list[tuple[int, int, float]]:
    """Return the pairs whose labels differ; for regression those with numbers far apart, the furthest first."""
    if task != "regression":
        return [pair for pair in pairs if labels[pair[0]] != labels[pair[1]]]
    numbers = np.array([float(label) for label in labels])
    apart = {pair: abs(float(numbers[pair[0]] - numbers[pair[1]])) for pair in pairs}
    minimum = float(numbers.std())
    return sorted((pair for pair, gap in apart.items() if gap > minimum), key=lambda pair: -apart[pair])


def _flatten(features: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(features, np.float32).reshape(len(features), -1)
