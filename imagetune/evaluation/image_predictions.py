"""What is told of a predicted image, from a model's outputs: label, probabilities, sets, and how unlike it is.

It needs no Keras, so that the process that serves an export needs none either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from imagetune.data.sources.labels import LabelRule, format_exact_number
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
from imagetune.model.loaded import LoadedModel

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


def build_image_predictions(
    paths: Sequence[str],
    rows: np.ndarray,
    loaded: LoadedModel,
    ways: DecisionRules = NO_DECISION_RULES,
    *,
    scores: NDArray[np.float64] | None = None,
) -> list[ImagePrediction]:
    """Return the predictions for images from the model's outputs.

    Args:
        paths: Path of each of the n images.
        rows: (n, k) outputs of the model.
        loaded: The model.
        ways: The decision rules of its manifest to apply.
        scores: (n,) out-of-distribution scores by the model's detector; None without one.
    """
    found = _build_predictions(paths, rows, loaded, ways)
    if loaded.detector is None or scores is None:
        return found
    marks = zip(scores.tolist(), loaded.detector.flagged(scores).tolist(), strict=True)
    return [
        replace(one, out_of_distribution=flag, out_of_distribution_score=score)
        for one, (score, flag) in zip(found, marks, strict=True)
    ]


def _build_predictions(
    paths: Sequence[str], rows: np.ndarray, loaded: LoadedModel, ways: DecisionRules
) -> list[ImagePrediction]:
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
