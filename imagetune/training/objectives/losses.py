"""Losses that training minimises, from logits and hard or soft labels; each gives a loss for every image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.core.plugins import LOSSES, convert_plugin_errors, load_plugin
from imagetune.recipe.sections.learning import LOSS_NAMES, LossConfig, TeacherConfig
from imagetune.recipe.solving import resolve_loss_name
from imagetune.recipe.tasks import Task

SampleLoss: TypeAlias = Callable[[Any, Any], Any]


class ImageLoss(keras.losses.Loss):
    """The mean over a batch of a loss for each image, a float32 scalar.

    Args:
        of_images: Takes targets (batch, t) and logits (batch, k), and returns losses (batch,).
    """

    def __init__(self, of_images: SampleLoss) -> None:
        super().__init__(name="loss", dtype="float32")
        self.of_images = of_images

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each image, (batch,)."""
        return self.of_images(y_true, y_pred)


def build_loss(
    config: LossConfig,
    task: Task,
    *,
    label_smoothing: float = 0.0,
    priors: NDArray[np.float64] | None = None,
    teacher: TeacherConfig | None = None,
) -> ImageLoss:
    """Return the loss that training minimises, as a function of targets and logits.

    Args:
        config: Name and settings of the loss.
        task: What a label is.
        label_smoothing: Share of each label's weight spread over all classes (Szegedy et al. 2016).
        priors: (k,) shares of the classes in training; needed for ``logit_adjustment``.
        teacher: With a teacher, targets are (batch, 2k): labels, then the teacher's softened probabilities.

    Raises:
        RecipeError: The loss is a plug-in that can't be loaded, or that fails while training.
    """
    name = resolve_loss_name(config, task)
    if name in LOSS_NAMES:
        loss = _build_named_loss(name, task, gamma=config.gamma, smoothing=label_smoothing)
    else:
        loss = _load_plugin_loss(name, task, smoothing=label_smoothing)
    if config.logit_adjustment and priors is not None:
        loss = _adjust_logits(loss, config.logit_adjustment, priors)
    return ImageLoss(_blend_with_teacher(loss, teacher) if teacher else loss)


def squared_emd(y_true: Any, y_pred: Any) -> Any:
    """Return the squared earth mover's distance of ordered classes (Hou et al. 2016, arXiv 1611.05916), (batch,).

    Args:
        y_true: (batch, k) one-hot or soft labels.
        y_pred: (batch, k) logits.
    """
    gap = keras.ops.cumsum(keras.ops.softmax(y_pred) - keras.ops.cast(y_true, "float32"), axis=-1)
    return keras.ops.sum(keras.ops.square(gap), axis=-1)


def _build_named_loss(name: str, task: Task, *, gamma: float, smoothing: float) -> SampleLoss:
    losses = keras.losses
    if name == "squared_emd":
        return lambda y, z: squared_emd(_smooth_labels(y, smoothing), z)
    if name in {"huber", "mse", "mae"}:
        numbers: dict[str, SampleLoss] = {
            "huber": losses.huber,
            "mse": losses.mean_squared_error,
            "mae": losses.mean_absolute_error,
        }
        return numbers[name]
    if task == "multi_label":
        # Focal loss with gamma 0 is plain cross-entropy.
        power = gamma if name == "focal" else 0.0
        return lambda y, z: losses.binary_focal_crossentropy(
            y, z, gamma=power, from_logits=True, label_smoothing=smoothing
        )
    if name == "focal":
        # Lin et al. 2017, arXiv 1708.02002; class weights are a setting of their own, so alpha is 1.
        return lambda y, z: losses.categorical_focal_crossentropy(
            y, z, alpha=1.0, gamma=gamma, from_logits=True, label_smoothing=smoothing
        )
    return lambda y, z: losses.categorical_crossentropy(y, z, from_logits=True, label_smoothing=smoothing)


def _load_plugin_loss(name: str, task: Task, *, smoothing: float) -> SampleLoss:
    """Return a plug-in's loss, which gets smoothed labels as the built-in ones do, and must return (batch,) losses."""
    loss = load_plugin(LOSSES, name)

    def checked(y_true: Any, logits: Any) -> Any:
        # Each label of a multi-label image is a binary decision, so its weight is spread over two outcomes.
        soft = (
            y_true * (1.0 - smoothing) + smoothing / 2 if task == "multi_label" else _smooth_labels(y_true, smoothing)
        )
        with convert_plugin_errors(LOSSES, name):
            losses = loss(soft, logits)
            if len(losses.shape) != 1:
                raise ValueError(f"it returned the shape {tuple(losses.shape)}, expected (batch,)")
        return losses

    return checked


def _smooth_labels(y_true: Any, share: float) -> Any:
    return y_true * (1.0 - share) + share / y_true.shape[-1] if share else y_true


def _adjust_logits(loss: SampleLoss, strength: float, priors: NDArray[np.float64]) -> SampleLoss:
    """Return the loss with the log priors added to the logits while training (Menon et al. 2021, arXiv 2007.07314)."""
    # A class without training images has a prior of 0, which has no logarithm.
    shift = (strength * np.log(np.maximum(priors, 1e-12))).astype(np.float32)
    return lambda y, z: loss(y, z + shift)


def _blend_with_teacher(loss: SampleLoss, teacher: TeacherConfig) -> SampleLoss:
    """Return the loss blended with cross-entropy from the teacher, times T^2 (Hinton et al. 2015, arXiv 1503.02531)."""

    def blended(y_true: Any, logits: Any) -> Any:
        classes = logits.shape[-1]
        labels, predictions = y_true[:, :classes], y_true[:, classes:]
        # Softening makes gradients smaller by 1 / T^2, which this factor makes up for.
        soft = keras.losses.categorical_crossentropy(predictions, logits / teacher.temperature, from_logits=True)
        return (1.0 - teacher.weight) * loss(labels, logits) + teacher.weight * teacher.temperature**2 * soft

    return blended
