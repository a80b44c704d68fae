"""KerasHub's image classifier on a split folder, in two phases; for an environment with keras-hub (README.md).

    python benchmarks/peers/kerashub_script.py FOLDER --epochs 10 --preset resnet_50_imagenet

FOLDER holds train, val and test with a folder a class in each. Without a preset the backbone is a ResNet50 with random
weights, which costs the same time and needs no network. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_hub  # type: ignore[import-not-found]

AUTOTUNE = -1  # tf.data.AUTOTUNE


def main() -> None:
    """Train, test, and print JSON."""
    arguments = parse_arguments()
    keras.utils.set_random_seed(7)
    train, val, test = (read_split(arguments, split) for split in ("train", "val", "test"))
    classifier = build(arguments, len(train.class_names))
    train, val, test = (split.prefetch(AUTOTUNE) for split in (train, val, test))
    phases = []
    for trainable, epochs, rate in ((False, arguments.epochs, 1e-3), (True, arguments.phase2_epochs, 1e-5)):
        if epochs:
            classifier.backbone.trainable = trainable
            classifier.compile(
                optimizer=keras.optimizers.Adam(rate),
                loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
            )
            started = time.perf_counter()
            classifier.fit(train, validation_data=val, epochs=epochs, verbose=0)
            phases.append({"epochs": epochs, "seconds": time.perf_counter() - started})
    loss, accuracy = classifier.evaluate(test, verbose=0)
    print(json.dumps({"phases": phases, "test_loss": loss, "test_accuracy": accuracy}))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", help="name of a pretrained classifier, to be downloaded; by default random weights")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10, help="with the backbone frozen")
    parser.add_argument("--phase2-epochs", type=int, default=0, help="with everything trainable")
    return parser.parse_args()


def read_split(arguments: argparse.Namespace, split: str) -> Any:
    """Return a dataset of batches of float pixels 0..255 and integer labels."""
    return keras.utils.image_dataset_from_directory(
        arguments.folder / split,
        image_size=(arguments.size, arguments.size),
        batch_size=arguments.batch,
        shuffle=split == "train",
        seed=7,
        verbose=False,
    )


def build(arguments: argparse.Namespace, classes: int) -> Any:
    """Return the classifier with its preprocessor, from raw pixels to logits."""
    if arguments.preset:
        return keras_hub.models.ImageClassifier.from_preset(arguments.preset, num_classes=classes)
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[3, 4, 6, 3],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
        image_shape=(arguments.size, arguments.size, 3),
    )
    size = (arguments.size, arguments.size)
    converter = keras_hub.layers.ResNetImageConverter(image_size=size, scale=1 / 127.5, offset=-1.0)
    preprocessor = keras_hub.models.ResNetImageClassifierPreprocessor(image_converter=converter)
    return keras_hub.models.ResNetImageClassifier(
        backbone=backbone, num_classes=classes, preprocessor=preprocessor, dropout=0.2
    )


if __name__ == "__main__":
    main()
