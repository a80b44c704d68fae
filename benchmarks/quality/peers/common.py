"""What all peers share: their command line, how they read images, the backbone, and what they write."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.model.build import POOLING, build_model
from imagetune.model.load_weights import load_weights
from imagetune.recipe.sections.model import ModelConfig

Arrays = tuple[NDArray[Any], NDArray[Any]]


def parse_arguments(description: str | None) -> argparse.Namespace:
    """Return the command line of a peer, with Keras seeded."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with train, val and test, a folder a class in each")
    parser.add_argument("--predictions", type=Path, required=True, help="npz to write: logits or probabilities, labels")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=160, help="side of the images in pixels")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    return arguments


def read_images(folder: Path, size: int) -> Arrays:
    """Return the images of a folder, uint8 (images, size, size, 3), and their labels, in the order of names."""
    batches = keras.utils.image_dataset_from_directory(
        folder, image_size=(size, size), batch_size=64, shuffle=False, verbose=False
    )
    pixels, labels = zip(*((np.rint(x).astype(np.uint8), np.asarray(y)) for x, y in batches), strict=True)
    return np.concatenate(pixels), np.concatenate(labels)


def build_base(name: str, size: int) -> tuple[keras.Model, Any, Any]:
    """Return a pretrained backbone, the model's input (pixels 0 to 255), and the backbone's feature map."""
    config = ModelConfig(backbone=name, weights="imagenet")
    whole = build_model(config, num_classes=2, image_size=(size, size))
    load_weights(whole, config)
    return whole.get_layer(name), whole.input, whole.get_layer(POOLING).input


def compute_features(arguments: argparse.Namespace) -> dict[str, Arrays]:
    """Return the average-pooled features (images, channels) and labels of each split."""
    _, inputs, output = build_base(arguments.backbone, arguments.size)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(output))
    found = {}
    for split in ("train", "val", "test"):
        pixels, labels = read_images(arguments.folder / split, arguments.size)
        found[split] = (model.predict(pixels, batch_size=64, verbose=0), labels)
    return found


def write_predictions(path: Path, labels: NDArray[Any], **values: NDArray[Any]) -> None:
    """Write labels (images,) beside ``logits`` or ``probabilities`` (images, classes)."""
    np.savez(path, allow_pickle=False, labels=labels, **values)
