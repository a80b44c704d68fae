"""Predictions for pictures nobody has checked: one that can't be read gets an error, the others their answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from imagetune.data.catalog import Record
from imagetune.data.pipeline import Batch, evaluation_batches
from imagetune.model.inference import predict_probabilities
from imagetune.model.manifest import LoadedModel

BATCH_SIZE = 32


@dataclass(frozen=True)
class PicturePrediction:
    """What the model says of a picture: ``label`` and ``probabilities``, or an ``error``."""

    path: str
    label: str | None
    probabilities: dict[str, float]
    error: str | None


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
        for index, row in zip(batch.indices, predict_probabilities(loaded.model, [batch]), strict=True):
            named = {name: float(p) for name, p in zip(loaded.class_names, row, strict=True)}
            label = loaded.class_names[int(row.argmax())]
            found[int(index)] = PicturePrediction(paths[index], label, named, None)
    yield from (found[index] for index in sorted(found))
