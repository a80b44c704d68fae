"""Predictions for pictures nobody has checked: one that can't be read gets an error, the others their answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from imagetune.data.catalog import Record
from imagetune.data.labels import LabelRule, number_text
from imagetune.data.pipeline import Batch, evaluation_batches
from imagetune.evaluation.predictions import UNKNOWN, Predictions
from imagetune.model.inference import predict_probabilities
from imagetune.model.manifest import LoadedModel

BATCH_SIZE = 32


@dataclass(frozen=True)
class PicturePrediction:
    """What the model says of a picture: ``label`` and ``probabilities``, or an ``error``.

    Attributes:
        path: The picture.
        label: The class; for multi_label the labels that reach their thresholds, joined, perhaps none; for regression
            the number's text. None where the picture can't be read.
        probabilities: Of each class; empty for regression.
        error: Why the picture can't be read, or None.
        value: The number, for regression.
    """

    path: str
    label: str | None
    probabilities: dict[str, float]
    error: str | None
    value: float | None = None


def predict_pictures(loaded: LoadedModel, paths: Sequence[str]) -> Iterator[PicturePrediction]:
    """Yield a prediction for each path, in order, a batch at a time."""
    records = [Record(path, label="") for path in paths]
    with evaluation_batches(
        records,
        loaded.class_names,
        image=loaded.image,
        batch_size=BATCH_SIZE,
        workers="auto",
        max_pixels=loaded.max_pixels,
        keep_going=True,
    ) as batches:
        for batch in batches:
            yield from _predict_batch(loaded, paths, batch)


def _predict_batch(loaded: LoadedModel, paths: Sequence[str], batch: Batch) -> Iterator[PicturePrediction]:
    found = {index: PicturePrediction(paths[index], None, {}, what) for index, what in batch.errors}
    if len(batch.indices):
        rows = predict_probabilities(loaded.model, [batch], views=loaded.views)
        for index, row in zip(batch.indices, rows, strict=True):
            found[int(index)] = picture_prediction(paths[index], row, loaded)
    yield from (found[index] for index in sorted(found))


def picture_prediction(path: str, row: np.ndarray, loaded: LoadedModel) -> PicturePrediction:
    """Return what a model says of one picture.

    Args:
        path: The picture.
        row: (k,) the model's outputs.
        loaded: The model.
    """
    rule = LabelRule(loaded.task, loaded.label_separator)
    outputs = np.asarray(row, np.float64)[None]
    if loaded.task == "regression":
        # Nine digits are what float32 has.
        value = float(f"{outputs[0, 0]:.9g}")
        return PicturePrediction(path, number_text(value), {}, None, value)
    answer = Predictions(
        (path,), np.array([UNKNOWN]), outputs, loaded.class_names, rule, np.zeros_like(outputs), loaded.thresholds
    )
    _, label = next(answer.texts())
    named = {name: float(p) for name, p in zip(loaded.class_names, row, strict=True)}
    return PicturePrediction(path, label, named, None)
