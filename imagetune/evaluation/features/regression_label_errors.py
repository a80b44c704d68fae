"""Suspected label errors of regression: numbers far from the out-of-fold predictions of simple models.

A ridge probe predicts a number for each image out of fold. The distance of the label from it is measured in robust
standard deviations (the modified z-score: Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993) of images with
about the same prediction, as errors may grow with the number; beyond 3.5 the label is suspected. It is confirmed
where the nearest images of the other folds, whose errors differ from those of a linear model, disagree with it by as
much and on the same side. That any regression model serves for this, out of fold, is shown by Zhou, Mueller and others
(2023, arXiv 2305.16583).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from imagetune.core import run_files
from imagetune.data.sources.labels import format_exact_number
from imagetune.evaluation.context import EvaluationContext
from imagetune.evaluation.features.feature_models import (
    LabelledFeatures,
    find_nearest,
    fit_probe,
    limit_threads,
    sample_training_rows,
)
from imagetune.evaluation.features.label_errors_file import describe_label_errors, write_label_errors
from imagetune.evaluation.features.out_of_fold import (
    FOLDS,
    Pool,
    deal_folds,
    find_units,
    list_places,
    pool_splits,
    predict_out_of_fold,
)
from imagetune.evaluation.metrics.regression import bin_numbers
from imagetune.evaluation.predictions import make_relative_path

# Robust standard deviations beyond which Iglewicz and Hoaglin call a number an outlier.
SUSPECT_DEVIATIONS = 3.5
NEIGHBOURS = 5
# The spread is that of images with about the same prediction; with fewer of them its own error would show.
MAX_RANGES, MIN_IMAGES = 5, 30
_HEADER = ("path", "split", "label", "likely_label", "difference", "deviations", "confident")
# The 0.75 quantile of the normal distribution, and its mean absolute deviation.
_MEDIAN_DEVIATION, _MEAN_DEVIATION = 0.6745, 0.7979

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RegressionLabelError:
    """An image whose number is suspected.

    Attributes:
        path: Absolute path.
        split: Name of its split.
        label: The given number.
        likely: The probe's prediction.
        deviations: Label minus prediction in robust standard deviations.
        confident: Whether the nearest images agree with the probe.
    """

    path: str
    split: str
    label: float
    likely: float
    deviations: float
    confident: bool


def analyse_regression_label_errors(run: EvaluationContext, learned: Pool) -> dict[str, Any] | None:
    """Return suspected label errors of regression, and write all to ``label_errors.csv`` in the run folder.

    Training and validation images are predicted out of fold, test images by models of all of those.

    The document::

        {"file": "label_errors.csv", "folds": 5, "strength": 0.01, "fine_tuned": true, "beyond": 3.5,
         "learned": {"splits": ["train", "val"], "images": 335, "found": 9, "confident": 4,
                     "suspects": [{"path", "split", "label", "likely", "difference", "deviations", "confident"}]},
         "test": the same, or null}

    Args:
        run: A regression run with features of its splits.
        learned: Its training and validation images.

    Returns:
        The document; None where there are too few images for two folds.
    """
    folds = deal_folds(find_units(run, learned), learned.taught, folds=FOLDS, seed=run.seed)
    # All images depend on each other: no model could predict any of them without having learned from it.
    if folds.max() < 1:
        return None
    test = pool_splits(run, ("test",))
    with limit_threads(learned.taught):
        strength, judged = predict_out_of_fold(learned.taught, folds, seed=run.seed)
        near = predict_by_neighbours_out_of_fold(learned.taught, folds)
        suspects = _find_suspects(run, learned, judged[:, 0], near)
        tested: list[RegressionLabelError] | None = None
        if test is not None:
            tested = _find_test_suspects(run, learned, test, (judged[:, 0], near), strength)
    listed = partial(_describe_suspect, root=run.root)
    write_label_errors(
        run.folder, _HEADER, (_format_row(suspect, run.root) for suspect in (*suspects, *(tested or ())))
    )
    return {
        "file": run_files.LABEL_ERRORS,
        "folds": int(folds.max()) + 1,
        "strength": strength,
        "fine_tuned": run.fine_tuned,
        "beyond": SUSPECT_DEVIATIONS,
        "learned": describe_label_errors(learned, suspects, listed, expected=_expect(learned)),
        "test": None
        if test is None or tested is None
        else describe_label_errors(test, tested, listed, expected=_expect(test)),
    }


def _expect(pool: Pool) -> dict[str, float]:
    """Return how many right labels would be suspected if errors were normal, none of which neighbours would confirm."""
    return {"found": round(2 * float(ndtr(-SUSPECT_DEVIATIONS)) * len(pool.taught), 2), "confident": 0.0}


def compute_robust_deviations(true: Floats, judged: Floats) -> Floats:
    """Return the modified z-scores (n,): how far numbers lie from their predictions, in robust standard deviations.

    Median and median absolute deviation are those of images with about the same prediction; where more than half of
    their residuals are equal, the mean absolute deviation takes its place, as Iglewicz and Hoaglin advise.
    """
    codes, names = bin_numbers(judged, most=MAX_RANGES, least=MIN_IMAGES)
    found = np.zeros(len(true))
    for code in range(len(names)):
        inside = codes == code
        apart = true[inside] - judged[inside]
        apart = apart - np.median(apart)
        spread = float(np.median(np.abs(apart))) / _MEDIAN_DEVIATION
        spread = spread or float(np.abs(apart).mean()) / _MEAN_DEVIATION
        # Where all residuals are equal, no number stands out.
        found[inside] = apart / spread if spread else 0.0
    return found


def predict_by_neighbours_out_of_fold(taught: LabelledFeatures, folds: Ints) -> Floats:
    """Return the median number (n,) of each image's nearest images in the other folds."""
    predicted = np.zeros(len(taught))
    for fold in range(int(folds.max()) + 1):
        held = np.flatnonzero(folds == fold)
        predicted[held] = _predict_by_neighbours(taught.taken(np.flatnonzero(folds != fold)), taught.features[held])
    return predicted


def _predict_by_neighbours(rest: LabelledFeatures, features: NDArray[np.floating]) -> Floats:
    found, _ = find_nearest(features, rest.features, min(NEIGHBOURS, len(rest)))
    # The median: some neighbours' numbers may be wrong as well, and one of them would move a mean.
    predicted: Floats = np.median(rest.targets[found, 0], axis=1)
    return predicted


def _find_test_suspects(
    run: EvaluationContext, learned: Pool, test: Pool, judged: tuple[Floats, Floats], strength: float
) -> list[RegressionLabelError]:
    """Return the suspects among test images, predicted by models of all training and validation images."""
    rest = learned.taught.taken(sample_training_rows(learned.taught, seed=run.seed))
    predicted = fit_probe(rest, strength)(test.taught.features)[:, 0]
    near = _predict_by_neighbours(learned.taught, test.taught.features)
    return _find_suspects(run, test, predicted, near, before=(learned.taught.targets[:, 0], *judged))


def _find_suspects(
    run: EvaluationContext,
    pool: Pool,
    judged: Floats,
    near: Floats,
    *,
    before: tuple[Floats, Floats, Floats] | None = None,
) -> list[RegressionLabelError]:
    """Return the suspected images, the largest deviation first.

    Args:
        run: The run, for the images' paths.
        pool: The n images to examine.
        judged: (n,) predictions of the probe.
        near: (n,) predictions by the nearest images.
        before: True numbers and both predictions of further images, from which the spread is estimated as well.
    """
    true = pool.taught.targets[:, 0]
    others, other_judged, other_near = before or (np.zeros(0),) * 3
    all_true = np.concatenate([others, true])
    far, also = (
        compute_robust_deviations(all_true, np.concatenate([known, own]))[len(others) :]
        for known, own in ((other_judged, judged), (other_near, near))
    )
    places, suspects = list(list_places(pool)), []
    for index in np.flatnonzero(np.abs(far) > SUSPECT_DEVIATIONS).tolist():
        split, row = places[index]
        name = pool.names[split]
        agreed = bool(np.sign(far[index]) * also[index] > SUSPECT_DEVIATIONS)
        path = run.splits[name].records[row].path
        suspects.append(
            RegressionLabelError(path, name, float(true[index]), float(judged[index]), float(far[index]), agreed)
        )
    return sorted(suspects, key=lambda suspect: (-abs(suspect.deviations), suspect.path))


def _describe_suspect(suspect: RegressionLabelError, root: Path) -> dict[str, Any]:
    return {
        "path": make_relative_path(suspect.path, root),
        "split": suspect.split,
        "label": format_exact_number(suspect.label),
        "likely": _rounded(suspect.likely),
        "difference": float(f"{suspect.label - suspect.likely:.6g}"),
        "deviations": round(suspect.deviations, 3),
        "confident": suspect.confident,
    }


def _format_row(suspect: RegressionLabelError, root: Path) -> list[str]:
    apart = f"{suspect.label - suspect.likely:.6g}", f"{suspect.deviations:.3f}"
    texts = (
        make_relative_path(suspect.path, root),
        suspect.split,
        format_exact_number(suspect.label),
        _rounded(suspect.likely),
    )
    return [*texts, *apart, "yes" if suspect.confident else "no"]


def _rounded(value: float) -> str:
    # Four digits: more would claim a precision that the probe hasn't.
    return format_exact_number(float(f"{value:.4g}"))
