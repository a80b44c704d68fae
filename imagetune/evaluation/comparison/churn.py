"""Prediction churn between runs: which predictions change, and whether they improve (Milani Fard and others 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.comparison.metrics import RunPredictions
from imagetune.evaluation.comparison.results import Churn, Closeness
from imagetune.evaluation.statistics.intervals import Estimate, estimate_share

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def compute_churn(first: RunPredictions, second: RunPredictions, *, confidence: float | None) -> Churn | Closeness:
    """Return the prediction churn from the first run to the second; for regression how close their predictions are.

    Args:
        first: The first run.
        second: The second run, on the same images.
        confidence: Coverage of the share's interval; None leaves it out, as where images are not independent.
    """
    if first.task == "regression":
        # Two numbers hardly ever agree exactly, so that counting changed predictions would say nothing.
        true, one, other = (numbers.astype(np.float64) for numbers in (first.true, first.given, second.given))
        gain = np.abs(other - true) - np.abs(one - true)
        return Closeness(float(np.abs(one - other).mean()), int((gain > 0).sum()), int((gain < 0).sum()))
    different: NDArray[np.bool_] = np.not_equal(first.given, second.given)
    changed = int((different.any(axis=1) if different.ndim == 2 else different).sum())
    right, also = first.right, second.right
    return Churn(
        changed=changed,
        share=Estimate(changed / len(right)) if confidence is None else estimate_share(changed, len(right), confidence),
        right_to_wrong=int((right & ~also).sum()),
        wrong_to_right=int((~right & also).sum()),
        both_right=int((right & also).sum()),
        both_wrong=int((~right & ~also).sum()),
    )


def find_differing_images(runs: Sequence[RunPredictions]) -> Ints:
    """Return the indices (m,) of images that not all runs predict alike, the largest disagreement first.

    Images come first on which some runs are right and some wrong, and among them those whose probabilities of the true
    class are furthest apart. Regression lists all images, by the distance between the predictions.

    Args:
        runs: Predictions of all runs for the same images.
    """
    first = runs[0]
    if first.task == "regression":
        given = np.stack([run.given.astype(np.float64) for run in runs])
        # The negative distance, for a stable sort with the largest disagreement first.
        return np.argsort(given.min(axis=0) - given.max(axis=0), kind="stable").astype(np.int64)
    different = np.any([run.given != first.given for run in runs], axis=0)
    different = different if different.ndim == 1 else different.any(axis=1)
    chances = np.stack([_get_true_probabilities(run) for run in runs])
    apart = chances.max(axis=0) - chances.min(axis=0)
    rights = np.stack([run.right for run in runs])
    split = np.asarray(rights.any(axis=0) & ~rights.all(axis=0), np.bool_)
    chosen = np.flatnonzero(different)
    # lexsort sorts by its last key first.
    return chosen[np.lexsort((-apart[chosen], ~split[chosen]))].astype(np.int64)


def _get_true_probabilities(predictions: RunPredictions) -> Floats:
    """Return the probability (n,) of the true class; for multi_label the mean over all labels."""
    if predictions.task == "multi_label":
        likely: Floats = np.where(predictions.true, predictions.probabilities, 1 - predictions.probabilities).mean(
            axis=1
        )
        return likely
    return predictions.probabilities[np.arange(len(predictions.true)), predictions.true.astype(np.int64)]
