"""The worst mistakes of a model, as pictures: wrong, and sure of it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from imagetune.data.decode import load_picture
from imagetune.errors import BadPictureError
from imagetune.evaluation.predictions import Predictions
from imagetune.recipe.data import DataConfig, ImageSettings

THUMBNAIL_PIXELS = 208
JPEG_QUALITY = 80


@dataclass(frozen=True)
class Mistake:
    """One wrong prediction.

    Attributes:
        path: Relative to the pictures' root where below it.
        true: The true class.
        predicted: The class it was taken for.
        probability: Of the predicted class.
        true_probability: Of the true class.
        image: The picture as a ``data:`` address; None where it can't be shown.
        problem: Why it can't be shown.
    """

    path: str
    true: str
    predicted: str
    probability: float
    true_probability: float
    image: str | None
    problem: str


def worst_mistakes(predictions: Predictions, *, root: Path, config: DataConfig, most: int) -> Iterator[Mistake]:
    """Yield the wrong predictions that the model was surest of, the surest first.

    Args:
        predictions: Of one split.
        root: Where relative paths start.
        config: Background and the limit of pixels of the pictures.
        most: How many at most.
    """
    labels, predicted = predictions.labels, predictions.predicted
    wrong = np.flatnonzero((labels >= 0) & (labels != predicted))
    sureness = predictions.probabilities.max(axis=1)[wrong]
    for index in wrong[np.argsort(-sureness, kind="stable")[:most]]:
        row = predictions.probabilities[index]
        path = root / predictions.paths[index]
        image, problem = _thumbnail(str(path), config)
        yield Mistake(
            path=str(path.relative_to(root) if path.is_relative_to(root) else path),
            true=predictions.class_names[labels[index]],
            predicted=predictions.class_names[predicted[index]],
            probability=float(row[predicted[index]]),
            true_probability=float(row[labels[index]]),
            image=image,
            problem=problem,
        )


def _thumbnail(path: str, config: DataConfig) -> tuple[str | None, str]:
    """Return the whole picture, small, as a data address; or None and what is wrong."""
    size = ImageSettings(height=THUMBNAIL_PIXELS, width=THUMBNAIL_PIXELS, background=config.background)
    try:
        picture = load_picture(path, size, max_pixels=config.max_pixels)
    except BadPictureError as error:
        return None, error.what
    encoded = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii"), ""
