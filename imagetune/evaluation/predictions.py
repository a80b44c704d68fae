"""What a model says of labelled pictures, and its file in the run folder."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from imagetune.errors import DataError
from imagetune.files import atomic_path

if TYPE_CHECKING:
    import keras

    from imagetune.data.catalog import Record
    from imagetune.recipe.data import ImageSettings

HEADER = ("path", "label", "predicted")
UNKNOWN = -1


@dataclass(frozen=True)
class Predictions:
    """The model's answers for n pictures and k classes, in the order of the records.

    Attributes:
        paths: n paths.
        labels: (n,) int64, index of the true class; -1 where the label is not one of the classes.
        probabilities: (n, k) float64 in [0, 1].
        class_names: k names.
    """

    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    class_names: tuple[str, ...]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(n,) int64, index of the most probable class; the first one of equals."""
        best: NDArray[np.int64] = self.probabilities.argmax(axis=1).astype(np.int64)
        return best


def predict_records(
    model: keras.Model,
    records: Sequence[Record],
    class_names: tuple[str, ...],
    *,
    image: ImageSettings,
    batch_size: int,
    workers: int | Literal["auto"],
    max_pixels: int,
) -> Predictions:
    """Return the model's probabilities for labelled pictures, decoded as in training and not augmented.

    Args:
        model: Takes (batch, height, width, 3) RGB pixels 0..255, gives (batch, k) probabilities.
        records: n pictures; a label that is not in ``class_names`` becomes -1.
        class_names: The k classes in the order of the model's output.
        image: Size and fit of the model's input.
        batch_size: Pictures a forward pass.
        workers: Processes that decode.
        max_pixels: Larger pictures are refused from their header.

    Raises:
        DataError: A picture vanished or can't be decoded; its path is named.
    """
    # Reading predictions.csv for a report needs neither Keras nor Grain.
    from imagetune.data.pipeline import evaluation_batches
    from imagetune.model.inference import predict_probabilities

    with evaluation_batches(
        records, class_names, image=image, batch_size=batch_size, workers=workers, max_pixels=max_pixels
    ) as batches:
        probabilities = np.asarray(predict_probabilities(model, batches), dtype=np.float64)
    return Predictions(
        paths=tuple(record.path for record in records),
        labels=_positions((record.label for record in records), class_names),
        probabilities=probabilities.reshape(len(records), len(class_names)),
        class_names=tuple(class_names),
    )


def write_predictions(predictions: Predictions, path: Path, *, root: Path | None = None) -> None:
    """Write ``path,label,predicted`` and a column of probabilities a class, atomically.

    Args:
        predictions: What to write. An unknown label is left empty.
        path: The CSV file.
        root: Paths below it are written relative to it, so that the run folder can be read on another machine.
    """
    names = predictions.class_names
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*HEADER, *names])
        rows = zip(predictions.paths, predictions.labels, predictions.predicted, predictions.probabilities, strict=True)
        for picture, label, predicted, probabilities in rows:
            true = names[label] if label >= 0 else ""
            # Nine digits give back every float32 exactly.
            writer.writerow([_told(picture, root), true, names[predicted], *(f"{p:.9g}" for p in probabilities)])


def read_predictions(path: Path) -> Predictions:
    """Read a file that `write_predictions` wrote.

    Raises:
        DataError: It is not there, or not such a file.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except FileNotFoundError as error:
        raise DataError("no such predictions file", where=str(path)) from error
    if tuple(header[:3]) != HEADER or len(header) < len(HEADER) + 1:
        raise DataError(
            f"starts with the columns {header[:4]}; expected path,label,predicted and classes", where=str(path)
        )
    names = tuple(header[3:])
    return Predictions(
        paths=tuple(row[0] for row in rows),
        labels=_positions((row[1] for row in rows), names),
        probabilities=_numbers(rows, len(names), path),
        class_names=names,
    )


def _numbers(rows: Sequence[Sequence[str]], classes: int, path: Path) -> NDArray[np.float64]:
    try:
        return np.array([row[3:] for row in rows], dtype=np.float64).reshape(len(rows), classes)
    except ValueError as error:
        raise DataError(f"holds a row without {classes} probabilities: {error}", where=str(path)) from error


def _positions(labels: Iterable[str], class_names: Sequence[str]) -> NDArray[np.int64]:
    position = {name: index for index, name in enumerate(class_names)}
    return np.array([position.get(label, UNKNOWN) for label in labels], dtype=np.int64)


def _told(path: str, root: Path | None) -> str:
    given = Path(path)
    return given.relative_to(root).as_posix() if root is not None and given.is_relative_to(root) else path
