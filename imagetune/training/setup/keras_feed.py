"""Input to Keras: batches of images or features joined with targets and weights, mixed and with a teacher."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from imagetune.errors import ImagetuneError
from imagetune.recipe.sections.learning import MixConfig
from imagetune.training.objectives.distillation import Teacher
from imagetune.training.objectives.mixing import mix_batch


@dataclass(frozen=True)
class TrainingTargets:
    """Targets and loss weights of all training images, with the mixing and the teacher that change them.

    Attributes:
        targets: (n, t) float32 targets, by the image's index.
        weights: (n,) float32 weight of each image in the loss, or None when all are 1.
        mix: Mixup or CutMix of images and labels.
        teacher: Model whose predictions are learned from too, or None.
        seed: Random seed of the mixing.
    """

    targets: NDArray[np.float32]
    weights: NDArray[np.float32] | None = None
    mix: MixConfig = field(default_factory=MixConfig)
    teacher: Teacher | None = None
    seed: int = 0


class IndexedBatch(Protocol):
    """A batch of images or features with their indices; ``imagetune.data.loading.pipeline.Batch`` is one."""

    @property
    def images(self) -> NDArray[Any]:
        """(b, height, width, 3) uint8 RGB, or features (b, ...) float32."""

    @property
    def indices(self) -> NDArray[np.int64]:
        """(b,) int64, index into the records."""


class Feed:
    """Iterable of (images, targets[, weights]) for Keras, which keeps the error that ended it.

    TensorFlow runs a Python generator behind its own error types, which keep only the text of an error.

    Args:
        batches: Batches of uint8 images, or of features.
        targets: Targets of all training images.
        first_step: Number of the first batch; together with the seed it decides how that batch is mixed.
    """

    def __init__(self, batches: Iterable[IndexedBatch], targets: TrainingTargets, *, first_step: int = 0) -> None:
        self.batches = batches
        self.targets = targets
        self.first_step = first_step
        self.failure: ImagetuneError | None = None

    def __iter__(self) -> Iterator[tuple[NDArray[Any], ...]]:
        """Yield tuples (images, targets (b, t) float32[, weights (b,) float32]).

        Raises:
            ImagetuneError: The batches failed; the error is also kept in ``failure``.
        """
        try:
            for step, batch in enumerate(self.batches, start=self.first_step):
                yield self._prepare(batch, step)
        except ImagetuneError as error:
            self.failure = error
            raise

    def _prepare(self, batch: IndexedBatch, step: int) -> tuple[NDArray[Any], ...]:
        known = self.targets
        images, targets = batch.images, known.targets[batch.indices]
        weights = None if known.weights is None else known.weights[batch.indices]
        if known.mix.name != "none":
            # The weights are one more column of the targets, so that they are blended like the labels.
            columns = targets if weights is None else np.column_stack([targets, weights])
            # Seeded by the step, so that a training that is resumed mixes as an uninterrupted one does.
            random = np.random.default_rng((known.seed, step))
            images, columns = mix_batch(images, columns, known.mix, random)
            targets, weights = (columns, None) if weights is None else (columns[:, :-1], columns[:, -1])
        if known.teacher is not None:
            # After mixing: the teacher predicts the images that the model sees.
            targets = np.concatenate([targets, known.teacher.predict(images)], axis=1)
        return (images, targets) if weights is None else (images, targets, weights)
