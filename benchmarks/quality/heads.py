"""Measure what a solved head gains by shrunk scales, augmented copies and flips at test time, on the sets for choosing.

    python -m benchmarks.quality.heads --work FOLDER [--sets NAME ...] [--splits 1]

Prints a line a setting: the mean test accuracy and log loss over the splits, each predicted once. Nothing is trained.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
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
from imagetune.data.sources.records import Record
from imagetune.data.splits.holdout import open_holdout
from imagetune.model.build import POOLING
from imagetune.runs.checks.recipe import load_checked_recipe
from imagetune.runs.prepare import prepare_training, read_data
from imagetune.training.feature_cache.features import compute_plain_features, compute_solver_features
from imagetune.training.feature_cache.plan import plan_features
from imagetune.training.head_solver.rows import build_problem, deal_image_folds
from imagetune.training.head_solver.solve import SHRINKAGE, LinearHead, choose_strength, solve_head
from imagetune.training.setup.job import TrainingJob, build_objective, build_targets
from imagetune.training.setup.stopping import StopRequest

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Setting:
    """How a head is solved.

    Attributes:
        augmentation: Of the three copies; ``none`` for no copies.
        shrinkage: Share of the median deviation that is added to the scale of each feature.
    """

    augmentation: str
    shrinkage: float


SETTINGS = (
    *(Setting("light", shrinkage) for shrinkage in (0.0, 0.1, SHRINKAGE, 1.0, 3.0)),
    Setting("none", SHRINKAGE),
    Setting("medium", SHRINKAGE),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    names = [images.name for images in SETS if images.half == "choose"]
    parser.add_argument("--sets", nargs="+", choices=names, default=names)
    parser.add_argument("--splits", nargs="+", type=int, default=[1])
    arguments = parser.parse_args()
    scores: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for name in arguments.sets:
        for split in arguments.splits:
            for setting, score in measure(provide_split(name, split, arguments.work)):
                scores[setting].append(score)
                print(f"{name} {split}  {setting}  accuracy {score[0]:.3f}  log loss {score[1]:.3f}", flush=True)
    for setting, found in scores.items():
        accuracy, loss = np.mean(found, axis=0)
        print(f"mean of {len(found)}  {setting}  accuracy {accuracy:.4f}  log loss {loss:.4f}")


def measure(table: Path) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield each setting with the test accuracy and log loss of its head; for copies also averaged with the flips."""
    # Read and computed once for each augmentation.
    prepare = cache(partial(_prepare, table))
    for setting in SETTINGS:
        job, features, tested = prepare(setting.augmentation)
        head = _solve(job, features, setting.shrinkage)
        logits = [head.compute_logits(part) for part in tested["test"]]
        labels = tested["labels"][0].astype(np.int64)
        yield f"{setting.augmentation}, shrinkage {setting.shrinkage:g}", score(logits[:1], labels)
        if setting == Setting("light", SHRINKAGE):
            yield f"{setting.augmentation}, shrinkage {setting.shrinkage:g}, flips at test", score(logits, labels)


def score(logits: list[Floats], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Return accuracy and log loss of the mean probabilities of several logits (n, k)."""
    probabilities = np.mean([np.exp(log_softmax(part, axis=1)) for part in logits], axis=0)
    chosen = np.clip(probabilities[np.arange(len(labels)), labels], 1e-15, 1)
    return float((probabilities.argmax(axis=1) == labels).mean()), float(-np.log(chosen).mean())


def _prepare(table: Path, augmentation: str) -> tuple[TrainingJob, Floats, Mapping[str, list[Floats]]]:
    """Return the job of a head, its features, and those of the test images, plain and flipped, with their labels."""
    recipe = load_checked_recipe(
        {
            "name": table.parent.name,
            "seed": 1,
            "data": {"source": str(table), "image_size": 160, "workers": 0, "augmentation": augmentation},
            "train": {"stages": "linear_probe"},
        }
    ).recipe
    data = read_data(recipe, say=say_nothing)
    job = prepare_training(recipe, data, say=say_nothing, stop=StopRequest(), workers="as_written").job
    stage = job.config.stages[0]
    plan = plan_features(job, stage, job.model)
    if plan.halves is None:
        raise ValueError(plan.reason)
    records = open_holdout(data.splits)
    plain = compute_plain_features(plan.halves, records, job.images, batch_size=32)
    test = [np.concatenate([batch.images for batch in plain]), _compute_flipped(job, records)]
    labels = np.array([job.images.class_names.index(record.label) for record in records], np.float32)
    features = compute_solver_features(job, stage, plan, plan.halves, first_epoch=0)
    return job, features, {"test": test, "labels": [labels]}


def _compute_flipped(job: TrainingJob, records: Sequence[Record]) -> Floats:
    """Return the features (n, d) of mirrored images."""
    backbone = keras.Model(job.model.input, job.model.get_layer(POOLING).output)
    data = job.images.config
    with load_evaluation_batches(
        records, job.images.class_names, image=data.image, batch_size=32, workers=0, max_pixels=data.max_pixels
    ) as batches:
        flipped = [np.asarray(backbone.predict_on_batch(batch.images[:, :, ::-1])) for batch in batches]
    return np.concatenate(flipped)


def _solve(job: TrainingJob, features: Floats, shrinkage: float) -> LinearHead:
    """Return the head of plain features, with the penalty that cross-validation chooses."""
    versions, count = features.shape[:2]
    problem, scaler = build_problem(
        job, features, objective=build_objective(job), targets=build_targets(job), shrinkage=shrinkage
    )
    folds = np.tile(deal_image_folds(job.images, seed=job.seed), versions)
    with limit_blas_threads(problem.features.size * problem.targets.shape[1]):
        chosen = choose_strength(problem, folds, np.arange(versions * count) < count)
        return scaler.fold_into(solve_head(problem, chosen.strength))


if __name__ == "__main__":
    main()
