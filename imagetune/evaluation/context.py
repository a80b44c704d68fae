"""The context of an evaluation: a trained model, its predictions for every split, and the recipe's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from imagetune.data.sources.records import Record
from imagetune.evaluation.predictions import Predictions
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.evaluate import EvaluateConfig

if TYPE_CHECKING:
    import keras


class TileWriter(Protocol):
    """Writes the images that the report shows of an evaluation, so that evaluation itself draws nothing."""

    def clear(self, folder: str) -> None:
        """Remove what an earlier evaluation left in a folder below the run folder."""

    def write(
        self, image: NDArray[np.uint8], name: str, *, pixels: int, heat: NDArray[np.float32] | None = None
    ) -> str:
        """Write an image, and return its name below the run folder.

        Args:
            image: (height, width, 3) uint8, RGB.
            name: File name relative to the run folder.
            pixels: Length of the longer side that the image is scaled to.
            heat: (rows, columns) heat map to draw over it; only positive values show, the highest strongest.
        """


@dataclass(frozen=True)
class EvaluatedSplit:
    """A split with the model's predictions and features, all in the order of the records.

    Attributes:
        records: The n images.
        predictions: Their predictions, averaged over the recipe's test-time augmentation (TTA).
        features: (n, d) float32 backbone features after pooling, of the images without augmentation; None where they
            would not fit into memory.
    """

    records: Sequence[Record]
    predictions: Predictions
    features: NDArray[np.float32] | None


@dataclass(frozen=True)
class EvaluationContext:
    """The evaluation context: a trained model, its predictions for every split, and the recipe's settings.

    Attributes:
        model: Model from raw images to predictions; its weights are final.
        data: The recipe's data section: how images and labels are read.
        evaluate: The recipe's evaluate section: which analyses are wanted, and how intervals are made.
        seed: Seed of everything that is drawn at random.
        batch_size: Images in a forward pass.
        backbone: Name of the backbone.
        fine_tuned: Whether the backbone itself was trained, so that its features have learned the training labels.
        splits: Splits that have images, by name: train, val, test.
        root: Folder that paths of images are written relative to.
        folder: The run folder, in which ``model/`` is already written.
        tiles: Writer of images for the report.
    """

    model: keras.Model
    data: DataConfig
    evaluate: EvaluateConfig
    seed: int
    batch_size: int
    backbone: str
    fine_tuned: bool
    splits: Mapping[str, EvaluatedSplit]
    root: Path
    folder: Path
    tiles: TileWriter
