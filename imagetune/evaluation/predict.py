"""Predictions for unlabelled images, by file or from memory; a file that can't be read gets an error of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.data.loading.decode import resize_image
from imagetune.data.loading.pipeline import Batch, load_evaluation_batches
from imagetune.data.sources.labels import LabelRule, format_exact_number
from imagetune.data.sources.records import Record
from imagetune.errors import ModelFileError
from imagetune.evaluation.predictions import UNKNOWN, Predictions
from imagetune.evaluation.probabilities.decision_rules import (
    build_prediction_intervals,
    build_prediction_sets,
    list_operating_thresholds,
    predict_at_operating_point,
    predict_min_cost,
)
from imagetune.evaluation.probabilities.temperature import apply_temperature
from imagetune.model.build import LOGITS, POOLING, append_layer_output
from imagetune.model.fold_batch_norm import fold_batch_norm_layers
from imagetune.model.inference import choose_batch_size, predict_probabilities
from imagetune.model.manifest import LoadedModel

_Prediction: TypeAlias = Callable[[Batch], tuple[np.ndarray, NDArray[np.float64] | None]]
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
        predictions: The set that holds the true class with the coverage of the model's manifest, the likeliest first;
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
    predictions: tuple[str, ...] | None = None
    interval: tuple[float, float] | None = None
    out_of_distribution: bool | None = None
    out_of_distribution_score: float | None = None


def predict_images(
    loaded: LoadedModel, paths: Sequence[str], ways: DecisionRules = NO_DECISION_RULES
) -> Iterator[ImagePrediction]:
    """Yield a prediction for each path, in order, a batch at a time.

    Raises:
        ModelFileError: The manifest lacks a rule that is to be applied.
    """
    _require_rules(loaded, ways)
    records = [Record(path, label="") for path in paths]
    prediction = _build_function(loaded)
    with load_evaluation_batches(
        records,
        loaded.class_names,
        image=loaded.image,
        batch_size=choose_batch_size(loaded.model),
        workers="auto",
        max_pixels=loaded.max_pixels,
        keep_going=True,
    ) as batches:
        for batch in batches:
            yield from _predict_batch(loaded, prediction, paths, batch, ways)


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
        ModelFileError: The manifest lacks a rule that is to be applied.
    """
    predict = build_predictor(loaded, ways)
    size = choose_batch_size(loaded.model)
    for first in range(0, len(images), size):
        resized = [resize_image(image, loaded.image) for image in images[first : first + size]]
        yield from predict([f"images[{first + index}]" for index in range(len(resized))], np.stack(resized))


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
    _require_rules(loaded, ways)
    prediction = _build_function(loaded, fold_batch_norm_layers if for_many else _keep)

    def predict(names: Sequence[str], images: NDArray[np.uint8]) -> list[ImagePrediction]:
        batch = Batch(images, np.full(len(images), UNKNOWN, np.int32), np.arange(len(images)))
        return list(_predict_batch(loaded, prediction, names, batch, ways))

    return predict


def _predict_batch(
    loaded: LoadedModel, prediction: _Prediction, paths: Sequence[str], batch: Batch, ways: DecisionRules
) -> Iterator[ImagePrediction]:
    found = {index: ImagePrediction(paths[index], None, {}, what) for index, what in batch.errors}
    if len(batch.indices):
        rows, scores = prediction(batch)
        for index, row in zip(batch.indices, rows, strict=True):
            found[int(index)] = build_image_prediction(paths[index], row, loaded, ways)
        if loaded.detector is not None and scores is not None:
            flags = loaded.detector.flagged(scores)
            for index, score, flag in zip(batch.indices, scores.tolist(), flags.tolist(), strict=True):
                known = found[int(index)]
                found[int(index)] = replace(known, out_of_distribution=flag, out_of_distribution_score=score)
    # Errors and predictions of the batch together, in the order of the paths.
    yield from (found[index] for index in sorted(found))


def _keep(model: keras.Model) -> keras.Model:
    return model


def _build_function(loaded: LoadedModel, prepare: Callable[[keras.Model], keras.Model] = _keep) -> _Prediction:
    """Return a function from a batch to predictions (b, k) and out-of-distribution scores (b,); None if no detector.

    Test-time augmentation changes the predictions only: scores are those of the image itself, as they were when their
    threshold was chosen.
    """
    detector = loaded.detector
    if detector is None:
        alone = prepare(loaded.model)
        return lambda batch: (predict_probabilities(alone, [batch], tta=loaded.tta), None)
    # One forward pass gives the outputs and what the detector needs.
    both = prepare(append_layer_output(loaded.model, LOGITS if detector.rule.score == "energy" else POOLING))
    outputs = len(loaded.class_names)

    def prediction(batch: Batch) -> tuple[np.ndarray, NDArray[np.float64]]:
        seen = predict_probabilities(both, [batch])
        rows = predict_probabilities(loaded.model, [batch], tta=loaded.tta) if loaded.tta else seen[:, :outputs]
        return rows, detector.scores(seen[:, outputs:], loaded.task)

    return prediction


def build_image_prediction(
    path: str, row: np.ndarray, loaded: LoadedModel, ways: DecisionRules = NO_DECISION_RULES
) -> ImagePrediction:
    """Return the prediction for one image from the model's outputs.

    Args:
        path: Path of the image.
        row: (k,) outputs of the model.
        loaded: The model.
        ways: The decision rules of its manifest to apply.
    """
    rule = LabelRule(loaded.task, loaded.label_separator)
    outputs = np.asarray(row, np.float64)[None]
    if loaded.task == "regression":
        # Nine digits identify every float32; more would show its binary rounding.
        value = float(f"{outputs[0, 0]:.9g}")
        interval = _build_interval(value, loaded) if ways.sets else None
        return ImagePrediction(path, format_exact_number(value), {}, None, value, interval=interval)
    # As the predictions of one image, so that labels follow from the same code as in an evaluation.
    prediction = Predictions(
        (path,), np.array([UNKNOWN]), outputs, loaded.class_names, rule, np.zeros_like(outputs), loaded.thresholds
    )
    shown = np.asarray(row, np.float32)
    if ways.calibrated and loaded.temperature is not None:
        shown = apply_temperature(outputs, loaded.temperature, loaded.task)[0].astype(np.float32)
    named = {name: float(p) for name, p in zip(loaded.class_names, shown, strict=True)}
    predictions = _build_set(prediction, loaded) if ways.sets else None
    label = _choose_cheapest(outputs, loaded) if ways.min_cost else _choose_label(prediction, loaded, ways)
    return ImagePrediction(path, label, named, None, predictions=predictions)


def _choose_label(prediction: Predictions, loaded: LoadedModel, ways: DecisionRules) -> str:
    """Return the predicted label as text; thresholds apply to the model's own, uncalibrated probabilities."""
    point = loaded.operating_point if ways.operating_point else None
    if point is not None and loaded.task != "multi_label":
        return loaded.class_names[int(predict_at_operating_point(prediction, point)[0])]
    if point is not None:
        prediction = replace(prediction, thresholds=list_operating_thresholds(prediction, point))
    _, label = next(prediction.texts())
    return label


def _choose_cheapest(outputs: NDArray[np.float64], loaded: LoadedModel) -> str:
    """Return the class with the lowest expected cost, computed as in the analysis ``costs`` of evaluation.json."""
    if loaded.temperature is not None:
        outputs = apply_temperature(outputs, loaded.temperature, loaded.task)
    return loaded.class_names[int(predict_min_cost(outputs, np.array(loaded.costs, np.float64))[0])]


def _build_set(prediction: Predictions, loaded: LoadedModel) -> tuple[str, ...] | None:
    """Return the class names in the prediction set, the most probable first."""
    if loaded.conformal is None:
        return None
    held = build_prediction_sets(prediction, loaded.conformal)[0]
    order = np.argsort(-prediction.probabilities[0], kind="stable")
    return tuple(loaded.class_names[index] for index in order if held[index])


def _build_interval(value: float, loaded: LoadedModel) -> tuple[float, float] | None:
    """Return the ends of a number's prediction interval; None where validation had too few images for any."""
    if loaded.conformal is None or loaded.conformal.threshold is None:
        return None
    low, high = build_prediction_intervals(np.array([value]), loaded.conformal)
    return float(low[0]), float(high[0])


def _require_rules(loaded: LoadedModel, ways: DecisionRules) -> None:
    """Raise an error if a decision rule is to be applied that the manifest doesn't have."""
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
