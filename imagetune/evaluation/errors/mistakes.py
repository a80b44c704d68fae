"""The worst mistakes of a model: wrong predictions with the highest confidence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.predictions import Predictions


def find_mistakes(predictions: Predictions) -> NDArray[np.int64]:
    """Return the indices (m,) of wrongly predicted images, the most confident mistakes first.

    For multi_label, confidence is the distance of the wrong label furthest from its threshold. For ordinal, mistakes
    that are more ranks off come first. For regression all images are listed, the largest error first.
    """
    if predictions.rule.task == "regression":
        return np.argsort(-np.abs(predictions.probabilities - predictions.targets)[:, 0], kind="stable")
    if predictions.rule.task == "multi_label":
        sureness = _wrong_label_distances(predictions).max(axis=1)
        # Labels that are right have -1; a wrong one that lies exactly at its threshold has 0.
        wrong = np.flatnonzero(sureness >= 0)
    else:
        wrong = np.flatnonzero((predictions.labels >= 0) & (predictions.labels != predictions.predicted))
        sureness = predictions.probabilities.max(axis=1)
    far = np.zeros(len(sureness), np.int64)
    if predictions.rule.task == "ordinal":
        far = np.abs(predictions.predicted - predictions.labels)
    # lexsort sorts by its last key first: ranks, then confidence.
    return wrong[np.lexsort((-sureness[wrong], -far[wrong]))]


def find_worst_label(predictions: Predictions, index: int) -> int:
    """Return the wrong label of an image that is furthest from its threshold (multi_label); 0 where none is wrong."""
    return int(_wrong_label_distances(predictions)[index].argmax())


def _wrong_label_distances(predictions: Predictions) -> NDArray[np.float64]:
    """Return the distance of each wrong label's probability from its threshold, (n, k); -1 where a label is right."""
    missed = (predictions.targets >= 0.5) != predictions.given
    distances = np.abs(predictions.probabilities - np.array(predictions.thresholds or 0.5))
    return np.where(missed, distances, -1.0)
