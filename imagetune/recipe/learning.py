"""What shapes the loss and the weights of a training: loss, mixing, averaging, teacher."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from imagetune.core.plugins import LOSSES
from imagetune.recipe.base import NonNegative, Positive, Section
from imagetune.recipe.plugin_names import NameOf

LOSS_NAMES = ("auto", "cross_entropy", "focal", "squared_emd", "huber", "mse", "mae")
LossName = Annotated[str, NameOf(LOSSES, LOSS_NAMES)]


class LossConfig(Section):
    """What training minimises; a bare name means its defaults."""

    name: LossName = "auto"
    """`auto`: cross_entropy for classes, squared_emd for ordered ones, huber for numbers. `focal` (Lin et al. 2017)
    plays down what is already right. `mse` and `mae` are for numbers too. Or the name of a plug-in."""
    gamma: NonNegative = 2.0
    """Focusing power of focal; 0 is cross-entropy."""
    logit_adjustment: NonNegative = 0.0
    """Share of the classes' log frequencies added to the logits while training (Menon et al. 2021), against
    imbalance; 1 is the method as published, 0 switches it off."""


class MixConfig(Section):
    """Blending images of a batch, and their labels with them; a bare name means its defaults."""

    name: Literal["none", "mixup", "cutmix", "both"] = "none"
    """`mixup` (Zhang et al. 2018) blends pixels, `cutmix` (Yun et al. 2019) pastes a rectangle, `both` picks one of
    the two for each batch."""
    alpha: Positive = 0.4
    """Both parameters of the Beta distribution of the blend; larger blends more."""
    probability: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the batches that are blended."""


class AverageConfig(Section):
    """Averaged weights; a bare name means its defaults."""

    name: Literal["none", "ema", "swa"] = "none"
    """`ema`: an exponential moving average over the steps, which is validated and kept. `swa` (Izmailov et al. 2018):
    the mean of the weights at the ends of a stage's last epochs, kept if it validates better."""
    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.99
    """Share of the old average that ema keeps each step."""
    last_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of a stage's epochs that swa averages."""


class TeacherConfig(Section):
    """A finished run that teaches by its predictions (distillation, Hinton et al. 2015); a bare text is its `run`."""

    run: str
    """Its folder, runs:/ID or models:/NAME/VERSION. It must have the same classes."""
    weight: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of the loss that comes from the teacher, the labels giving the rest."""
    temperature: Positive = 2.0
    """Softens both sides' probabilities."""


class RegularisationConfig(Section):
    """What keeps the weights small or near the pretrained ones, beside the optimizer's weight decay."""

    l1: NonNegative = 0.0
    """L1 penalty on the kernels of the backbone that learn."""
    l2: NonNegative = 0.0
    """L2 penalty on the kernels of the backbone that learn."""
    l2_sp: NonNegative = 0.0
    """L2 penalty on the distance of the backbone from its pretrained weights (Li et al. 2018)."""
