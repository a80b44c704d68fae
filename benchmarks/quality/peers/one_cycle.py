"""The default of fastai's `fine_tune`, written from its documentation: one cycle with a frozen body, then one with all.

The head with concatenated pooling and a hidden layer of 512, BatchNorm trained even where the body is frozen, AdamW
with a cycle of rate and momentum, the body's two halves at a hundredth and a tenth of the head's rate, batches of 64,
flips, turns, zoom and lighting. Its number of epochs is the caller's there; here it is that of the plain script's
second phase.
"""

from __future__ import annotations

from collections.abc import Iterator

import keras

from benchmarks.quality.peers.common import build_base, parse_arguments, read_images, write_predictions
from benchmarks.quality.peers.loop import (
    Settings,
    Step,
    Trainer,
    anneal,
    count_updates,
    name_shares,
    predict_logits,
)

BASE_RATE = 2e-3
FREEZE_EPOCHS, EPOCHS = 1, 10
RATE_RATIO = 100.0
FINAL_DIVISOR = 1e5
MOMENTA = (0.95, 0.85)
SETTINGS = Settings(batch=64, beta_2=0.99, epsilon=1e-5, weight_decay=0.01)


def main() -> None:
    """Train and predict the test images."""
    arguments = parse_arguments(__doc__)
    pixels, labels = read_images(arguments.folder / "train", arguments.size)
    base, inputs, features = build_base(arguments.backbone, arguments.size)
    model = keras.Model(inputs, add_head(features, int(labels.max()) + 1))
    updates = count_updates(len(labels), SETTINGS)
    freeze(base)
    Trainer(model, {}, augmentation(), SETTINGS).train(
        (pixels, labels), cycle(FREEZE_EPOCHS * updates, BASE_RATE, rise=0.99, divisor=25.0), updates=updates
    )
    base.trainable = True
    for layer in base.layers:
        layer.trainable = True
    trainer = Trainer(model, split_rates(base), augmentation(), SETTINGS)
    steps = cycle(EPOCHS * updates, BASE_RATE / 2, rise=0.3, divisor=5.0)
    trainer.train((pixels, labels), steps, updates=EPOCHS * updates)
    test, labels = read_images(arguments.folder / "test", arguments.size)
    write_predictions(arguments.predictions, labels, logits=predict_logits(model, test))


def add_head(features: object, classes: int) -> object:
    """Return the logits of fastai's head for a feature map."""
    layers = keras.layers
    pooled = [layers.GlobalMaxPooling2D()(features), layers.GlobalAveragePooling2D()(features)]
    x = _normalise(layers.Concatenate()(pooled))
    x = layers.Dense(512, use_bias=False, kernel_initializer="he_normal")(layers.Dropout(0.25)(x))
    x = _normalise(layers.Activation("relu")(x))
    return layers.Dense(classes, use_bias=False, kernel_initializer="he_normal")(layers.Dropout(0.5)(x))


def _normalise(x: object) -> object:
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def freeze(base: keras.Model) -> None:
    """Freeze all layers but BatchNorm, which keeps PyTorch's momentum."""
    for layer in base.layers:
        normalises = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = normalises
        if normalises:
            layer.momentum = 0.9


def split_rates(base: keras.Model) -> dict[str, float]:
    """Return the share of the head's rate of each variable of the body, in two halves, spaced geometrically."""
    layers = [layer for layer in base.layers if layer.weights]
    halves = layers[: len(layers) // 2], layers[len(layers) // 2 :]
    shares = 1.0 / RATE_RATIO, RATE_RATIO**-0.5
    pairs = zip(shares, halves, strict=True)
    return name_shares([(share, [w for layer in half for w in layer.weights]) for share, half in pairs])


def augmentation() -> keras.Model:
    """Return layers like the defaults of fastai's `aug_transforms`, without the perspective, which Keras lacks."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(10 / 360, fill_mode="reflect"),
            layers.RandomZoom((-0.1, 0.0), fill_mode="reflect"),
            layers.RandomBrightness(0.1),
            layers.RandomContrast(0.2),
        ]
    )


def cycle(updates: int, top: float, *, rise: float, divisor: float) -> Iterator[Step]:
    """Yield each update's rate, from top / divisor to top and down to nothing, and momentum the other way."""
    for index in range(updates):
        share = index / max(1, updates - 1)
        if share < rise:
            rate = anneal(top / divisor, top, share / rise)
            yield Step(rate, anneal(MOMENTA[0], MOMENTA[1], share / rise))
        else:
            down = (share - rise) / (1.0 - rise)
            yield Step(anneal(top, top / FINAL_DIVISOR, down), anneal(MOMENTA[1], MOMENTA[0], down))


if __name__ == "__main__":
    main()
