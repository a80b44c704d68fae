"""What a short fit does, as somebody would write it in an hour: what `benchmarks/start.py` compares with.

    python benchmarks/peers/bare_script.py FOLDER --out FOLDER [--size 64] [--batch 16]

FOLDER holds train/, val/ and test/ with a folder a class. A frozen backbone with random weights and a new head learn
for one epoch; validation, a test, and the model as a file.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras


def main() -> None:
    """Train, test and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(7)
    train, val, test = (
        keras.utils.image_dataset_from_directory(
            arguments.folder / side,
            label_mode="categorical",
            image_size=(arguments.size, arguments.size),
            batch_size=arguments.batch,
            shuffle=side == "train",
            verbose=False,
        )
        for side in ("train", "val", "test")
    )
    classes = len(train.class_names)
    model = build(arguments.size, classes)
    model.compile(
        keras.optimizers.AdamW(1e-3), "categorical_crossentropy", metrics=["accuracy", keras.metrics.F1Score("macro")]
    )
    history = model.fit(train, validation_data=val, epochs=1, verbose=2)
    metrics = {"history": history.history, "test": model.evaluate(test, return_dict=True, verbose=0)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "metrics.json").write_text(json.dumps(metrics, default=lambda value: value.tolist()))
    model.save(arguments.out / "model.keras")


def build(size: int, classes: int) -> keras.Model:
    """Return a frozen MobileNetV3Small with random weights, and a head."""
    backbone = keras.applications.MobileNetV3Small(
        input_shape=(size, size, 3), include_top=False, weights=None, pooling="avg"
    )
    backbone.trainable = False
    images = keras.Input((size, size, 3))
    features = keras.layers.Dropout(0.2)(backbone(images, training=False))
    return keras.Model(images, keras.layers.Dense(classes, activation="softmax")(features))


if __name__ == "__main__":
    main()
