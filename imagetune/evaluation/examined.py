"""What the parts of a deep evaluation look at: a trained model, and what it says of every split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imagetune.data.sources.records import Record
from imagetune.evaluation.predictions import Predictions
from imagetune.recipe.schema import Recipe

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class ExaminedSplit:
    """A split and what the model says of it, all in the order of the records.

    Attributes:
        records: n pictures.
        predictions: Of them, seen through the recipe's views.
        features: (n, d) float32, what the backbone says behind the pooling, of the pictures as they are; None where
            they would not fit into memory.
    """

    records: Sequence[Record]
    predictions: Predictions
    features: NDArray[np.float32] | None


@dataclass(frozen=True)
class Examined:
    """A trained model with its splits.

    Attributes:
        model: Raw pictures to answers; its weights are final.
        recipe: The run's.
        splits: By name: train, val, test; those that have pictures.
        root: Paths of pictures are told relative to it.
        folder: The run folder, in which ``model/`` is already written.
    """

    model: keras.Model
    recipe: Recipe
    splits: Mapping[str, ExaminedSplit]
    root: Path
    folder: Path
