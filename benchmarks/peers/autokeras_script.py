"""AutoKeras's image classifier on a split folder; for an environment with AutoKeras 3.0 and Keras 3.12 (README.md).

    python benchmarks/peers/autokeras_script.py FOLDER --size 96 --trials 1 --epochs 10

FOLDER holds train, val and test with a folder a class in each. AutoKeras takes arrays, so all images are in memory.
Its first trial is a small network of its own, its second a ResNet50 from random weights, both at no cost in downloads;
the third fetches an EfficientNetB7. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import autokeras  # type: ignore[import-not-found]
import keras
import numpy as np


def main() -> None:
    """Search, test, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--trials", type=int, default=1, help="networks to try")
    parser.add_argument("--epochs", type=int, default=10, help="of each trial, and of the last training of the best")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(7)
    (images, labels), val, test = (read_split(arguments, split) for split in ("train", "val", "test"))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        classifier = autokeras.ImageClassifier(max_trials=arguments.trials, directory=folder, overwrite=True, seed=7)
        classifier.fit(
            images, labels, validation_data=val, epochs=arguments.epochs, batch_size=arguments.batch, verbose=0
        )
        seconds = time.perf_counter() - started
        loss, accuracy = classifier.evaluate(*test, verbose=0)
        parameters = classifier.export_model().count_params()
    print(json.dumps({"seconds": seconds, "test_loss": loss, "test_accuracy": accuracy, "parameters": parameters}))


def read_split(arguments: argparse.Namespace, split: str) -> tuple[Any, Any]:
    """Return images ``(n, size, size, 3)`` uint8 and class numbers ``(n, 1)``: it refuses flat ones."""
    dataset = keras.utils.image_dataset_from_directory(
        arguments.folder / split, image_size=(arguments.size, arguments.size), batch_size=256, seed=7, verbose=False
    )
    batches = [(images.numpy(), labels.numpy()) for images, labels in dataset]
    images, labels = (np.concatenate(side) for side in zip(*batches, strict=True))
    return images.astype(np.uint8), labels[:, None]


if __name__ == "__main__":
    main()
