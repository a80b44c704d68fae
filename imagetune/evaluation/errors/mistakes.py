"""Which predictions of a model are its worst mistakes: wrong, and sure of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.predictions import Predictions


def wrong_images(predictions: Predictions) -> NDArray[np.int64]:
    """Return the images that the model was wrong about, those first that it was surest of.

    With multi_label that is the wrong label furthest from its threshold; with ordinal those come first that are the
    most ranks off; with regression all are wrong, and those with the largest error come first.
    """
    if predictions.rule.task == "regression":
        return np.argsort(-np.abs(predictions.probabilities - predictions.targets)[:, 0], kind="stable")
    if predictions.rule.task == "multi_label":
        sureness = _wrong_label_distances(predictions).max(axis=1)
        wrong = np.flatnonzero(sureness >= 0)
    else:
        wrong = np.flatnonzero((predictions.labels >= 0) & (predictions.labels != predictions.predicted))
        sureness = predictions.probabilities.max(axis=1)
    far = np.zeros(len(sureness), np.int64)
    if predictions.rule.task == "ordinal":
        far = np.abs(predictions.predicted - predictions.labels)
    return wrong[np.lexsort((-sureness[wrong], -far[wrong]))]


def worst_label(predictions: Predictions, index: int) -> int:
    """Return which wrong label of an image of multi_label is furthest from its threshold; of none wrong the first."""
    return int(_wrong_label_distances(predictions)[index].argmax())


def _wrong_label_distances(predictions: Predictions) -> NDArray[np.float64]:
    """Return how far each label (n, k) that is wrong lies from its threshold, -1 where it is right."""
    missed = (predictions.targets >= 0.5) != predictions.given
    distances = np.abs(predictions.probabilities - np.array(predictions.thresholds or 0.5))
    return np.where(missed, distances, -1.0)
