"""Image galleries: most confused class pairs, least confident predictions, and nearest training images of mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.predictions import Predictions
from imagetune.recipe.tasks import Task
from imagetune.reports.thumbnails import view_thumbnail
from imagetune.run_folder.reader import SPLITS, RunFiles

# Images are embedded at about 5 kB each: these limits keep the whole page within a few megabytes.
MAX_PAIRS = 4
PAIR_IMAGES = 6
LEAST_CONFIDENT = 12
MISTAKES = 8
SIMILAR = 6
LARGE, SMALL = 144, 96

# The true label and the prediction of each image, as texts.
Texts = Sequence[tuple[str, ...]]


def view_galleries(run: RunFiles) -> Mapping[str, Any] | None:
    """Return the galleries of the report; None without predictions, or where the recipe wants no mistakes shown.

    The image files have to be where they were; in the place of a missing one the page says so.
    """
    predictions = run.tested_predictions
    if predictions is None or not run.recipe.evaluate.mistakes:
        return None
    # Old runs have no neighbours: their other galleries need the predictions alone.
    found = run.evaluation.get("neighbours") or {}
    texts = [tuple(predictions.rule.describe(text) for text in pair) for pair in predictions.texts()]
    view = {
        "confused": list(_list_confused(run, predictions, texts)),
        "least_confident": list(_list_least_confident(run, predictions, texts)),
        "mistakes": [_view_mistake(run, mistake) for mistake in found.get("mistakes", [])[:MISTAKES]],
        "similar": [_view_pair(run, pair) for pair in found.get("pairs", [])[:SIMILAR]],
        "task": predictions.rule.task,
        "trained_on": found.get("trained_on"),
    }
    return view if any(view[name] for name in ("confused", "least_confident", "mistakes", "similar")) else None


def rank_least_confident(predictions: Predictions) -> NDArray[np.int64]:
    """Return the indices of all images, the least confident predictions first.

    Confidence is the margin between the two most probable classes; for multi_label the smallest distance of a label's
    probability to its threshold.
    """
    if predictions.rule.task == "multi_label":
        gaps = np.abs(predictions.probabilities - np.array(predictions.thresholds or 0.5)).min(axis=1)
    else:
        ordered = np.sort(predictions.probabilities, axis=1)
        gaps = ordered[:, -1] - ordered[:, -2]
    return np.argsort(gaps, kind="stable")


def iterate_confused_pairs(predictions: Predictions) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Yield unordered pairs of classes with the images of one that were predicted as the other.

    The pair with the most such images comes first, and of its images the most confident prediction.
    """
    labels, predicted = predictions.labels, predictions.predicted
    wrong = np.flatnonzero((labels >= 0) & (labels != predicted))
    low, high = np.minimum(labels, predicted)[wrong], np.maximum(labels, predicted)[wrong]
    pairs, which, counts = np.unique(np.stack([low, high], axis=1), axis=0, return_inverse=True, return_counts=True)
    sureness = predictions.probabilities.max(axis=1)
    for pair in np.argsort(-counts, kind="stable"):
        members = wrong[which.ravel() == pair]
        yield int(pairs[pair, 0]), int(pairs[pair, 1]), members[np.argsort(-sureness[members], kind="stable")]


def _list_confused(run: RunFiles, predictions: Predictions, texts: Texts) -> Iterator[dict[str, Any]]:
    if predictions.rule.task in ("multi_label", "regression"):
        return
    names = predictions.class_names
    for number, (one, other, members) in enumerate(iterate_confused_pairs(predictions)):
        if number == MAX_PAIRS:
            return
        yield {
            "names": (names[one], names[other]),
            "count": len(members),
            "images": [_view_image(run, predictions.paths[index], texts[index]) for index in members[:PAIR_IMAGES]],
        }


def _list_least_confident(run: RunFiles, predictions: Predictions, texts: Texts) -> Iterator[dict[str, Any]]:
    if predictions.rule.task == "regression":
        return
    for index in rank_least_confident(predictions)[:LEAST_CONFIDENT].tolist():
        yield {
            **_view_image(run, predictions.paths[index], texts[index]),
            "predictions": _list_likely(predictions, index),
        }


def _list_likely(predictions: Predictions, index: int) -> list[tuple[str, float]]:
    """Return the two most probable classes, or the label nearest to its threshold, with their probabilities."""
    row = predictions.probabilities[index]
    if predictions.rule.task == "multi_label":
        label = int(np.abs(row - np.array(predictions.thresholds or 0.5)).argmin())
        return [(predictions.class_names[label], float(row[label]))]
    best = np.argsort(-row, kind="stable")[:2]
    return [(predictions.class_names[label], float(row[label])) for label in best]


def _view_image(run: RunFiles, path: str, texts: tuple[str, ...]) -> dict[str, Any]:
    true, prediction = texts
    image = view_thumbnail(path, root=run.images_root, config=run.recipe.data, pixels=LARGE)
    return {**image, "true": true, "predicted": prediction, "right": true == prediction}


def _view_mistake(run: RunFiles, mistake: Mapping[str, Any]) -> dict[str, Any]:
    root, config = run.images_root, run.recipe.data
    near = [
        {
            **neighbour,
            **view_thumbnail(neighbour["path"], root=root, config=config, pixels=SMALL),
            "disagrees": _disagrees(neighbour["label"], mistake, config.task),
        }
        for neighbour in mistake["nearest"]
    ]
    return {**mistake, **view_thumbnail(mistake["path"], root=root, config=config, pixels=SMALL), "nearest": near}


def _disagrees(label: str, mistake: Mapping[str, Any], task: Task) -> bool:
    """Return whether a neighbour's label differs from the image's, or as a number is nearer to the prediction."""
    if task != "regression":
        return bool(label != mistake["label"])
    near, own, prediction = (float(text) for text in (label, mistake["label"], mistake["predicted"]))
    return abs(near - prediction) < abs(near - own)


def _view_pair(run: RunFiles, pair: Mapping[str, Any]) -> dict[str, Any]:
    root, config = run.images_root, run.recipe.data
    images = [
        {**one, "split": SPLITS[one["split"]], **view_thumbnail(one["path"], root=root, config=config, pixels=SMALL)}
        for one in pair["images"]
    ]
    return {**pair, "images": images}
