"""A model that is ready to predict, with all that its manifest says of using it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagetune.model.decision_rules import ConformalRule, OperatingPoint
from imagetune.model.out_of_distribution import Detector
from imagetune.recipe.sections.data import ImageSettings
from imagetune.recipe.sections.evaluate import TTATransform
from imagetune.recipe.sections.model import ModelConfig
from imagetune.recipe.tasks import Task

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class LoadedModel:
    """A saved model, rebuilt, with the labels, image settings and decision rules for using it.

    Attributes:
        model: From (batch, height, width, 3) uint8 RGB to (batch, classes) float32 probabilities, or (batch, 1)
            numbers.
        class_names: Name of each output.
        image: How an image file becomes the input.
        config: Backbone and head.
        max_pixels: Largest number of pixels of an image; larger ones are refused.
        sha256: SHA-256 of the weights.
        tta: Transforms whose predictions are averaged with the image's own.
        task: What a label is.
        thresholds: For multi_label: the probability from which on each label is predicted.
        label_separator: For multi_label: text between the labels of a prediction.
        temperature: What divides the logits to calibrate the probabilities; None where it is unknown.
        conformal: How prediction sets are made; None without a rule.
        operating_point: Probability from which on the class of interest is predicted; None without such a class.
        costs: Cost of each mistake, by true and predicted class; None without costs.
        detector: Out-of-distribution detector; None without one.
    """

    model: keras.Model
    class_names: tuple[str, ...]
    image: ImageSettings
    config: ModelConfig
    max_pixels: int
    sha256: str
    tta: tuple[TTATransform, ...] = ()
    task: Task = "single_label"
    thresholds: tuple[float, ...] = ()
    label_separator: str = ";"
    temperature: float | None = None
    conformal: ConformalRule | None = None
    operating_point: OperatingPoint | None = None
    costs: tuple[tuple[float, ...], ...] | None = None
    detector: Detector | None = None

    @property
    def evidence_layer(self) -> str | None:
        """Name of the head's layer whose output the detector scores; None without a detector."""
        # An export, which has no Keras model, is described by this class, too.
        from imagetune.model.build import LOGITS, POOLING

        if self.detector is None:
            return None
        return LOGITS if self.detector.rule.score == "energy" else POOLING
