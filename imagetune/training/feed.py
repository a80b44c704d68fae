"""Batches as Keras takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from imagetune.errors import ImagetuneError
from imagetune.recipe.learning import MixConfig
from imagetune.training.mixing import mix_batch
from imagetune.training.teacher import Teacher


@dataclass(frozen=True)
class Answers:
    """What the model should answer for each training picture.

    Attributes:
        targets: (n, t) float32, by the picture's index.
        weights: (n,) float32 weight of each picture in the loss, or None when all are 1.
        mix: Blending of pictures and labels.
        teacher: Whose answers are learned from too, or None.
        seed: Seed of the blending.
    """

    targets: NDArray[np.float32]
    weights: NDArray[np.float32] | None = None
    mix: MixConfig = field(default_factory=MixConfig)
    teacher: Teacher | None = None
    seed: int = 0


class IndexedBatch(Protocol):
    """Pictures, or their features, whose answers are known by index; ``imagetune.data.pipeline.Batch`` is one."""

    @property
    def images(self) -> NDArray[Any]:
        """(b, height, width, 3) uint8 RGB, or features (b, ...) float32."""

    @property
    def indices(self) -> NDArray[np.int64]:
        """(b,) int64, index into the records."""


class Feed:
    """Turns batches into (images, targets[, weights]) and remembers why it failed.

    TensorFlow runs a Python generator behind its own error types, which keep only the text of what went wrong.

    Args:
        batches: Batches of uint8 pictures, or of features.
        answers: What the model should say of them.
        first_step: Number of the first batch; together with the seed it decides how that batch is blended.
    """

    def __init__(self, batches: Iterable[IndexedBatch], answers: Answers, *, first_step: int = 0) -> None:
        self.batches = batches
        self.answers = answers
        self.first_step = first_step
        self.failure: ImagetuneError | None = None

    def __iter__(self) -> Iterator[tuple[NDArray[Any], ...]]:
        """Yield the batches."""
        try:
            for step, batch in enumerate(self.batches, start=self.first_step):
                yield self._prepared(batch, step)
        except ImagetuneError as error:
            self.failure = error
            raise

    def _prepared(self, batch: IndexedBatch, step: int) -> tuple[NDArray[Any], ...]:
        answers = self.answers
        images, targets = batch.images, answers.targets[batch.indices]
        weights = None if answers.weights is None else answers.weights[batch.indices]
        if answers.mix.name != "none":
            # The weights travel as one more column, so that they are blended like the labels.
            columns = targets if weights is None else np.column_stack([targets, weights])
            random = np.random.default_rng((answers.seed, step))
            images, columns = mix_batch(images, columns, answers.mix, random)
            targets, weights = (columns, None) if weights is None else (columns[:, :-1], columns[:, -1])
        if answers.teacher is not None:
            targets = np.concatenate([targets, answers.teacher.answer(images)], axis=1)
        return (images, targets) if weights is None else (images, targets, weights)
