"""Predictions for unlabelled images, by file or from memory; a file that can't be read gets an error of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.data.loading.decode import resize_image
from imagetune.data.loading.pipeline import Batch, load_unlabelled_batches
from imagetune.data.sources.labels import LabelRule, format_exact_number
from imagetune.errors import ModelFileError
from imagetune.evaluation.predictions import UNKNOWN, WORTH_FOLDING, Predictions
from imagetune.evaluation.probabilities.decision_rules import (
    build_prediction_intervals,
    build_prediction_sets,
    list_operating_thresholds,
    predict_at_operating_point,
    predict_min_cost,
)
from imagetune.evaluation.probabilities.temperature import apply_temperature
from imagetune.model.build import append_layer_output
from imagetune.model.fold_batch_norm import fold_batch_norm_layers
from imagetune.model.inference import choose_batch_size, predict_batches
from imagetune.model.manifest import LoadedModel

BatchPredictor: TypeAlias = Callable[[Sequence[str], NDArray[np.uint8]], list["ImagePrediction"]]
"""From names and images (n, height, width, 3) of the model's size to their predictions, in order."""


@dataclass(frozen=True)
class DecisionRules:
    """Which decision rules of a model's manifest are applied to its predictions; by default none, as in `model.keras`.

    Attributes:
        calibrated: Probabilities are calibrated, at the fitted temperature. Labels and sets stay the same.
        sets: A conformal prediction set or interval is returned, too.
        operating_point: The label is the positive class from its threshold on.
        min_cost: The label is the class with the lowest expected cost, by calibrated probabilities.
    """

    calibrated: bool = False
    sets: bool = False
    operating_point: bool = False
    min_cost: bool = False


NO_DECISION_RULES = DecisionRules()


@dataclass(frozen=True)
class ImagePrediction:
    """The prediction for one image: ``label`` and ``probabilities``, or an ``error``.

    Attributes:
        path: The image.
        label: The class; for multi_label the labels that reach their thresholds, joined, perhaps none; for regression
            the number's text. None where the image can't be read.
        probabilities: Of each class; empty for regression.
        error: Why the image can't be read, or None.
        value: The number, for regression.
        prediction_set: What holds the true class with the coverage of the model's manifest, the likeliest first;
            None where it was not asked for.
        interval: Of regression, the same: its ends.
        out_of_distribution: Whether the image is unlike those that the model learned from, so that its prediction means
            little; None where the model doesn't say, or the image can't be read.
        out_of_distribution_score: How unlike they are; the larger, the out-of-distribution image. Of several models
            together: the share of those that call it an out-of-distribution image.
    """

    path: str
    label: str | None
    probabilities: dict[str, float]
    error: str | None
    value: float | None = None
    prediction_set: tuple[str, ...] | None = None
    interval: tuple[float, float] | None = None
    out_of_distribution: bool | None = None
    out_of_distribution_score: float | None = None


def predict_images(
    loaded: LoadedModel, paths: Sequence[str], ways: DecisionRules = NO_DECISION_RULES, *, start: int = 0
) -> Iterator[ImagePrediction]:
    """Yield a prediction for each path, in order, a batch at a time; memory does not grow with their number.

    Args:
        loaded: The model.
        paths: The files.
        ways: The decision rules of the model's manifest to apply.
        start: The first path to predict; what comes is the same as from there on in a pass over all.

    Raises:
        ModelFileError: The manifest lacks a rule that is to be applied; at the call.
    """
    require_rules(loaded, ways)
    # Not more than there are: a single image is not to cost as much as a full batch.
    size = max(1, min(choose_batch_size(loaded.model), len(paths)))
    # From the beginning of a batch on: rounding may differ by an image's place in it.
    return islice(_predict_files(loaded, paths, ways, size, start // size), start % size, None)


def _predict_files(
    loaded: LoadedModel, paths: Sequence[str], ways: DecisionRules, size: int, first: int
) -> Iterator[ImagePrediction]:
    place = first * size
    with load_unlabelled_batches(
        paths, image=loaded.image, batch_size=size, max_pixels=loaded.max_pixels, start_step=first
    ) as batches:
        for batch, rows, scores in _compute_outputs(loaded, _build_networks(loaded, count=len(paths)), batches, size):
            names = paths[place : place + len(batch.indices) + len(batch.errors)]
            yield from _build_batch(loaded, names, place, batch, rows, scores, ways)
            place += len(names)


def predict_arrays(
    loaded: LoadedModel, images: Sequence[NDArray[np.uint8]], ways: DecisionRules = NO_DECISION_RULES
) -> Iterator[ImagePrediction]:
    """Yield a prediction for each image that is in memory already, in order, a batch at a time.

    Args:
        loaded: The model.
        images: (h, w, 3) uint8 RGB each, of any size; they are resized as images from files are. Their paths are
            ``images[0]``, ``images[1]``, ...
        ways: The decision rules of the model's manifest to apply.

    Raises:
        ModelFileError: The manifest lacks a rule that is to be applied; at the call.
    """
    require_rules(loaded, ways)
    return _predict_arrays(loaded, images, ways)


def build_predictor(
    loaded: LoadedModel, ways: DecisionRules = NO_DECISION_RULES, *, for_many: bool = False
) -> BatchPredictor:
    """Return a function that predicts batches of images of the model's size, for whoever has one after another.

    Args:
        loaded: The model.
        ways: The decision rules of the model's manifest to apply.
        for_many: Whether there will be thousands of images, which BatchNorm is folded for; probabilities are the same
            up to rounding.

    Raises:
        ModelFileError: The manifest lacks a rule that is to be applied.
    """
    require_rules(loaded, ways)
    networks = _build_networks(loaded, count=WORTH_FOLDING if for_many else 1)

    def predict(names: Sequence[str], images: NDArray[np.uint8]) -> list[ImagePrediction]:
        batch = Batch(images, np.full(len(images), UNKNOWN, np.int32), np.arange(len(images)))
        ((_, rows, scores),) = _compute_outputs(loaded, networks, [batch], len(images))
        return _build_batch(loaded, names, 0, batch, rows, scores, ways)

    return predict


def _predict_arrays(
    loaded: LoadedModel, images: Sequence[NDArray[np.uint8]], ways: DecisionRules
) -> Iterator[ImagePrediction]:
    size = max(1, min(choose_batch_size(loaded.model), len(images)))
    starts = range(0, len(images), size)
    batches = (_stack(images[first : first + size], first, loaded) for first in starts)
    for batch, rows, scores in _compute_outputs(loaded, _build_networks(loaded, count=len(images)), batches, size):
        first = int(batch.indices[0])
        names = [f"images[{index}]" for index in batch.indices]
        yield from _build_batch(loaded, names, first, batch, rows, scores, ways)


def _stack(images: Sequence[NDArray[np.uint8]], first: int, loaded: LoadedModel) -> Batch:
    resized = np.stack([resize_image(image, loaded.image) for image in images])
    return Batch(resized, np.full(len(resized), UNKNOWN, np.int32), np.arange(first, first + len(resized)))


@dataclass(frozen=True)
class _Networks:
    """The networks that predict: ``both`` gives outputs and evidence side by side, ``copies`` outputs alone."""

    both: keras.Model
    copies: keras.Model


def _build_networks(loaded: LoadedModel, *, count: int) -> _Networks:
    """Return the networks to predict ``count`` images with."""
    layer, model = loaded.evidence_layer, loaded.model
    # One forward pass gives the outputs and what the detector needs.
    both = model if layer is None else append_layer_output(model, layer)
    if count * (1 + len(loaded.tta)) >= WORTH_FOLDING:
        both = fold_batch_norm_layers(both)
        # Only augmented copies go through the model without what the detector needs.
        model = fold_batch_norm_layers(model) if layer is not None and loaded.tta else both
    return _Networks(both, model)


def _compute_outputs(
    loaded: LoadedModel, networks: _Networks, batches: Iterable[Batch], size: int
) -> Iterator[tuple[Batch, np.ndarray, NDArray[np.float64] | None]]:
    """Yield each batch with the model's outputs (b, k) and out-of-distribution scores (b,); None without a detector.

    Test-time augmentation changes the outputs only: scores are those of the image itself, as they were when their
    threshold was chosen.
    """
    detector, outputs, both = loaded.detector, len(loaded.class_names), networks.both
    if detector is None:
        yield from ((batch, rows, None) for batch, rows in predict_batches(both, batches, tta=loaded.tta, size=size))
        return
    for batch, seen in predict_batches(both, batches, size=size):
        rows = seen[:, :outputs]
        if loaded.tta:
            _, rows = next(predict_batches(networks.copies, [batch], tta=loaded.tta, size=size))
        yield batch, rows, detector.scores(seen[:, outputs:], loaded.task)


def _build_batch(
    loaded: LoadedModel,
    names: Sequence[str],
    first: int,
    batch: Batch,
    rows: np.ndarray,
    scores: NDArray[np.float64] | None,
    ways: DecisionRules,
) -> list[ImagePrediction]:
    """Return the predictions of a batch in the order of its images, those of which can't be read with the others."""
    found = build_image_predictions([names[int(index) - first] for index in batch.indices], rows, loaded, ways)
    if loaded.detector is not None and scores is not None:
        marks = zip(scores.tolist(), loaded.detector.flagged(scores).tolist(), strict=True)
        found = [
            replace(one, out_of_distribution=flag, out_of_distribution_score=score)
            for one, (score, flag) in zip(found, marks, strict=True)
        ]
    # The first error is inserted first, so that each comes to its place among all.
    for index, what in sorted(batch.errors):
        found.insert(index - first, ImagePrediction(names[index - first], None, {}, what))
    return found


def build_image_predictions(
    paths: Sequence[str], rows: np.ndarray, loaded: LoadedModel, ways: DecisionRules = NO_DECISION_RULES
) -> list[ImagePrediction]:
    """Return the predictions for images from the model's outputs.

    Args:
        paths: Path of each of the n images.
        rows: (n, k) outputs of the model.
        loaded: The model.
        ways: The decision rules of its manifest to apply.
    """
    outputs = np.asarray(rows, np.float64)
    if loaded.task == "regression":
        return [_build_number(path, row[0], loaded, ways) for path, row in zip(paths, outputs, strict=True)]
    # Labels follow from the same code as in an evaluation.
    rule, unknown = LabelRule(loaded.task, loaded.label_separator), np.full(len(paths), UNKNOWN)
    predictions = Predictions(
        tuple(paths), unknown, outputs, loaded.class_names, rule, np.zeros_like(outputs), loaded.thresholds
    )
    shown = np.asarray(rows, np.float32)
    if ways.calibrated and loaded.temperature is not None:
        shown = apply_temperature(outputs, loaded.temperature, loaded.task).astype(np.float32)
    labels = _choose_cheapest(outputs, loaded) if ways.min_cost else _choose_labels(predictions, loaded, ways)
    sets = _build_sets(predictions, loaded) if ways.sets else [None] * len(paths)
    return [
        ImagePrediction(path, label, dict(zip(loaded.class_names, row, strict=True)), None, prediction_set=members)
        for path, label, row, members in zip(paths, labels, shown.tolist(), sets, strict=True)
    ]


def _build_number(path: str, output: float, loaded: LoadedModel, ways: DecisionRules) -> ImagePrediction:
    # Nine digits identify every float32; more would show its binary rounding.
    value = float(f"{output:.9g}")
    interval = _build_interval(value, loaded) if ways.sets else None
    return ImagePrediction(path, format_exact_number(value), {}, None, value, interval=interval)


def _choose_labels(predictions: Predictions, loaded: LoadedModel, ways: DecisionRules) -> list[str]:
    """Return the predicted labels as text; thresholds apply to the model's own, uncalibrated probabilities."""
    point = loaded.operating_point if ways.operating_point else None
    if point is not None and loaded.task != "multi_label":
        return [loaded.class_names[int(index)] for index in predict_at_operating_point(predictions, point)]
    if point is not None:
        predictions = replace(predictions, thresholds=list_operating_thresholds(predictions, point))
    return [label for _, label in predictions.texts()]


def _choose_cheapest(outputs: NDArray[np.float64], loaded: LoadedModel) -> list[str]:
    """Return the classes with the lowest expected cost, computed as in the analysis ``costs`` of evaluation.json."""
    if loaded.temperature is not None:
        outputs = apply_temperature(outputs, loaded.temperature, loaded.task)
    return [loaded.class_names[int(index)] for index in predict_min_cost(outputs, np.array(loaded.costs, np.float64))]


def _build_sets(predictions: Predictions, loaded: LoadedModel) -> list[tuple[str, ...] | None]:
    """Return the class names in each prediction set, the most probable first."""
    if loaded.conformal is None:
        return [None] * len(predictions.paths)
    held = build_prediction_sets(predictions, loaded.conformal)
    orders = np.argsort(-predictions.probabilities, axis=1, kind="stable")
    return [
        tuple(loaded.class_names[index] for index in order if row[index])
        for order, row in zip(orders, held, strict=True)
    ]


def _build_interval(value: float, loaded: LoadedModel) -> tuple[float, float] | None:
    """Return the ends of a number's prediction interval; None where validation had too few images for any."""
    if loaded.conformal is None or loaded.conformal.threshold is None:
        return None
    low, high = build_prediction_intervals(np.array([value]), loaded.conformal)
    return float(low[0]), float(high[0])


def require_rules(loaded: LoadedModel, ways: DecisionRules) -> None:
    """Make sure that the manifest has every decision rule that is to be applied.

    Raises:
        ModelFileError: It lacks one.
    """
    rule = loaded.conformal
    no_sets = rule is None or (loaded.task == "regression" and rule.threshold is None)
    missing = {
        "--calibrated": (ways.calibrated and loaded.temperature is None, "no temperature", "calibration"),
        "--sets": (ways.sets and no_sets, "no rule for prediction sets", "conformal"),
        "--operating-point": (
            ways.operating_point and loaded.operating_point is None,
            "no operating point",
            "operating_point",
        ),
        "--min-cost": (ways.min_cost and loaded.costs is None, "no costs of mistakes", "costs"),
    }
    for option, (lacks, what, part) in missing.items():
        if lacks:
            hint = (
                f"leave {option} out; if validation could not determine it, evaluation.json gives the reason under "
                f"{part!r}"
            )
            raise ModelFileError(f"the model has {what}", where=option, hint=hint)
