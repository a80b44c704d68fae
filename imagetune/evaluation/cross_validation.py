"""Cross-validation: pooled out-of-fold predictions, and the mean and spread of the metrics over the folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from imagetune.evaluation.document import describe_split, evaluate_split
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.intervals import Estimate, limit_estimate
from imagetune.recipe.metrics import METRICS
from imagetune.recipe.sections.evaluate import EvaluateConfig


@dataclass(frozen=True)
class Fold:
    """One fold of a cross-validation: its model's predictions for the images that were left out of training.

    Attributes:
        folder: Run folder of the fold, relative to that of the cross-validation.
        train: Number of training images.
        val: Number of validation images, on which the best epoch was selected.
        best_epoch: The epoch that the weights are from.
        predictions: Predictions for the left-out images, in the order of ``groups``.
        groups: Groups of the left-out images, None for an image without one.
        metrics: The headline metrics of the left-out images, by name; None where one isn't defined.
    """

    folder: str
    train: int
    val: int
    best_epoch: int
    predictions: Predictions
    groups: Sequence[str | None]
    metrics: Mapping[str, float | None]


def estimate_fold_mean(values: NDArray[np.float64], *, left_out: float, confidence: float) -> Estimate:
    """Return the mean over folds with the corrected interval of Nadeau and Bengio (Machine Learning 52, 2003).

    Folds share most of their training images, so that their metrics vary less than those of independent models would;
    the variance of the mean is taken to be (1 / k + n2 / n1) times that of the folds.

    Args:
        values: (k,) the metric of each fold.
        left_out: n2 / n1: left-out images for each training image, validation included.
        confidence: Coverage of the interval, in (0, 1).
    """
    folds = len(values)
    error = sqrt((1 / folds + left_out) * float(values.var(ddof=1)))
    half = float(stdtrit(folds - 1, 1 - (1 - confidence) / 2)) * error
    mean = float(values.mean())
    if not half:
        # Few folds may well agree by chance, also with a model that is right by chance.
        return Estimate(mean, reason="no interval: the metric is the same in every fold")
    return Estimate(mean, mean - half, mean + half, method="nadeau-bengio")


def pool_predictions(folds: Sequence[Fold]) -> Predictions:
    """Return the out-of-fold predictions of all images: each is predicted by the model that hasn't seen it.

    For multi_label the thresholds are the means of those that the folds chose on their validation images.
    """
    parts = [fold.predictions for fold in folds]
    # Each fold's own thresholds can't be kept: the pooled predictions have one threshold a label.
    thresholds = [part.thresholds for part in parts if part.thresholds]
    return Predictions(
        paths=tuple(path for part in parts for path in part.paths),
        labels=np.concatenate([part.labels for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        class_names=parts[0].class_names,
        rule=parts[0].rule,
        targets=np.concatenate([part.targets for part in parts]) if parts[0].targets.size else parts[0].targets,
        # Thresholds chosen anew on the pooled predictions would be chosen on the images that are tested.
        thresholds=tuple(np.mean(thresholds, axis=0).tolist()) if thresholds else (),
        unknown=sum(part.unknown for part in parts),
    )


def describe_folds(folds: Sequence[Fold], *, config: EvaluateConfig, seed: int) -> dict[str, Any]:
    """Return the value of ``folds`` in evaluation.json: pooled metrics, and their spread over the folds.

    The document: ``count``; ``images``; ``pooled`` (the metrics of all images, each predicted by the model that
    hasn't seen it, as a split has them in ``splits``); ``metrics`` (by name: ``mean`` over the folds with ``low`` and
    ``high`` of the corrected interval, ``sd``, ``least`` and ``most``); ``by_fold`` (``fold``, ``folder``, ``train``,
    ``val``, ``left_out``, ``best_epoch``, ``metrics``); ``notes``.

    Args:
        folds: All folds.
        config: The recipe's evaluate section, for the settings of the intervals.
        seed: Seed of the resamplings.
    """
    pooled = evaluate_split(
        pool_predictions(folds), config=config, seed=seed, groups=[group for fold in folds for group in fold.groups]
    )
    return {
        "count": len(folds),
        "images": pooled.images,
        "pooled": describe_split(pooled),
        "metrics": _estimate_spread(folds, config.confidence),
        "by_fold": [
            {
                "fold": number,
                "folder": fold.folder,
                "train": fold.train,
                "val": fold.val,
                "left_out": len(fold.predictions.paths),
                "best_epoch": fold.best_epoch,
                "metrics": dict(fold.metrics),
            }
            for number, fold in enumerate(folds, start=1)
        ],
        "notes": _list_notes(folds),
    }


def _estimate_spread(folds: Sequence[Fold], confidence: float) -> dict[str, dict[str, float | str | None]]:
    ratio = float(np.mean([len(fold.predictions.paths) / (fold.train + fold.val) for fold in folds]))
    found: dict[str, dict[str, float | str | None]] = {}
    for name in folds[0].metrics:
        # A metric that some fold doesn't define has no spread that could be compared with others.
        values = [value for fold in folds if (value := fold.metrics[name]) is not None]
        if len(values) < len(folds):
            continue
        array = np.array(values, dtype=np.float64)
        metric = METRICS[name]
        estimate = limit_estimate(
            estimate_fold_mean(array, left_out=ratio, confidence=confidence), metric.low, metric.high
        )
        found[name] = {
            "mean": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "method": estimate.method,
            "sd": float(array.std(ddof=1)),
            "min": float(array.min()),
            "max": float(array.max()),
        }
    return found


def _list_notes(folds: Sequence[Fold]) -> list[str]:
    notes = [
        "the folds are made of the training and validation images; the test images are in no fold",
        "nothing is chosen on a fold's left-out images: the best epoch is chosen on a validation share of the others",
    ]
    if folds[0].predictions.thresholds:
        notes.append("the pooled metrics use the mean of the folds' thresholds; each fold's metrics use its own")
    return notes
