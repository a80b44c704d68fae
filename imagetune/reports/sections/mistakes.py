"""The worst mistakes: the most confident wrong predictions with their images, or the largest errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imagetune.evaluation.errors.mistakes import find_mistakes, find_worst_label
from imagetune.evaluation.predictions import Predictions
from imagetune.recipe.sections.data import DataConfig
from imagetune.reports.thumbnails import make_thumbnail

THUMBNAIL_PIXELS = 208


@dataclass(frozen=True)
class Mistake:
    """A wrong prediction with its image.

    Attributes:
        path: Relative to the images' root where below it.
        true: The true class, labels, or number.
        predicted: The predicted class, labels, or number.
        note: The probability of the prediction, or its error.
        true_note: The probability of the true class.
        image: The image as a ``data:`` address; None where it can't be shown.
        problem: Why it can't be shown.
    """

    path: str
    true: str
    predicted: str
    note: str
    true_note: str
    image: str | None
    problem: str


def view_worst_mistakes(predictions: Predictions, *, root: Path, config: DataConfig, most: int) -> Iterator[Mistake]:
    """Yield the most confident wrong predictions, the most confident first; see `find_mistakes`.

    Args:
        predictions: Of one split.
        root: Where relative paths start.
        config: Background and the limit of pixels of the images.
        most: The number of mistakes at most.
    """
    texts = list(predictions.texts())
    for index in find_mistakes(predictions)[:most]:
        path = root / predictions.paths[index]
        image, problem = make_thumbnail(path, config, pixels=THUMBNAIL_PIXELS)
        true, predicted = (predictions.rule.describe(text) for text in texts[index])
        note, true_note = _format_notes(predictions, index)
        yield Mistake(
            path=str(path.relative_to(root) if path.is_relative_to(root) else path),
            true=true,
            predicted=predicted,
            note=note,
            true_note=true_note,
            image=image,
            problem=problem,
        )


def _format_notes(predictions: Predictions, index: int) -> tuple[str, str]:
    """Return the notes beside the prediction and beside the true class."""
    row = predictions.probabilities[index]
    if predictions.rule.task == "regression":
        return f"({row[0] - predictions.targets[index, 0]:+.4g})", ""
    if predictions.rule.task == "multi_label":
        worst = find_worst_label(predictions, index)
        how = "predicted" if predictions.given[index, worst] else "missed"
        threshold = (predictions.thresholds or (0.5,) * len(row))[worst]
        return f"({predictions.class_names[worst]} {how}: {row[worst]:.0%}, threshold {threshold:.0%})", ""
    return f"{row[predictions.predicted[index]]:.1%}", f"{row[predictions.labels[index]]:.1%}"
