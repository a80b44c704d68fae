"""What the parts of a deep evaluation look at: a trained model, and what it says of every split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from imagetune.data.sources.records import Record
from imagetune.evaluation.predictions import Predictions
from imagetune.recipe.data import DataConfig
from imagetune.recipe.evaluate import EvaluateConfig

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
            name: Relative to the run folder.
            pixels: Of its longer side, to which it is scaled.
            heat: (rows, columns) to be drawn over it; what is positive shows, the highest value strongest.
        """


@dataclass(frozen=True)
class ExaminedSplit:
    """A split and what the model says of it, all in the order of the records.

    Attributes:
        records: n images.
        predictions: Of them, seen through the recipe's TTA transforms.
        features: (n, d) float32, what the backbone says behind the pooling, of the images as they are; None where
            they would not fit into memory.
    """

    records: Sequence[Record]
    predictions: Predictions
    features: NDArray[np.float32] | None


@dataclass(frozen=True)
class Examined:
    """A trained model with its predictions for every split, and what its recipe asks of the evaluation.

    Attributes:
        model: Raw images to predictions; its weights are final.
        data: How the images and labels are read.
        evaluate: What is asked for, and how intervals are made.
        seed: Of everything that is drawn at random.
        batch_size: Images a forward pass.
        backbone: Its name.
        fine_tuned: The backbone itself was trained, so that its features have seen the labels of training.
        splits: By name: train, val, test; those that have images.
        root: Paths of images are told relative to it.
        folder: The run folder, in which ``model/`` is already written.
        tiles: Takes images for the report.
    """

    model: keras.Model
    data: DataConfig
    evaluate: EvaluateConfig
    seed: int
    batch_size: int
    backbone: str
    fine_tuned: bool
    splits: Mapping[str, ExaminedSplit]
    root: Path
    folder: Path
    tiles: TileWriter
