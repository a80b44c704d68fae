"""A model's predictions for labelled images: computing them, and their CSV file in the run folder."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from imagetune.core.csv_tables import read_csv_rows, write_csv
from imagetune.core.path_names import format_relative_path
from imagetune.data.loading.targets import compute_median_class, encode_targets
from imagetune.data.sources.labels import (
    SINGLE_LABEL,
    LabelRule,
    format_exact_number,
    join_labels,
    name_class_column,
    parse_class_column,
    parse_number,
)
from imagetune.errors import DataError

if TYPE_CHECKING:
    import keras

    from imagetune.data.loading.image_cache import ImageCache
    from imagetune.data.sources.records import Record
    from imagetune.recipe.sections.data import ImageSettings
    from imagetune.recipe.sections.evaluate import TTATransform

HEADER = ("path", "label", "predicted")
UNKNOWN = -1
# ImageNet has 50,000 images of 1000 classes for validation.
MAX_IMAGES = 1_500_000
MAX_NUMBERS = 50_000_000
_HINT = "copy the run folder again, or evaluate the run again"
# From this many images on, a model with folded BatchNorm saves more time than building and compiling it takes.
WORTH_FOLDING = 1000


@dataclass(frozen=True)
class Predictions:
    """The model's predictions for n images and k classes, in the order of the records.

    Attributes:
        paths: Paths of the n images.
        labels: (n,) int64, index of the true class; -1 where the label is not one of the classes, and for all images
            of multi_label and regression.
        probabilities: (n, k) float64 in [0, 1]; for regression (n, 1) the predicted numbers.
        class_names: Names of the k classes; for regression the number's name.
        rule: The task, and how labels are written.
        targets: (n, k) float64 zeros and ones for multi_label, (n, 1) true numbers for regression; empty else.
        thresholds: For multi_label, the probability from which on each label is predicted; 0.5 if empty.
        unknown: For multi_label, the number of images with a label that the model doesn't know.
    """

    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    class_names: tuple[str, ...]
    rule: LabelRule = SINGLE_LABEL
    targets: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    thresholds: tuple[float, ...] = ()
    unknown: int = 0

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(n,) int64, index of the most probable class, the first one of equals; for ordinal the median class."""
        if self.rule.task == "ordinal":
            return compute_median_class(self.probabilities)
        best: NDArray[np.int64] = self.probabilities.argmax(axis=1).astype(np.int64)
        return best

    @property
    def given(self) -> NDArray[np.bool_]:
        """(n, k) bool, which labels are predicted (multi_label): those whose probability reaches their threshold."""
        chosen: NDArray[np.bool_] = self.probabilities >= np.array(self.thresholds or 0.5)
        return chosen

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield the true label and the prediction of each image as text; an unknown label is empty."""
        names = self.class_names
        if self.rule.task == "multi_label":
            for true, given in zip(self.targets >= 0.5, self.given, strict=True):
                yield self._joined(true), self._joined(given)
        elif self.rule.task == "regression":
            for value, predicted in zip(self.targets[:, 0], self.probabilities[:, 0], strict=True):
                yield format_exact_number(value), f"{predicted:.9g}"
        else:
            for label, best in zip(self.labels, self.predicted, strict=True):
                yield names[label] if label >= 0 else "", names[best]

    def _joined(self, chosen: NDArray[np.bool_]) -> str:
        return join_labels((self.class_names[index] for index in np.flatnonzero(chosen)), self.rule.separator)


def build_predictions(
    paths: Sequence[str],
    labels: Sequence[str],
    outputs: NDArray[np.float64],
    class_names: Sequence[str],
    *,
    rule: LabelRule,
    thresholds: Sequence[float] = (),
) -> Predictions:
    """Return predictions from a model's outputs (n, k) and the texts of the n true labels."""
    names = tuple(class_names)
    single = rule.task in ("single_label", "ordinal")
    known = frozenset(names)
    several = rule.task == "multi_label"
    return Predictions(
        paths=tuple(paths),
        labels=_find_indices(labels, names) if single else np.full(len(labels), UNKNOWN, np.int64),
        probabilities=outputs.reshape(len(labels), len(names)),
        class_names=names,
        rule=rule,
        targets=np.zeros((0, 0)) if single else _encode_targets(labels, names, rule),
        thresholds=tuple(thresholds),
        unknown=sum(not known.issuperset(rule.names(label)) for label in labels) if several else 0,
    )


def _encode_targets(labels: Sequence[str], names: Sequence[str], rule: LabelRule) -> NDArray[np.float64]:
    if rule.task == "regression":
        # Float32, as training has them, would lose digits of the table.
        numbers = [parse_number(label) for label in labels]
        # NaN for now: `read_predictions` refuses it with the name of the file, which isn't known here.
        return np.array([np.nan if number is None else number for number in numbers], dtype=np.float64).reshape(-1, 1)
    return encode_targets(labels, names, rule.task, separator=rule.separator).astype(np.float64)


def predict_records(  # noqa: PLR0913 - the values of a recipe, each by its name
    model: keras.Model,
    records: Sequence[Record],
    class_names: tuple[str, ...],
    *,
    image: ImageSettings,
    batch_size: int,
    workers: int | Literal["auto"],
    max_pixels: int,
    tta: Sequence[TTATransform] = (),
    rule: LabelRule = SINGLE_LABEL,
    thresholds: Sequence[float] = (),
    cache: ImageCache | None = None,
) -> Predictions:
    """Return the model's probabilities for labelled images, decoded as in training and not augmented.

    Args:
        model: Model from (batch, height, width, 3) RGB pixels 0..255 to (batch, k) probabilities.
        records: The n images; a label that is not in ``class_names`` becomes -1.
        class_names: The k classes in the order of the model's output.
        image: Size and fit of the model's input.
        batch_size: Images in a forward pass.
        workers: Number of processes that decode.
        max_pixels: Larger images are refused from their header.
        tta: Test-time augmentation: copies of each image whose probabilities are averaged with its own.
        rule: The task, and how labels are written.
        thresholds: For multi_label, the probability from which on each label is predicted.
        cache: Cache of decoded images of this size.

    Raises:
        DataError: An image vanished or can't be decoded; its path is named.
    """
    # Reading predictions.csv for a report needs neither Keras nor Grain.
    from imagetune.data.loading.pipeline import load_evaluation_batches
    from imagetune.model.fold_batch_norm import fold_batch_norm_layers
    from imagetune.model.inference import predict_probabilities

    if len(records) * (1 + len(tta)) >= WORTH_FOLDING:
        model = fold_batch_norm_layers(model)
    with load_evaluation_batches(
        records, class_names, image=image, batch_size=batch_size, workers=workers, max_pixels=max_pixels, cache=cache
    ) as batches:
        probabilities = np.asarray(predict_probabilities(model, batches, tta=tta), dtype=np.float64)
    return build_predictions(
        [record.path for record in records],
        [record.label for record in records],
        probabilities,
        class_names,
        rule=rule,
        thresholds=thresholds,
    )


def select_predictions(predictions: Predictions, places: NDArray[np.int64], class_names: Sequence[str]) -> Predictions:
    """Return the predictions for some images, with their class columns in the order of ``class_names``.

    Args:
        predictions: The predictions of n images.
        places: (m,) positions of the images to keep, 0 to n - 1.
        class_names: The classes of the predictions, in any order.
    """
    # Runs may have the same classes in another order.
    order = [predictions.class_names.index(name) for name in class_names]
    position = {old: new for new, old in enumerate(order)}
    labels = [position.get(int(label), UNKNOWN) for label in predictions.labels[places]]
    several = predictions.rule.task == "multi_label"
    targets = predictions.targets[places] if len(predictions.targets) else predictions.targets
    return replace(
        predictions,
        paths=tuple(predictions.paths[place] for place in places),
        labels=np.array(labels, np.int64),
        probabilities=predictions.probabilities[places][:, order],
        class_names=tuple(class_names),
        targets=targets[:, order] if several else targets,
        thresholds=tuple(predictions.thresholds[index] for index in order) if predictions.thresholds else (),
    )


def write_predictions(predictions: Predictions, path: Path, *, root: Path | None = None) -> None:
    """Write predictions as CSV: ``path,label,predicted`` and one column for each class's probability, or the number.

    The file is replaced atomically.

    Args:
        predictions: The predictions. An unknown label is left empty.
        path: The CSV file.
        root: Paths below it are written relative to it, so that the run folder can be read on another machine.
    """
    names = predictions.class_names
    images = zip(predictions.paths, predictions.texts(), predictions.probabilities, strict=True)
    # Nine digits give back every float32 exactly.
    rows = ([make_relative_path(path, root), *texts, *(f"{p:.9g}" for p in outputs)] for path, texts, outputs in images)
    write_csv(path, [*HEADER, *map(name_class_column, names)], rows)


def read_predictions(
    path: Path,
    *,
    rule: LabelRule = SINGLE_LABEL,
    thresholds: Sequence[float] = (),
) -> Predictions:
    """Read a file that `write_predictions` wrote.

    Args:
        path: The CSV file.
        rule: The task, and how labels are written.
        thresholds: For multi_label, the probability from which on each label is predicted.

    Raises:
        DataError: The file doesn't exist, or is not a predictions file.
    """
    try:
        # Paths may have bytes that are no UTF-8, which must come back as they were written. An empty file gets the
        # message of any other file that has no such header.
        table = read_csv_rows(path, max_rows=MAX_IMAGES)
        names = _read_class_names(next(table, []))
        paths, labels, outputs = _read_rows(table, len(names))
        found = build_predictions(paths, labels, outputs, names, rule=rule, thresholds=thresholds)
        if not np.isfinite(found.targets).all():
            raise ValueError("holds a label that is not a number")
    except FileNotFoundError as error:
        raise DataError("no such predictions file", where=str(path)) from error
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror}", where=str(path), hint=_HINT) from error
    except ValueError as error:
        raise DataError(str(error), where=str(path), hint=_HINT) from error
    return found


def _read_class_names(header: Sequence[str]) -> tuple[str, ...]:
    if tuple(header[:3]) != HEADER or len(header) < len(HEADER) + 1:
        raise ValueError(f"starts with the columns {header[:4]}; expected path,label,predicted and classes")
    names = tuple(map(parse_class_column, header[3:]))
    if len(set(names)) < len(names):
        raise ValueError("has two columns of the same class")
    return names


def _read_rows(table: Iterable[Sequence[str]], classes: int) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Return paths, labels and numbers (n, k) of the rows."""
    # Not lists: as texts or objects, the numbers would take many times as much memory.
    paths, labels, outputs = list[str](), list[str](), array("d")
    for row in table:
        if len(row) != len(HEADER) + classes:
            raise ValueError(f"holds a row without {classes} probabilities")
        if len(outputs) + classes > MAX_NUMBERS:
            raise ValueError(f"has more than {MAX_NUMBERS:,} numbers")
        outputs.extend(map(float, row[len(HEADER) :]))
        paths.append(row[0])
        labels.append(row[1])
    return paths, labels, np.frombuffer(outputs, np.float64).reshape(len(paths), classes)


def _find_indices(labels: Iterable[str], class_names: Sequence[str]) -> NDArray[np.int64]:
    position = {name: index for index, name in enumerate(class_names)}
    return np.array([position.get(label, UNKNOWN) for label in labels], dtype=np.int64)


def make_relative_path(path: str, root: Path | None) -> str:
    """Return a path relative to the images' root where it lies below the root; else the path itself."""
    return path if root is None else format_relative_path(path, root)
