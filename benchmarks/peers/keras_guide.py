"""The plain script that most people write: the two phases of Keras's transfer-learning guide.

    python benchmarks/peers/keras_guide.py FOLDER --backbone mobilenet_v3_small --epochs 10

FOLDER holds train, val and test with a folder a class in each. Images are read by `image_dataset_from_directory`, the
frozen base is called with `training=False` under pooling, dropout and a dense head; then, if asked to, everything is
trained at a small learning rate. The last line printed is JSON. All backbones but EfficientNet-Lite start from random
weights, which costs the same time.
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
import numpy as np

AUTOTUNE = -1  # tf.data.AUTOTUNE
CONSTRUCTORS = {
    "mobilenet_v3_small": "MobileNetV3Small",
    "mobilenet_v3_large": "MobileNetV3Large",
    "resnet50": "ResNet50",
    "vgg16": "VGG16",
}


class Clock(keras.callbacks.Callback):
    """Notes the seconds of each epoch's training, validation left out, and when each epoch ended with validation."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.ends: list[float] = []
        self._began = 0.0
        self._training = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start."""
        del epoch, logs
        self._began, self._training = time.perf_counter(), True

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Stop where validation begins; the final test is no epoch's."""
        del logs
        if self._training:
            self.seconds.append(time.perf_counter() - self._began)
            self._training = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note it."""
        del epoch, logs
        self.ends.append(time.perf_counter())


def main() -> None:
    """Train, test, and print JSON."""
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    train, val, test = (read_split(arguments, split) for split in ("train", "val", "test"))
    classes, images = len(train.class_names), len(train.file_paths)
    if arguments.cache:
        train, val, test = train.cache(), val.cache(), test.cache()
    if arguments.augment:
        train = augmented(train)
    train, val, test = (split.prefetch(AUTOTUNE) for split in (train, val, test))
    model, base = build(arguments, classes)
    base.trainable = False
    phases = [run_phase(model, train, val, arguments.epochs, 1e-3, images)]
    if arguments.phase2_epochs:
        base.trainable = True
        phases.append(run_phase(model, train, val, arguments.phase2_epochs, 1e-5, images))
    loss, accuracy = model.evaluate(test, verbose=0)
    if arguments.predictions:
        labels = np.concatenate([np.asarray(batch) for _, batch in test])
        np.savez(arguments.predictions, logits=model.predict(test, verbose=0), labels=labels)
    print(json.dumps({"phases": phases, "test_loss": loss, "test_accuracy": accuracy, "keras": keras.__version__}))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    names = [*(f"efficientnet_lite{number}" for number in range(3)), *CONSTRUCTORS]
    parser.add_argument("--backbone", choices=names, default=names[0])
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10, help="with the base frozen")
    parser.add_argument("--phase2-epochs", type=int, default=0, help="with everything trainable")
    parser.add_argument("--augment", action="store_true", help="random flips and rotations, by Keras's layers")
    parser.add_argument("--cache", action="store_true", help="keep decoded images in memory, as `Dataset.cache` does")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--predictions", type=Path, help="npz to write: logits and labels of the test images")
    return parser.parse_args()


def read_split(arguments: argparse.Namespace, split: str) -> Any:
    """Return a dataset of batches of float pixels 0..255 and integer labels."""
    return keras.utils.image_dataset_from_directory(
        arguments.folder / split,
        image_size=(arguments.size, arguments.size),
        batch_size=arguments.batch,
        shuffle=split == "train",
        seed=arguments.seed,
        verbose=False,
    )


def augmented(train: Any) -> Any:
    """Return the training images flipped and turned at random."""
    layers = keras.Sequential([keras.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(0.1)])
    return train.map(lambda images, labels: (layers(images, training=True), labels), num_parallel_calls=AUTOTUNE)


def build(arguments: argparse.Namespace, classes: int) -> tuple[keras.Model, keras.Model]:
    """Return the whole model and its base."""
    shape = (arguments.size, arguments.size, 3)
    inputs = keras.Input(shape)
    base, scaled = build_base(arguments.backbone, inputs)
    x = keras.layers.GlobalAveragePooling2D()(base(scaled, training=False))
    x = keras.layers.Dropout(0.2)(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(x)), base


def build_base(name: str, inputs: Any) -> tuple[keras.Model, Any]:
    """Return the base, and its input as it wants it."""
    shape = tuple(inputs.shape[1:])
    if name.startswith("efficientnet_lite"):
        return _packaged_base(name, shape[:2]), keras.layers.Rescaling(1 / 128, offset=-127 / 128)(inputs)
    base = getattr(keras.applications, CONSTRUCTORS[name])(include_top=False, weights=None, input_shape=shape)
    if name.startswith("mobilenet_v3"):  # scales by itself
        return base, inputs
    # What `preprocess_input` of both does: blue, green, red, less the means of ImageNet.
    return base, keras.layers.Normalization(mean=[103.939, 116.779, 123.68], variance=[1.0] * 3)(inputs[..., ::-1])


def _packaged_base(name: str, size: tuple[int, int]) -> keras.Model:
    """Return a backbone whose weights a package carries: the only ones to be had without a download."""
    from imagetune.model.build import build_model
    from imagetune.model.load_weights import load_weights
    from imagetune.recipe.sections.model import ModelConfig

    config = ModelConfig(backbone=name, weights="imagenet")
    whole = build_model(config, num_classes=2, image_size=size)
    load_weights(whole, config)
    return whole.get_layer(name)


def run_phase(model: keras.Model, train: Any, val: Any, epochs: int, rate: float, images: int) -> dict[str, Any]:
    """Compile and fit; return seconds, and images a second of all epochs but the first where there are several."""
    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    clock = Clock()
    started = time.perf_counter()
    history = model.fit(train, validation_data=val, epochs=epochs, callbacks=[clock], verbose=0).history
    later = clock.seconds[1:] or clock.seconds
    return {
        "epochs": epochs,
        "seconds": time.perf_counter() - started,
        "images_per_second": images * len(later) / sum(later),
        "later_epoch_seconds": (clock.ends[-1] - clock.ends[0]) / max(1, epochs - 1),
        "val_accuracy": history["val_accuracy"][-1],
    }


if __name__ == "__main__":
    main()
