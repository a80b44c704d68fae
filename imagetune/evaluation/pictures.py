"""Predictions for pictures nobody has checked: one that can't be read gets an error, the others their answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imagetune.data.decode import load_picture
from imagetune.data.pipeline import Batch
from imagetune.errors import BadPictureError
from imagetune.model.inference import predict_probabilities
from imagetune.model.manifest import LoadedModel

BATCH_SIZE = 32
READERS = 4


@dataclass(frozen=True)
class PicturePrediction:
    """What the model says of a picture: ``label`` and ``probabilities``, or an ``error``."""

    path: str
    label: str | None
    probabilities: dict[str, float]
    error: str | None


def predict_pictures(loaded: LoadedModel, paths: Sequence[str]) -> Iterator[PicturePrediction]:
    """Yield a prediction for each path, in order, a batch at a time."""
    with ThreadPoolExecutor(READERS) as readers:
        for chunk in _chunks(paths):
            pictures = list(readers.map(lambda path: _load(loaded, path), chunk))
            yield from _predict_chunk(loaded, chunk, pictures)


def _chunks(paths: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(paths), BATCH_SIZE):
        yield tuple(paths[start : start + BATCH_SIZE])


def _load(loaded: LoadedModel, path: str) -> NDArray[np.uint8] | BadPictureError:
    try:
        return load_picture(path, loaded.image, max_pixels=loaded.max_pixels)
    except BadPictureError as error:
        return error


def _predict_chunk(
    loaded: LoadedModel, paths: Sequence[str], pictures: Sequence[NDArray[np.uint8] | BadPictureError]
) -> Iterator[PicturePrediction]:
    readable = [picture for picture in pictures if not isinstance(picture, BadPictureError)]
    rows = iter(_probabilities(loaded, readable))
    for path, picture in zip(paths, pictures, strict=True):
        if isinstance(picture, BadPictureError):
            yield PicturePrediction(path, None, {}, picture.what)
            continue
        row = next(rows)
        named = {name: float(p) for name, p in zip(loaded.class_names, row, strict=True)}
        yield PicturePrediction(path, loaded.class_names[int(row.argmax())], named, None)


def _probabilities(loaded: LoadedModel, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    if not pictures:
        return np.zeros((0, len(loaded.class_names)), dtype=np.float32)
    unknown = np.full(len(pictures), -1, dtype=np.int32)
    batch = Batch(np.stack(pictures), unknown, np.arange(len(pictures), dtype=np.int64))
    return predict_probabilities(loaded.model, [batch])
