"""Out-of-distribution (OOD) detection: energy and Mahalanobis scores, the larger the less like the training images.

Energy (Liu et al., NeurIPS 2020): minus the log of the summed exponentials of the logits. For several labels an image
it is summed over the labels (joint energy: Wang et al., NeurIPS 2021). Mahalanobis (Lee et al., NeurIPS 2018): the
squared distance of the features to the nearest class mean, in the metric of a covariance that all classes share.
Features are brought to length 1 first (Mahalanobis++: Mueller and Hein, ICML 2025): without that, images of noise,
whose features are short, lie nearer than test images do. The covariance is shrunk as Ledoit and Wolf (Journal of
Multivariate Analysis 88, 2004) say, as there are rarely more images than features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from imagetune.core.archives import BROKEN, open_arrays
from imagetune.core.files import compute_file_sha256, replace_atomically
from imagetune.errors import ModelFileError
from imagetune.recipe.sections.base import Section
from imagetune.recipe.tasks import Task

STATISTICS = "feature_statistics.npz"
# Room for the headers of the arrays.
_HEADER_BYTES = 64 << 10
# Number of principal directions that keep their own variance; the rest varies little and shares its mean variance.
MAX_DIRECTIONS = 1024
# The covariance of a few thousand images is as good, and takes seconds.
MAX_IMAGES = 3000
_MIN = 1e-12

Floats = NDArray[np.floating]
Score = Literal["energy", "mahalanobis"]


class OutOfDistribution(Section):
    """The out-of-distribution rule in a manifest: a score and the threshold above which images are flagged."""

    score: Score
    """Kind of score: `energy` of the logits, or `mahalanobis` distance of the features to the nearest class mean."""
    threshold: Annotated[float, Field(allow_inf_nan=False)]
    """Score above which an image is flagged as out-of-distribution; chosen on images that the score hasn't learned."""
    share: Annotated[float, Field(gt=0.0, lt=0.5)]
    """Largest share of new images from the same source that the threshold was chosen to flag."""
    statistics_sha256: str | None = None
    """For mahalanobis: SHA-256 of ``feature_statistics.npz``."""


@dataclass(frozen=True)
class FeatureStatistics:
    """Class means and shared covariance of features of length 1, for Mahalanobis distances.

    The covariance is ``directions.T @ diag(variances) @ directions`` plus ``rest`` in every direction that is
    orthogonal to those.

    Attributes:
        means: (k, d) float32 mean of each class; a single mean for multi-label and regression.
        directions: (r, d) float32 orthonormal principal directions.
        variances: (r,) float32 variance along each direction, above 0.
        rest: Variance in all other directions, above 0.
    """

    means: NDArray[np.float32]
    directions: NDArray[np.float32]
    variances: NDArray[np.float32]
    rest: float

    def distances(self, features: Floats) -> NDArray[np.float64]:
        """Return the squared Mahalanobis distance (m,) of features (m, d) to the nearest mean."""
        middle = self.means.mean(axis=0, dtype=np.float64)
        points = _normalise(features) - middle
        means = self.means - middle
        turned, turned_means = points @ self.directions.T, means @ self.directions.T
        scale = np.sqrt(self.variances.astype(np.float64))
        along = _compute_squared_distances(turned / scale, turned_means / scale)
        # Rounding may leave a little less than nothing.
        beside = np.maximum(
            _compute_squared_distances(points, means) - _compute_squared_distances(turned, turned_means), 0.0
        )
        nearest: NDArray[np.float64] = (along + beside / self.rest).min(axis=1)
        return nearest


@dataclass(frozen=True)
class Detector:
    """Detector of out-of-distribution images.

    Attributes:
        rule: Score and threshold.
        statistics: Feature statistics for mahalanobis; None for energy.
    """

    rule: OutOfDistribution
    statistics: FeatureStatistics | None = None

    def scores(self, evidence: Floats, task: Task) -> NDArray[np.float64]:
        """Return the scores (m,) of logits (m, k) for energy, or of features (m, ...) for mahalanobis."""
        if self.statistics is None:
            return compute_energies(evidence, task)
        return self.statistics.distances(evidence)

    def flagged(self, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which scores (m,) exceed the threshold, so that their images are flagged as out-of-distribution."""
        exceeding: NDArray[np.bool_] = scores > self.rule.threshold
        return exceeding


def compute_energies(logits: Floats, task: Task) -> NDArray[np.float64]:
    """Return the energy scores (m,) of logits (m, k), at temperature 1.

    Raises:
        ValueError: The task is regression, whose output is not a logit.
    """
    if task == "regression":
        raise ValueError("regression has no energy score")
    values = np.asarray(logits, np.float64)
    if task == "multi_label":
        return np.asarray(-np.logaddexp(0, values).sum(axis=1), np.float64)
    return np.asarray(-np.logaddexp.reduce(values, axis=1), np.float64)


def feature_statistics(features: Floats, classes: NDArray[np.int64] | None, *, seed: int = 0) -> FeatureStatistics:
    """Return class means and shared covariance of training features, with Ledoit-Wolf shrinkage.

    Args:
        features: (n, d) features of training images; of more than `MAX_IMAGES`, that many are drawn at random for the
            covariance.
        classes: (n,) class of each, in [0, k); None to measure about the mean of all.
        seed: Random seed of that draw.
    """
    flat = _normalise(features)
    codes = np.zeros(len(flat), np.int64) if classes is None else np.unique(classes, return_inverse=True)[1]
    means = np.stack([flat[codes == code].mean(axis=0) for code in range(int(codes.max()) + 1)])
    centred = flat - means[codes]
    if len(centred) > MAX_IMAGES:
        centred = centred[np.random.default_rng(seed).choice(len(centred), MAX_IMAGES, replace=False)]
    directions, variances = _find_principal_directions(centred)
    width = flat.shape[1]
    share, mean = _compute_shrinkage(centred), float(np.square(centred).sum() / centred.size)
    kept = (1 - share) * variances + share * mean
    left = width - len(variances)
    unseen = max(width * mean - float(variances.sum()), 0.0)
    rest = share * mean + (1 - share) * unseen / left if left else mean
    # Constant features have no variance, and distances divide by it.
    floor = max(mean, _MIN) * _MIN
    return FeatureStatistics(
        means.astype(np.float32),
        directions.astype(np.float32),
        np.maximum(kept, floor).astype(np.float32),
        max(rest, floor),
    )


def write_statistics(statistics: FeatureStatistics, folder: Path) -> str:
    """Write ``feature_statistics.npz`` into a model's folder and return its SHA-256."""
    path = folder / STATISTICS
    with replace_atomically(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            means=statistics.means,
            directions=statistics.directions,
            variances=statistics.variances,
            rest=np.float64(statistics.rest),
        )
    return compute_file_sha256(path)


def read_detector(folder: Path, rule: OutOfDistribution, *, width: int, outputs: int) -> Detector:
    """Return the detector of a saved model, with its feature statistics read and checked.

    Args:
        folder: The folder ``model/``.
        rule: Rule from the manifest in it.
        width: Number of features of the model.
        outputs: Number of outputs of the model: there are at most as many means.

    Raises:
        ModelFileError: The statistics are missing, corrupted or replaced.
    """
    if rule.score == "energy":
        return Detector(rule)
    path = folder / STATISTICS
    hint = "copy the folder again, or train again"
    if not path.is_file():
        raise ModelFileError("missing", where=str(path), hint=hint)
    # Before reading: a replaced file could fill the memory.
    most = 4 * width * (MAX_DIRECTIONS + outputs) + 4 * MAX_DIRECTIONS + _HEADER_BYTES
    if path.stat().st_size > most or compute_file_sha256(path) != rule.statistics_sha256:
        raise ModelFileError(
            "corrupted or replaced: not what the manifest was written with", where=str(path), hint=hint
        )
    try:
        with open_arrays(path) as stored:
            found = FeatureStatistics(stored["means"], stored["directions"], stored["variances"], float(stored["rest"]))
        _check_statistics(found, width)
    except BROKEN as error:
        raise ModelFileError(f"no feature statistics: {error}", where=str(path), hint=hint) from error
    return Detector(rule, found)


def _check_statistics(found: FeatureStatistics, width: int) -> None:
    """Refuse arrays that don't fit together, or features of another width than the model's."""
    shapes = found.means.shape, found.directions.shape, found.variances.shape
    if [len(shape) for shape in shapes] != [2, 2, 1] or {shapes[0][1], shapes[1][1]} != {width}:
        raise ValueError(f"arrays of the shapes {shapes}, the model has {width} features")
    if not shapes[0][0] or shapes[1][0] != shapes[2][0]:
        raise ValueError(f"{shapes[1][0]} directions with {shapes[2][0]} variances about {shapes[0][0]} means")
    arrays = (found.means, found.directions, found.variances)
    if any(array.dtype.kind != "f" or not np.isfinite(array).all() for array in arrays):
        raise ValueError("numbers that are not finite, or no numbers")
    if not (found.variances > 0).all() or not 0 < found.rest < np.inf:
        raise ValueError("variances that are not above 0")


def _normalise(features: Floats) -> NDArray[np.float64]:
    """Return features (n, ...) flattened to (n, d) and scaled to length 1."""
    flat = np.asarray(features, np.float64).reshape(len(features), -1)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), _MIN), np.float64)


def _compute_squared_distances(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squared distances (m, k) of points (m, d) and (k, d)."""
    lengths = np.square(one).sum(axis=1)[:, None] + np.square(other).sum(axis=1)
    return np.asarray(lengths - 2 * one @ other.T, np.float64)


def _find_principal_directions(centred: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the directions (r, d) in which features vary most, and the variance (r,) along each, the largest first."""
    count, width = centred.shape
    small = count < width
    # The smaller of the two matrices of products has the same eigenvalues.
    products = centred @ centred.T if small else centred.T @ centred
    values, vectors = np.linalg.eigh(products / count)
    order = np.argsort(-values)[:MAX_DIRECTIONS]
    order = order[values[order] > max(float(values[-1]), 0.0) * 1e-9]
    directions = vectors[:, order].T @ centred if small else vectors[:, order].T
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    return directions / np.maximum(lengths, _MIN), values[order]


def _compute_shrinkage(centred: NDArray[np.float64]) -> float:
    """Return the share of the covariance that is replaced by its mean variance (Ledoit and Wolf 2004)."""
    # Imported here: scikit-learn takes a second, and opening a model doesn't need it.
    from sklearn.covariance import ledoit_wolf_shrinkage

    return float(ledoit_wolf_shrinkage(centred, assume_centered=True))
