"""A training loop in which every step has its own learning rates and momentum, as one-cycle and layer decay need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks.quality.peers.common import Arrays


@dataclass(frozen=True)
class Step:
    """What one update of the weights is made with.

    Attributes:
        rate: Learning rate of the fastest variables.
        beta: AdamW's momentum.
    """

    rate: float
    beta: float


@dataclass(frozen=True)
class Settings:
    """What all updates of a training share.

    Attributes:
        batch: Images a pass.
        passes: Passes whose gradients are added up for one update.
        beta_2: Decay of AdamW's second moment.
        epsilon: AdamW's.
        weight_decay: Decoupled; of kernels only.
        clip_norm: Largest norm of the whole gradient; 0 for none.
    """

    batch: int
    passes: int = 1
    beta_2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 0.0


class Trainer:
    """Trains the variables of a model that ends in logits, by AdamW written out."""

    def __init__(self, model: keras.Model, shares: dict[str, float], augment: keras.Model, settings: Settings) -> None:
        """Take a model whose ``trainable`` flags are set.

        Args:
            model: Ends in logits.
            shares: Learning rate of each variable by its path, as a share of the step's; 1 for those not named.
            augment: Applied to each batch of pixels.
            settings: Of all updates.
        """
        self.model, self.settings, self._augment = model, settings, augment
        self.variables = [weight.value for weight in model.trainable_variables]
        self._shares = [shares.get(weight.path, 1.0) for weight in model.trainable_variables]
        self._decays = [settings.weight_decay if len(value.shape) > 1 else 0.0 for value in self.variables]
        self._first = [tf.Variable(tf.zeros_like(value)) for value in self.variables]
        self._second = [tf.Variable(tf.zeros_like(value)) for value in self.variables]
        self._count = 0

    def train(self, images: Arrays, steps: Iterator[Step], *, updates: int) -> None:
        """Make updates on batches in an order that is new in every epoch, until ``updates`` are made."""
        made, gradients, passes = 0, [tf.zeros_like(value) for value in self.variables], 0
        for pixels, labels in _shuffled(images, self.settings.batch):
            found = self._gradients(pixels, labels)
            gradients = [one + other for one, other in zip(gradients, found, strict=True)]
            passes += 1
            if passes < self.settings.passes:
                continue
            step = next(steps)
            self._count += 1
            scaled = [gradient / float(passes) for gradient in gradients]
            self._update(scaled, *(tf.constant(value) for value in (step.rate, step.beta, float(self._count))))
            gradients, passes = [tf.zeros_like(value) for value in self.variables], 0
            made += 1
            if made == updates:
                return

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def _gradients(self, pixels: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
        pixels = self._augment(tf.cast(pixels, tf.float32), training=True)
        with tf.GradientTape() as tape:
            logits = self.model(pixels, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        found: list[tf.Tensor] = tape.gradient(loss, self.variables)
        return found

    @tf.function  # type: ignore[untyped-decorator]
    def _update(self, gradients: list[tf.Tensor], rate: tf.Tensor, beta: tf.Tensor, count: tf.Tensor) -> None:
        beta_2 = self.settings.beta_2
        if self.settings.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.settings.clip_norm)
        slots = zip(self.variables, gradients, self._first, self._second, self._shares, self._decays, strict=True)
        for value, gradient, first, second, share, decay in slots:
            first.assign(beta * first + (1.0 - beta) * gradient)
            second.assign(beta_2 * second + (1.0 - beta_2) * gradient * gradient)
            mean = first / (1.0 - beta**count)
            size = tf.sqrt(second / (1.0 - beta_2**count)) + self.settings.epsilon
            value.assign_sub(rate * share * (mean / size + decay * value))


def count_updates(images: int, settings: Settings) -> int:
    """Return the updates of an epoch; a batch that isn't full goes into the next epoch."""
    return max(1, images // (settings.batch * settings.passes))


def anneal(start: float, end: float, share: float) -> float:
    """Return the value at a share of the way from start to end along half a cosine."""
    return float(end + (start - end) * (1.0 + np.cos(np.pi * share)) / 2.0)


def predict_logits(model: keras.Model, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the logits (images, classes)."""
    found: NDArray[np.float32] = model.predict(pixels, batch_size=64, verbose=0)
    return found


def name_shares(groups: list[tuple[float, list[keras.Variable]]]) -> dict[str, float]:
    """Return the share of each variable by its path from groups of variables with one share each."""
    return {weight.path: share for share, weights in groups for weight in weights}


def _shuffled(images: Arrays, batch: int) -> Iterator[Arrays]:
    """Yield full batches for ever, one order of all images after the other."""
    pixels, labels = images
    order: NDArray[np.integer] = np.empty(0, np.int64)
    while True:
        while len(order) < batch:
            order = np.concatenate([order, np.random.permutation(len(labels))])
        chosen, order = order[:batch], order[batch:]
        yield pixels[chosen], labels[chosen]
