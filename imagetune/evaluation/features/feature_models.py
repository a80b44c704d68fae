"""Simple models on backbone features: a linear probe and nearest neighbours, for baselines and label errors.

The linear probe (Alain and Bengio 2016, arXiv 1610.01644) is logistic regression, for numbers ridge regression, on
standardised features. Nearest neighbours are found by cosine similarity of the features as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.core.processes import limit_blas_threads
from imagetune.evaluation.context import EvaluatedSplit
from imagetune.evaluation.predictions import UNKNOWN
from imagetune.recipe.tasks import Task
from imagetune.training.head_solver.solve import fit_scaler

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
# Features (m, d) to predictions (m, k).
PredictFunction = Callable[[Floats], NDArray[np.float64]]

# A probe on more rows is hardly better, and takes longer than a user waits for what is only a comparison.
MAX_ROWS = 4000
# Rows x features x outputs beyond which a probe is fitted with one strength only, and for fewer rows.
_MANY_CELLS = 400_000_000
_ITERATIONS = 200
_TOLERANCE = 1e-3
# Similarities in memory at once, in MiB.
_WORKING_MIB = 64
# Extra weight of a nearer neighbour: so small that it only decides between equally many votes.
_NEARER = 1e-6
_TINY = 1e-12


@dataclass(frozen=True)
class LabelledFeatures:
    """The features of images whose label is known, with their targets.

    Attributes:
        features: (n, d) float32.
        targets: (n, k) float64: one 1 a row where an image has one class, ones of its labels for multi_label, (n, 1)
            numbers for regression.
        labels: (n,) int64 classes in [0, k); -1 for multi_label and regression.
        rows: (n,) int64, index of each image in its split.
        task: The task, which says what a label is.
    """

    features: NDArray[np.float32]
    targets: NDArray[np.float64]
    labels: Ints
    rows: Ints
    task: Task

    def __len__(self) -> int:
        return len(self.features)

    def taken(self, indices: Ints) -> LabelledFeatures:
        """Return the features and targets of some of the images."""
        return LabelledFeatures(
            self.features[indices], self.targets[indices], self.labels[indices], self.rows[indices], self.task
        )


def collect_labelled_features(split: EvaluatedSplit | None) -> LabelledFeatures | None:
    """Return features and targets of the images with a known label; None where there are none, or no features."""
    if split is None or split.features is None:
        return None
    predictions = split.predictions
    task = predictions.rule.task
    classes = len(predictions.class_names)
    if task in ("single_label", "ordinal"):
        rows = np.flatnonzero(predictions.labels != UNKNOWN)
        targets = np.eye(classes)[predictions.labels[rows]]
    else:
        rows = np.flatnonzero(np.isfinite(predictions.targets).all(axis=1))
        targets = predictions.targets[rows]
    if not len(rows):
        return None
    features = np.asarray(split.features, np.float32).reshape(len(split.features), -1)[rows]
    return LabelledFeatures(features, targets, predictions.labels[rows], rows, task)


def join_features(parts: Sequence[LabelledFeatures]) -> LabelledFeatures:
    """Return the features and targets of several splits, concatenated."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return LabelledFeatures(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.targets for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.rows for part in parts]),
        first.task,
    )


@contextmanager
def limit_threads(taught: LabelledFeatures) -> Iterator[None]:
    """Limit BLAS to one thread inside the block where the features are few."""
    with limit_blas_threads(taught.features.size * taught.targets.shape[1]):
        yield


def sample_training_rows(taught: LabelledFeatures, *, seed: int) -> Ints:
    """Return the indices (m,) of the images that a probe is fitted on: all, or some thousands drawn at random."""
    most = MAX_ROWS
    width = taught.features.shape[1] * taught.targets.shape[1]
    if most * width > _MANY_CELLS:
        # However wide the features are, there are about four images a class to learn from.
        most = max(_MANY_CELLS // width, min(MAX_ROWS, 4 * taught.targets.shape[1]))
    if len(taught) <= most:
        return np.arange(len(taught))
    return np.sort(np.random.default_rng(seed).choice(len(taught), most, replace=False)).astype(np.int64)


def list_strengths(taught: LabelledFeatures) -> tuple[float, ...]:
    """Return the strengths to choose from, the strongest penalty first: C of logistic regression, 1 / alpha of ridge.

    They are a decade apart: the loss is flat around its minimum, so a finer grid changes little.
    """
    if taught.features.size * taught.targets.shape[1] > _MANY_CELLS:
        return (1e-2,)
    return (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0) if taught.task == "regression" else (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def fit_probe(taught: LabelledFeatures, strength: float) -> PredictFunction:
    """Fit a linear probe on standardised features, and return its prediction function.

    Args:
        taught: Training images.
        strength: C of logistic regression, 1 / alpha of ridge regression; smaller is more penalty.

    Returns:
        A function from features (m, d) to probabilities (m, k), or to numbers (m, 1). A class without images has
        probability 0.
    """
    # The penalty treats all weights alike, so that features have to be on one scale: that of a solved head, so that the
    # two differ in what they learn from alone.
    scaler = fit_scaler(taught.features)
    scaled = scaler.transform(taught.features)
    if taught.task == "regression":
        from sklearn.linear_model import Ridge

        ridge = Ridge(alpha=1 / strength).fit(scaled, taught.targets[:, 0])
        return lambda features: np.asarray(ridge.predict(scaler.transform(features)), np.float64).reshape(-1, 1)
    if taught.task == "multi_label":
        models = [_fit_logistic(scaled, column, strength) for column in taught.targets.T >= 0.5]
        return lambda features: _predict_labels(models, scaler.transform(features))
    model = _fit_logistic(scaled, taught.labels, strength)
    classes = taught.targets.shape[1]
    return lambda features: _predict_classes(model, scaler.transform(features), classes)


def compute_probe_loss(predictions: NDArray[np.float64], truth: LabelledFeatures) -> float:
    """Return the loss that a probe's penalty is chosen by: mean log loss, for regression mean squared error."""
    if truth.task == "regression":
        return float(np.square(predictions - truth.targets).mean())
    right = np.log(np.maximum(predictions, _TINY)) * truth.targets
    if truth.task == "multi_label":
        right = right + np.log(np.maximum(1 - predictions, _TINY)) * (1 - truth.targets)
    return float(-right.sum(axis=1).mean())


def find_nearest(queries: Floats, references: Floats, count: int) -> tuple[Ints, NDArray[np.float32]]:
    """Return the nearest neighbours of each query by the cosine similarity of features, the nearest first.

    Args:
        queries: (m, d) features.
        references: (n, d) features; a zero vector has cosine 0 to all.
        count: Number of neighbours, at most n.

    Returns:
        Indices (m, count), and cosines (m, count) in [-1, 1].
    """
    from sklearn import config_context
    from sklearn.neighbors import NearestNeighbors

    known, asked = (np.asarray(features, np.float32) for features in (references, queries))
    with config_context(working_memory=_WORKING_MIB):
        search = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute").fit(known)
        distances, found = search.kneighbors(asked)
    return found.astype(np.int64), np.asarray(1 - distances, np.float32)


def predict_by_neighbours(
    taught: LabelledFeatures, queries: Floats, counts: Sequence[int]
) -> Mapping[int, NDArray[np.float64]]:
    """Return k-nearest-neighbour predictions for each k: shares of the neighbours' labels, or their mean number.

    Between equally many votes the nearer neighbours decide.

    Args:
        taught: Training images, among which neighbours are searched.
        queries: (m, d) features of the images to predict.
        counts: The values of k, each at most the number of training images.

    Returns:
        Predictions (m, k classes) by number of neighbours.
    """
    most = max(counts)
    indices, _ = find_nearest(queries, taught.features, most)
    votes = taught.targets[indices]
    weights = 1 + _NEARER * np.arange(most, 0, -1) if taught.task != "regression" else np.ones(most)
    totals = np.cumsum(votes * weights[:, None], axis=1)
    return {count: totals[:, count - 1] / weights[:count].sum() for count in counts}


def _fit_logistic(scaled: Floats, labels: NDArray[Any], strength: float) -> Any:
    """Return a fitted logistic regression, or the only class that occurs, which scikit-learn refuses to fit."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(labels)) == 1:
        return labels[0]
    with warnings.catch_warnings():
        # A probe that has nearly converged is good enough for a comparison.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=_ITERATIONS, tol=_TOLERANCE).fit(scaled, labels)


def _predict_labels(models: Sequence[Any], scaled: Floats) -> NDArray[np.float64]:
    """Return the probabilities (m, k) of k binary classifiers, one for each label."""
    columns = [
        model.predict_proba(scaled)[:, 1] if hasattr(model, "predict_proba") else np.full(len(scaled), float(model))
        for model in models
    ]
    return np.stack(columns, axis=1).astype(np.float64)


def _predict_classes(model: Any, scaled: Floats, classes: int) -> NDArray[np.float64]:
    """Return the probabilities (m, classes) of one classifier, 0 for classes that it was not fitted on."""
    predictions = np.zeros((len(scaled), classes))
    if hasattr(model, "predict_proba"):
        predictions[:, model.classes_] = model.predict_proba(scaled)
    else:
        predictions[:, int(model)] = 1.0
    return predictions
