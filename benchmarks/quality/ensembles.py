"""Measure choosing, averaging and joining solved heads of several backbones, on the sets for choosing.

    python -m benchmarks.quality.ensembles --work FOLDER --features FOLDER [--sets NAME ...] [--splits 1 2 3]

Pooled features of every image are computed once and kept in the folder of ``--features``. The heads learn from training
and validation images together, and what is chosen is chosen by cross-validation over them; each is then tested once.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from benchmarks.quality.sets import SETS
from benchmarks.quality.splits import provide_split
from imagetune.core.messages import say_nothing
from imagetune.core.processes import limit_blas_threads
from imagetune.data.loading.pipeline import load_evaluation_batches
from imagetune.data.splits.holdout import open_holdout
from imagetune.model.build import POOLING
from imagetune.runs.checks.recipe import load_checked_recipe
from imagetune.runs.prepare import prepare_training, read_data
from imagetune.training.head_solver.losses import ConvexLoss, compute_cross_entropy
from imagetune.training.head_solver.rows import deal_image_folds
from imagetune.training.head_solver.solve import HeadProblem, choose_strength, fit_scaler, solve_head
from imagetune.training.setup.stopping import StopRequest

Floats = NDArray[np.floating]
Candidate = tuple[str, int]
DEFAULT: Candidate = ("efficientnet_lite0", 160)
CANDIDATES: tuple[Candidate, ...] = (
    DEFAULT,
    ("efficientnet_lite0", 224),
    ("efficientnet_lite1", 240),
    ("efficientnet_lite2", 260),
    ("efficientnet_lite0", 288),
)
# Of a prototype's cosine to logits, and the share of the prototypes in a mixture; both chosen by cross-validation.
SHARPNESS = (5.0, 10.0, 20.0, 40.0)
SHARES = (0.0, 0.15, 0.3, 0.5)
FLOOR = 1e-15


@dataclass(frozen=True)
class Data:
    """A split: rows of training and validation images first, then of test images.

    Attributes:
        labels: (n,) class of each image.
        folds: (m,) fold of each of the first m images, those that may be learned from.
    """

    labels: NDArray[np.int64]
    folds: NDArray[np.int64]


@dataclass(frozen=True)
class Predictions:
    """Log probabilities of one way to predict: (m, k) out of fold, and (n - m, k) of the test images."""

    validated: Floats
    tested: Floats


def main() -> None:
    """Print a line a set and split, then the means of each way and their differences to the default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    names = [images.name for images in SETS if images.half == "choose"]
    parser.add_argument("--sets", nargs="+", choices=names, default=names)
    parser.add_argument("--splits", nargs="+", type=int, default=[1, 2, 3])
    arguments = parser.parse_args()
    scores: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name in arguments.sets:
        found = scores[name] = defaultdict(list)
        for split in arguments.splits:
            measured = measure(provide_split(name, split, arguments.work), name, arguments.features)
            for way, score in measured.items():
                found[way].append(score)
        print_table({name: found})
    print_table(scores)


def print_table(scores: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]) -> None:
    """Print the mean over sets of each way, and its paired differences to the default and to the chosen single one."""
    means = {
        way: np.array([np.mean(found[way], axis=0) for found in scores.values()]) for way in next(iter(scores.values()))
    }
    base = next(iter(means.values()))
    single = means["chosen by cross-validation"]
    print(f"\n{', '.join(scores)}", flush=True)
    for way, values in means.items():
        accuracy, loss = values.mean(axis=0)
        rows = [100 * (values - other)[:, 0] for other in (base, single)]
        errors = [row.std(ddof=1) / np.sqrt(len(row)) if len(row) > 1 else np.nan for row in rows]
        losses = [(values - other)[:, 1].mean() for other in (base, single)]
        text = "  ".join(
            f"{r.mean():+5.1f} (se {e:3.1f}) {b:+.3f}" for r, e, b in zip(rows, errors, losses, strict=True)
        )
        print(f"| {way:<44} | {accuracy:.3f} | {loss:.3f} | {text}", flush=True)


def measure(table: Path, name: str, folder: Path) -> dict[str, tuple[float, float]]:
    """Return test accuracy and log loss of each way to predict on one split."""
    data, features = load_split(table, name, folder)
    count = len(data.folds)
    learned, truth = data.labels[:count], data.labels[count:]
    singles = {candidate: predict_solved(values, data) for candidate, values in features.items()}
    losses = {candidate: compute_losses(one.validated, learned) for candidate, one in singles.items()}
    ranked = sorted(singles, key=lambda candidate: float(losses[candidate].mean()))
    ways = {f"{backbone} at {size}": singles[backbone, size] for backbone, size in CANDIDATES}
    ways["chosen by cross-validation"] = singles[ranked[0]]
    for errors in (1, 2):
        gain = losses[DEFAULT] - losses[ranked[0]]
        sure = gain.mean() > errors * gain.std(ddof=1) / np.sqrt(count) if ranked[0] != DEFAULT else False
        ways[f"left for it only by {errors} standard errors"] = singles[ranked[0] if sure else DEFAULT]
    for k in (2, 3, len(ranked)):
        ways[f"mean of the best {k}"] = average([singles[one] for one in ranked[:k]])
    ways["log-linear pool of the best 3"] = pool([singles[one] for one in ranked[:3]])
    for k in (2, 3):
        ways[f"one head on the features of the best {k}"] = predict_solved(
            np.concatenate([standardise(features[one], count) for one in ranked[:k]], axis=1), data
        )
    for title, one in (("the default", DEFAULT), ("the best", ranked[0])):
        prototypes = predict_prototypes(features[one], data)
        ways[f"prototypes, {title}"] = prototypes
        ways[f"mixture with prototypes, {title}"] = mix(singles[one], prototypes, learned)
    ways["nearest neighbour, the best"] = predict_neighbour(features[ranked[0]], data)
    print(table.parent.name, table.stem, "chosen", ranked[0], f"{count} to learn from", flush=True)
    return {way: score(one.tested, truth) for way, one in ways.items()}


def compute_losses(logs: Floats, labels: NDArray[np.int64]) -> Floats:
    """Return the log loss (n,) of each image."""
    return -np.maximum(logs[np.arange(len(labels)), labels], np.log(FLOOR))


def score(logs: Floats, labels: NDArray[np.int64]) -> tuple[float, float]:
    """Return accuracy and log loss."""
    return float((logs.argmax(axis=1) == labels).mean()), float(compute_losses(logs, labels).mean())


def standardise(features: Floats, count: int) -> Floats:
    """Return features on one scale, that of the first rows, so that joined ones count alike."""
    learned = features[:count]
    return np.asarray(
        (features - learned.mean(axis=0)) / np.hypot(learned.std(axis=0), 0.3 * np.median(learned.std(axis=0)))
    )


def predict_solved(features: Floats, data: Data) -> Predictions:
    """Return what a solved head predicts, with the penalty that cross-validation chooses."""
    count, classes = len(data.folds), int(data.labels.max()) + 1
    scaler = fit_scaler(features[:count])
    targets = np.eye(classes, dtype=np.float32)[data.labels[:count]]
    loss, ones = ConvexLoss(compute_cross_entropy), np.ones(count, np.float32)
    problem = HeadProblem(scaler.transform(features[:count]), targets, ones, loss, np.zeros(classes, np.float32))
    with limit_blas_threads(problem.features.size * classes):
        chosen = choose_strength(problem, data.folds, np.ones(count, bool))
        head = solve_head(problem, chosen.strength)
    tested = head.compute_logits(scaler.transform(features[count:]))
    return Predictions(log_softmax(chosen.logits, axis=1), log_softmax(tested, axis=1))


def predict_prototypes(features: Floats, data: Data) -> Predictions:
    """Return what the nearest mean of a class predicts by its cosine, with the sharpness of the lowest loss."""
    count, classes = len(data.folds), int(data.labels.max()) + 1
    units = normalise(features - features[:count].mean(axis=0))

    def compare(learn: NDArray[np.int64], ask: Floats) -> Floats:
        means = np.stack(
            [
                rows.mean(axis=0) if len(rows := units[learn][data.labels[learn] == at]) else np.zeros(units.shape[1])
                for at in range(classes)
            ]
        )
        return ask @ normalise(means).T

    validated = np.zeros((count, classes))
    for fold in range(int(data.folds.max()) + 1):
        validated[data.folds == fold] = compare(np.flatnonzero(data.folds != fold), units[:count][data.folds == fold])
    tested = compare(np.arange(count), units[count:])
    found = [Predictions(log_softmax(s * validated, axis=1), log_softmax(s * tested, axis=1)) for s in SHARPNESS]
    return min(found, key=lambda one: float(compute_losses(one.validated, data.labels[:count]).mean()))


def predict_neighbour(features: Floats, data: Data) -> Predictions:
    """Return the class of the nearest image by cosine; its log loss means nothing."""
    count, classes = len(data.folds), int(data.labels.max()) + 1
    units = normalise(features)
    nearest = (units[count:] @ units[:count].T).argmax(axis=1)
    logs = np.log(np.eye(classes)[data.labels[:count][nearest]] + FLOOR)
    return Predictions(np.zeros((count, classes)), logs)


def normalise(values: Floats) -> Floats:
    """Return rows of length 1."""
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9))


def average(members: Sequence[Predictions], shares: Sequence[float] | None = None) -> Predictions:
    """Return the logarithm of the mean probabilities."""
    weights = shares or [1 / len(members)] * len(members)

    def mean(parts: Sequence[Floats]) -> Floats:
        total = sum(weight * np.exp(part) for weight, part in zip(weights, parts, strict=True))
        return np.asarray(np.log(total + FLOOR))

    return Predictions(mean([one.validated for one in members]), mean([one.tested for one in members]))


def pool(members: Sequence[Predictions]) -> Predictions:
    """Return the normalised mean of log probabilities."""

    def mean(parts: Sequence[Floats]) -> Floats:
        return np.asarray(log_softmax(reduce(np.add, parts) / len(parts), axis=1))

    return Predictions(mean([one.validated for one in members]), mean([one.tested for one in members]))


def mix(solved: Predictions, prototypes: Predictions, labels: NDArray[np.int64]) -> Predictions:
    """Return the mixture of the lowest cross-validated loss."""
    found = [average([solved, prototypes], [1 - share, share]) for share in SHARES]
    return min(found, key=lambda one: float(compute_losses(one.validated, labels).mean()))


def load_split(table: Path, name: str, folder: Path) -> tuple[Data, dict[Candidate, Floats]]:
    """Return a split with the features of each candidate, computed where they aren't in the folder yet."""
    recipe = load_checked_recipe(_describe(table, DEFAULT)).recipe
    data = read_data(recipe, say=say_nothing)
    job = prepare_training(recipe, data, say=say_nothing, stop=StopRequest(), workers="as_written").job
    learned = (*data.splits.train, *data.splits.val)
    records = (*learned, *open_holdout(data.splits))
    names = job.images.class_names
    labels = np.array([names.index(record.label) for record in records])
    folds = deal_image_folds(replace(job.images, train=learned), seed=1)
    paths = [record.path for record in records]
    features = {}
    for candidate in CANDIDATES:
        store = folder / f"{name}-{candidate[0]}-{candidate[1]}.npz"
        if not store.exists():
            np.savez(store, paths=paths, features=_compute(table, candidate))
        with np.load(store) as kept:
            rows = {path: at for at, path in enumerate(kept["paths"].tolist())}
            features[candidate] = kept["features"][[rows[path] for path in paths]]
    return Data(labels, folds), features


def _describe(table: Path, candidate: Candidate) -> dict[str, object]:
    return {
        "name": table.parent.name,
        "seed": 1,
        "data": {"source": str(table), "image_size": candidate[1], "workers": 0},
        "model": {"backbone": candidate[0], "weights": "imagenet"},
        "train": {"stages": "linear_probe"},
    }


def _compute(table: Path, candidate: Candidate) -> Floats:
    """Return the pooled features (n, d) of all images of a table: training, validation, then test images."""
    recipe = load_checked_recipe(_describe(table, candidate)).recipe
    data = read_data(recipe, say=say_nothing)
    job = prepare_training(recipe, data, say=say_nothing, stop=StopRequest(), workers="as_written").job
    records = (*data.splits.train, *data.splits.val, *open_holdout(data.splits))
    backbone = keras.Model(job.model.input, job.model.get_layer(POOLING).output)
    config = job.images.config
    with load_evaluation_batches(
        records, job.images.class_names, image=config.image, batch_size=32, workers=0, max_pixels=config.max_pixels
    ) as batches:
        return np.concatenate([np.asarray(backbone.predict_on_batch(batch.images)) for batch in batches])


if __name__ == "__main__":
    main()
