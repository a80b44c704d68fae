"""The defaults of AutoGluon's image classifier, written from its documentation, with a greedy soup of checkpoints.

AdamW at 1e-4 with a layer decay of 0.9 over the backbone's blocks, everything trained from the start, a tenth of the
updates as warm-up and a cosine to 0, batches of 128 by adding up gradients, one random operation of random strength on
each image, validation twice an epoch, and an end after ten validations without a better one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.peers.common import Arrays, build_base, parse_arguments, read_images, write_predictions
from benchmarks.quality.peers.loop import (
    Settings,
    Step,
    Trainer,
    anneal,
    count_updates,
    name_shares,
    predict_logits,
)
from imagetune.model.backbones.table import get_backbone

RATE, LAYER_DECAY = 1e-4, 0.9
EPOCHS, CHECKS_AN_EPOCH, PATIENCE = 10, 2, 10
WARM_UP = 0.1
MEMBERS = 3
SETTINGS = Settings(batch=32, passes=4, weight_decay=1e-3, clip_norm=1.0)
Weights = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Checkpoint:
    """Weights and their validation accuracy."""

    accuracy: float
    weights: Weights


def main() -> None:
    """Train, average the best checkpoints, and predict the test images."""
    arguments = parse_arguments(__doc__)
    sides = {name: read_images(arguments.folder / name, arguments.size) for name in ("train", "val", "test")}
    base, inputs, features = build_base(arguments.backbone, arguments.size)
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    model = keras.Model(inputs, keras.layers.Dense(int(sides["train"][1].max()) + 1)(pooled))
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # PyTorch's
    best = train(model, decay_rates(base, arguments.backbone), sides["train"], sides["val"])
    make_soup(model, best, sides["val"])
    test, labels = sides["test"]
    write_predictions(arguments.predictions, labels, logits=predict_logits(model, test))


def train(model: keras.Model, shares: dict[str, float], images: Arrays, val: Arrays) -> list[Checkpoint]:
    """Return the best checkpoints, the best first."""
    updates = count_updates(len(images[1]), SETTINGS)
    trainer = Trainer(model, shares, augmentation(), SETTINGS)
    steps = warm_up_and_cosine(EPOCHS * updates)
    between = max(1, updates // CHECKS_AN_EPOCH)
    best: list[Checkpoint] = []
    since = 0
    for _ in range(EPOCHS * updates // between):
        trainer.train(images, steps, updates=between)
        found = Checkpoint(measure_accuracy(model, val), model.get_weights())
        since = 0 if not best or found.accuracy > best[0].accuracy else since + 1
        best = sorted([*best, found], key=lambda one: -one.accuracy)[:MEMBERS]
        if since >= PATIENCE:
            break
    return best


def make_soup(model: keras.Model, best: list[Checkpoint], val: Arrays) -> None:
    """Give the model the mean of the checkpoints, best first, leaving out each that lowers validation accuracy."""
    members = [best[0].weights]
    accuracy = best[0].accuracy
    for checkpoint in best[1:]:
        model.set_weights(_average([*members, checkpoint.weights]))
        together = measure_accuracy(model, val)
        if together >= accuracy:
            accuracy = together
            members.append(checkpoint.weights)
    model.set_weights(_average(members))


def _average(members: list[Weights]) -> Weights:
    return [np.mean(arrays, axis=0) for arrays in zip(*members, strict=True)]


def measure_accuracy(model: keras.Model, images: Arrays) -> float:
    """Return the share of images whose class is the most probable one."""
    pixels, labels = images
    return float((predict_logits(model, pixels).argmax(axis=1) == labels).mean())


def decay_rates(base: keras.Model, name: str) -> dict[str, float]:
    """Return the share of each variable of the backbone: the decay to the power of its block's depth from the head."""
    layers = [layer for layer in base.layers if layer.weights]
    blocks = get_backbone(name).scheme.assign([layer.name for layer in layers])
    order = list(dict.fromkeys(blocks))
    return name_shares(
        [
            (LAYER_DECAY ** (len(order) - order.index(block)), layer.weights)
            for layer, block in zip(layers, blocks, strict=True)
        ]
    )


def augmentation() -> keras.Model:
    """Return one random operation of random strength, as TrivialAugment has it."""
    return keras.Sequential([keras.layers.RandAugment(value_range=(0, 255), num_ops=1, factor=0.5)])


def warm_up_and_cosine(updates: int) -> Iterator[Step]:
    """Yield the rate of each update."""
    warm = max(1, round(WARM_UP * updates))
    for index in range(updates):
        down = (index - warm) / max(1, updates - warm)
        yield Step(RATE * (index + 1) / warm if index < warm else anneal(RATE, 0.0, down), 0.9)


if __name__ == "__main__":
    main()
