"""The training image that is most alike, for whoever wants to know what a prediction leans on.

A run keeps no training images, and a server that shows them gives them to everybody who may ask it. So they are shown
only where that was asked for, and only those that are still where the training found them; nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.data.loading.decode import load_image
from imagetune.data.sources.labels import build_label_rule
from imagetune.data.sources.records import Record
from imagetune.data.splits.splits import read_splits_csv
from imagetune.errors import BadImageError
from imagetune.evaluation.features.feature_models import find_nearest
from imagetune.model.build import POOLING, append_layer_output
from imagetune.model.loaded import LoadedModel
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.sections.data import DataConfig
from imagetune.reports.thumbnails import make_thumbnail
from imagetune.run_folder.folder import RunFolder
from imagetune.run_folder.reader import find_images_root

MAX_IMAGES = 256
"""Training images that are compared, a few seconds of the model's time at the server's start."""
_PIXELS = 192
_BATCH = 16


@dataclass(frozen=True)
class TrainingImages:
    """A sample of a run's training images, as many of each label as there are, that can be compared with others.

    Attributes:
        data: The recipe's data section.
        records: The n images.
        features: (n, d) float32 features.
        model: From images to the model's outputs and the features beside them.
        outputs: Number of outputs.
    """

    data: DataConfig
    records: Sequence[Record]
    features: NDArray[np.float32]
    model: keras.Model
    outputs: int

    def find(self, image: NDArray[np.uint8]) -> dict[str, Any] | None:
        """Return the image of the sample that is nearest to an image by the cosine similarity of their features.

        Args:
            image: (height, width, 3) uint8 RGB of the model's size.

        Returns:
            ``label``, ``similarity`` in [-1, 1] and ``thumbnail``, a JPEG as a ``data:`` address; None where the file
            can't be read any more.
        """
        places, cosines = find_nearest(_compute_features(self.model, self.outputs, image[None]), self.features, 1)
        record = self.records[places[0, 0]]
        thumbnail, _ = make_thumbnail(record.path, self.data, pixels=_PIXELS)
        label = build_label_rule(self.data).describe(record.label)
        if thumbnail is None:
            return None
        return {"label": label, "similarity": float(cosines[0, 0]), "thumbnail": thumbnail}


def read_training_images(folder: RunFolder, loaded: LoadedModel) -> TrainingImages | None:
    """Return a sample of a run's training images, with their features; None where none of them can be read.

    Raises:
        DataError: splits.csv is missing, or isn't what imagetune writes.
        RecipeError: recipe.yaml can't be read.
    """
    recipe = load_recipe(folder.recipe).recipe
    root = find_images_root(recipe.data.source)
    splits = read_splits_csv(folder.splits, root=root, class_names=loaded.class_names)
    order = np.random.default_rng(recipe.seed).permutation(len(splits.train))
    model, outputs = append_layer_output(loaded.model, POOLING), len(loaded.class_names)
    # Of a table of a million files that are gone, not all are tried.
    tried = islice(_take_turns([splits.train[index] for index in order]), 2 * MAX_IMAGES)
    read = list(islice(_read(tried, loaded), MAX_IMAGES))
    if not read:
        return None
    parts = [np.stack([image for _, image in read[first : first + _BATCH]]) for first in range(0, len(read), _BATCH)]
    features = np.concatenate([_compute_features(model, outputs, part) for part in parts])
    return TrainingImages(recipe.data, [record for record, _ in read], features, model, outputs)


def _take_turns(records: Sequence[Record]) -> Iterator[Record]:
    """Yield one image of each label after another, so that rare labels aren't missed."""
    by_label: dict[str, list[Record]] = {}
    for record in records:
        by_label.setdefault(record.label, []).append(record)
    return (record for record in chain.from_iterable(zip_longest(*by_label.values())) if record is not None)


def _read(records: Iterator[Record], loaded: LoadedModel) -> Iterator[tuple[Record, NDArray[np.uint8]]]:
    for record in records:
        try:
            yield record, load_image(record.path, loaded.image, max_pixels=loaded.max_pixels)
        except BadImageError:
            continue


def _compute_features(model: keras.Model, outputs: int, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    found = keras.ops.convert_to_numpy(model(images, training=False))[:, outputs:]
    return np.asarray(found, np.float32)
