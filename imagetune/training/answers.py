"""What a model whose backbone never learned says of pictures, from the features that its training has kept."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from imagetune.data.catalog import Record
from imagetune.model.backbones import Backbone
from imagetune.model.build import POOLING
from imagetune.model.halves import cut_model
from imagetune.model.inference import predict_probabilities
from imagetune.recipe.train import TrainConfig
from imagetune.recipe.unfreeze import parse_unfreeze
from imagetune.training.features import plain_features
from imagetune.training.job import Pictures


def keeps_features(train: TrainConfig) -> bool:
    """Tell whether a training leaves the backbone as it was, and may keep its features."""
    return train.cache == "auto" and all(
        parse_unfreeze(stage.unfreeze).nothing and stage.cache != "off" for stage in train.stages
    )


def answers_from_features(
    model: keras.Model, backbone: Backbone, records: Sequence[Record], pictures: Pictures, *, batch_size: int
) -> np.ndarray:
    """Return what a model says of pictures, computing and keeping the features that aren't there yet.

    Args:
        model: Made by ``build_model``; pictures of the final size.
        backbone: What it is built on.
        records: Any pictures.
        pictures: How they are read, and their hashes.
        batch_size: Pictures a batch.

    Returns:
        (n, k) float32 outputs of the whole model, in the order of the records.

    Raises:
        DataError: A picture vanished.
    """
    halves = cut_model(model, backbone, POOLING)
    if halves is None:  # the pooling is always the only way
        raise ValueError(f"the model can't be cut behind {POOLING}")
    return predict_probabilities(halves.answers, plain_features(halves, records, pictures, batch_size=batch_size))
