"""Knowledge distillation: a teacher model whose softened probabilities another model learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.errors import RecipeError
from imagetune.model.loaded import LoadedModel

WHERE = "train.teacher.run"


@dataclass(frozen=True)
class Teacher:
    """A teacher: a model whose softened probabilities are learned from (Hinton et al. 2015, arXiv 1503.02531).

    Attributes:
        model: From (batch, height, width, 3) RGB 0..255 to (batch, k) probabilities.
        order: (k,) index of its output for each class of the student.
        temperature: Temperature of the probabilities; values above 1 soften them.
    """

    model: keras.Model
    order: NDArray[np.int64]
    temperature: float

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return softened probabilities, (batch, k) float32, in the student's order of classes.

        Args:
            images: (batch, height, width, 3) RGB 0..255 of any size; they are resized to the teacher's.
        """
        size = tuple(self.model.input_shape[1:3])
        if images.shape[1:3] != size:
            resized = keras.ops.image.resize(images.astype(np.float32), size, antialias=True)
            images = keras.ops.convert_to_numpy(resized)
        probabilities = np.asarray(self.model.predict_on_batch(images), np.float64)[:, self.order]
        soft = np.clip(probabilities, 1e-12, 1.0) ** (1.0 / self.temperature)
        softened: NDArray[np.float32] = (soft / soft.sum(axis=1, keepdims=True)).astype(np.float32)
        return softened


def make_teacher(loaded: LoadedModel, class_names: Sequence[str], temperature: float) -> Teacher:
    """Return a teacher for a student with the same classes, in any order.

    Raises:
        RecipeError: The teacher has other classes.
    """
    own = list(loaded.class_names)
    if set(own) != set(class_names):
        missing = sorted(set(class_names) - set(own)) or sorted(set(own) - set(class_names))
        what = f"the teacher has other classes: {', '.join(missing[:5])} is only on one side"
        raise RecipeError(what, where=WHERE, hint=f"its classes: {', '.join(own[:12])}")
    return Teacher(loaded.model, np.array([own.index(name) for name in class_names]), temperature)
