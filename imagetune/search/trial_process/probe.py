"""Probe of a backbone in a bake-off: a cross-validated linear probe on its features, its latency and its size.

The folds are of the training and validation images, the same for all backbones. Features go through the cache that a
later fine-tuning of the same backbone reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from imagetune.core.messages import say_nothing
from imagetune.core.processes import count_usable_cores
from imagetune.data.audit.bit_depth import settle_bit_depth
from imagetune.data.loading.targets import compute_value_scale, encode_targets
from imagetune.data.loading.timing import Timing
from imagetune.data.sources.records import Record
from imagetune.data.splits.folds import build_cross_validation_folds
from imagetune.data.splits.holdout import open_holdout
from imagetune.data.splits.splits import Splits
from imagetune.evaluation.cross_validation import estimate_fold_mean
from imagetune.evaluation.features.baselines import fit_linear_probe_baseline
from imagetune.evaluation.features.feature_models import LabelledFeatures, limit_threads, sample_training_rows
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import POOLING
from imagetune.model.devices import find_device
from imagetune.model.fold_batch_norm import fold_batch_norm_layers
from imagetune.model.split_model import split_model_at
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.search import SearchConfig
from imagetune.runs.prepare import Data, build_pretrained
from imagetune.runs.run import start_run
from imagetune.search.executors.protocol import Outcome, Task
from imagetune.search.trial_process.probe_file import write_probe
from imagetune.search.trial_process.shared import Shared
from imagetune.training.feature_cache.features import compute_plain_features
from imagetune.training.measure.timing import time_calls
from imagetune.training.objectives.metrics import compute_prediction_metrics
from imagetune.training.setup.faults import convert_memory_errors
from imagetune.training.setup.job import CLASS_TASKS
from imagetune.training.setup.stopping import StopRequest

# Default of `search.folds` for probes.
FOLDS = 5
# Batch size whose time is measured besides that of one image at a time.
TIMED_BATCH = 32
_BYTES_A_WEIGHT = 4
# A call with one image is so short that the clock would show: several make a round.
_CALLS = 8


@dataclass(frozen=True)
class FoldMetrics:
    """Metrics of a linear probe on the images that a fold leaves out.

    Attributes:
        train: Number of images that it was trained on, at most.
        val: Number of images that its penalty was chosen on.
        left_out: Number of images that it was evaluated on.
        strength: Inverse penalty: C of logistic regression, 1 / alpha of ridge regression.
        metrics: Metrics by name, as a training's validation has them.
    """

    train: int
    val: int
    left_out: int
    strength: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Cost:
    """Latency and size of a model.

    Attributes:
        one: Time of a forward pass with one image.
        batch: Time of a forward pass with ``TIMED_BATCH`` images, divided by their number.
        parameters: Number of all parameters, the head's included.
        device: Name of the device that it was timed on.
    """

    one: Timing
    batch: Timing
    parameters: int
    device: str

    @property
    def megabytes(self) -> float:
        """Size of the weights as float32, in millions of bytes."""
        return self.parameters * _BYTES_A_WEIGHT / 1e6


def run_probe(shared: Shared, task: Task, stop: StopRequest) -> Outcome:
    """Evaluate the backbone of a recipe by a linear probe, and write ``probe.json`` into the trial's folder.

    Args:
        shared: Images, objective and number of folds.
        task: The trial, whose folder is created.
        stop: Request to stop, checked between batches and folds.

    Returns:
        The mean over folds of the objective.

    Raises:
        WeightsError: The backbone's weights are not to be had.
        DataError: The images can't be divided into so many folds, or one vanished.
        ResourceError: Memory ran out.
        StoppedError: A signal came.
    """
    with start_run(task.recipe, task.folder, say=say_nothing, pages=False) as run:
        document = _document(shared, task.recipe, stop)
        write_probe(run.folder.path, document)
    return Outcome("completed", float(document["value"]))


def split_into_probe_folds(data: Data, recipe: Recipe) -> tuple[Splits, ...]:
    """Return the cross-validation folds of a bake-off, the same for every probe.

    Raises:
        DataError: The images can't be divided into so many.
    """
    count = recipe.search.folds or FOLDS
    return build_cross_validation_folds(
        data.catalog, data.audit, data.splits, folds=count, seed=recipe.split_seed, key="search.folds"
    )


def _document(shared: Shared, recipe: Recipe, stop: StopRequest) -> dict[str, Any]:
    data, config = shared.data, shared.config
    recipe = recipe.model_copy(update={"data": settle_bit_depth(recipe.data, data.audit.statistics)})
    images = data.images(recipe)
    model, weights = build_pretrained(recipe, images, say=say_nothing)
    records = (*data.splits.train, *data.splits.val)
    features = _features(model, recipe, data, records, stop)
    known = {(record.path, record.label): row for row, record in enumerate(records)}
    labelled = _label_features(features, records, recipe, data.splits.class_names)
    folds = []
    for fold in split_into_probe_folds(data, recipe):
        stop.check()
        folds.append(_probe_fold(labelled, fold, known, seed=recipe.seed))
    stop.check()
    cost = _measure_cost(model, recipe)
    image = recipe.data.image
    return {
        "backbone": recipe.model.backbone,
        "weights": recipe.model.weights,
        "weights_note": weights.note,
        "image_size": [image.height, image.width],
        "default_size": get_backbone(recipe.model.backbone).default_size,
        "features": labelled.features.shape[1],
        "images": len(records),
        **_estimate(folds, config, confidence=recipe.evaluate.confidence),
        "cost": _cost_document(cost),
    }


def _estimate(folds: Sequence[FoldMetrics], config: SearchConfig, *, confidence: float) -> dict[str, Any]:
    """Return the mean of the objective over folds with its corrected interval, and each fold's metrics."""
    values = np.array([fold.metrics[config.objective] for fold in folds], np.float64)
    estimate = estimate_fold_mean(values, left_out=left_out_ratio(folds), confidence=confidence)
    return {
        "objective": config.objective,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "method": estimate.method,
        "confidence": confidence,
        "left_out_ratio": left_out_ratio(folds),
        "folds": [
            {
                "train": fold.train,
                "val": fold.val,
                "left_out": fold.left_out,
                "strength": fold.strength,
                "metrics": dict(fold.metrics),
            }
            for fold in folds
        ],
    }


def left_out_ratio(folds: Sequence[FoldMetrics]) -> float:
    """Return the mean ratio of left-out images to the other images of a fold, for Nadeau and Bengio's correction."""
    return float(np.mean([fold.left_out / (fold.train + fold.val) for fold in folds]))


def _features(
    model: keras.Model, recipe: Recipe, data: Data, records: Sequence[Record], stop: StopRequest
) -> np.ndarray:
    halves = split_model_at(model, get_backbone(recipe.model.backbone), POOLING)
    if halves is None:  # a bug: every path through the model passes the pooling
        raise ValueError(f"the model can't be cut after {POOLING}")
    images = data.images(recipe)
    if recipe.train.cache == "off":
        # Features are cached under the images' hashes: without them nothing is kept.
        images = replace(images, hashes={})
    batch_size = recipe.evaluate.batch_size or TIMED_BATCH
    with convert_memory_errors(batch_size):
        batches = compute_plain_features(halves, records, images, batch_size=batch_size, check=stop.check)
    return np.concatenate([batch.images for batch in batches]).reshape(len(records), -1)


def _label_features(
    features: np.ndarray, records: Sequence[Record], recipe: Recipe, class_names: tuple[str, ...]
) -> LabelledFeatures:
    task = recipe.data.task
    labels = [record.label for record in records]
    targets = encode_targets(labels, class_names, task, separator=recipe.data.label_separator)
    classes = targets.argmax(axis=1) if task in CLASS_TASKS else np.full(len(records), -1)
    return LabelledFeatures(
        np.asarray(features, np.float32),
        targets.astype(np.float64),
        classes.astype(np.int64),
        np.arange(len(records)),
        task,
    )


def _probe_fold(
    labelled: LabelledFeatures, fold: Splits, known: Mapping[tuple[str, str], int], *, seed: int
) -> FoldMetrics:
    train, val, left_out = (
        labelled.taken(np.array([known[record.path, record.label] for record in records], np.int64))
        for records in (fold.train, fold.val, open_holdout(fold))
    )
    learnt = train.taken(sample_training_rows(train, seed=seed))
    with limit_threads(learnt):
        probe = fit_linear_probe_baseline(learnt, left_out, val if len(val) else None)
    # From the fold's training labels alone: those of its left-out images must not reach its metrics.
    scale = compute_value_scale([record.label for record in fold.train]) if labelled.task == "regression" else None
    metrics = compute_prediction_metrics(
        labelled.task, left_out.targets.astype(np.float32), probe.tested.astype(np.float32), scale
    )
    return FoldMetrics(len(train), len(val), len(left_out), probe.chosen["strength"], metrics)


def _measure_cost(model: keras.Model, recipe: Recipe) -> Cost:
    """Measure latency and size of a model on black images, with BatchNorm folded as for prediction."""
    image, quick = recipe.data.image, fold_batch_norm_layers(model)
    images = np.zeros((TIMED_BATCH, image.height, image.width, 3), np.uint8)

    def one_by_one() -> None:
        for _ in range(_CALLS):
            quick.predict_on_batch(images[:1])

    with convert_memory_errors(TIMED_BATCH):
        one, _ = time_calls(one_by_one, _CALLS)
        batch, _ = time_calls(lambda: quick.predict_on_batch(images), TIMED_BATCH)
    return Cost(one, batch, int(model.count_params()), find_device().name)


def _cost_document(cost: Cost) -> dict[str, Any]:
    return {
        "milliseconds_one": _milliseconds(cost.one),
        "milliseconds_batch": _milliseconds(cost.batch),
        "batch": TIMED_BATCH,
        "parameters": cost.parameters,
        "megabytes": cost.megabytes,
        "device": cost.device,
        "cores": count_usable_cores(),
    }


def _milliseconds(timing: Timing) -> dict[str, float | int]:
    return {
        # Other work of the machine only ever adds to a time: the fastest round is nearest to the model's own.
        "value": 1000 * timing.min_seconds,
        "median": 1000 * timing.seconds,
        "max": 1000 * timing.max_seconds,
        "rounds": len(timing.rounds),
    }
