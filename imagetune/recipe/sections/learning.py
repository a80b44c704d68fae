"""Sub-sections of ``train``: loss, mixup and CutMix, weight averaging, distillation and weight penalties."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from imagetune.core.plugins import LOSSES
from imagetune.recipe.plugin_names import NameOf
from imagetune.recipe.sections.base import NonNegative, Positive, Section

LOSS_NAMES = ("auto", "cross_entropy", "focal", "squared_emd", "huber", "mse", "mae")
LossName = Annotated[str, NameOf(LOSSES, LOSS_NAMES)]


class LossConfig(Section):
    """Loss that training minimises; a bare name means its defaults."""

    name: LossName = "auto"
    """Name of the loss, or of a plug-in. `auto` is cross_entropy for classes, squared_emd for ordered classes and huber
    for numbers. `focal` (Lin et al. 2017) gives less weight to images that are already predicted correctly. `mse` and
    `mae` are for numbers too."""
    gamma: NonNegative = 2.0
    """Focusing parameter of focal, 0 or more; 0 is cross-entropy."""
    logit_adjustment: NonNegative = 0.0
    """Logit adjustment against class imbalance (Menon et al. 2021): the share of the classes' log frequencies that is
    added to the logits while training. 1 is the method as published, 0 switches it off."""


class MixConfig(Section):
    """Mixup and CutMix: blending of images and labels in a batch; a bare name means its defaults."""

    # Mixup lost 4.6 points on small image sets, CutMix 8.4 (docs/strategies.md).
    name: Literal["none", "mixup", "cutmix", "both"] = "none"
    """Kind of blending: `mixup` (Zhang et al. 2018) blends pixels, `cutmix` (Yun et al. 2019) pastes a rectangle,
    `both` draws one of the two at random for each batch."""
    alpha: Positive = 0.4
    """Both parameters of the Beta distribution of the blending share, above 0; larger ones blend more."""
    probability: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the batches that are blended, above 0 and up to 1."""


class AverageConfig(Section):
    """Weight averaging; a bare name means its defaults."""

    # Neither kind made a clear difference on small image sets (docs/strategies.md).
    name: Literal["none", "ema", "swa"] = "none"
    """Kind of averaging. `ema`: an exponential moving average over the steps, which is validated and kept. `swa`
    (Izmailov et al. 2018): the mean of the weights at the ends of a stage's last epochs, kept if it validates
    better."""
    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.99
    """Decay of ema: the share of the old average that each step keeps, between 0 and 1."""
    last_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of a stage's epochs, counted from its end, that swa averages; above 0 and up to 1."""


class TeacherConfig(Section):
    """Distillation (Hinton et al. 2015) from the predictions of a finished run; a bare text is its `run`."""

    run: str
    """The teacher: a run folder, runs:/ID or models:/NAME/VERSION. It must have the same classes."""
    weight: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of the loss that comes from the teacher, above 0 and up to 1; the rest comes from the labels."""
    temperature: Positive = 2.0
    """Temperature of both models' probabilities, above 0; values above 1 soften them."""


class RegularisationConfig(Section):
    """Penalties on the trained weights of the backbone, beside the optimizer's weight decay."""

    l1: NonNegative = 0.0
    """Strength of the L1 penalty on the backbone's trainable kernels, 0 or more; 0 switches it off."""
    l2: NonNegative = 0.0
    """Strength of the L2 penalty on the backbone's trainable kernels, 0 or more; 0 switches it off."""
    l2_sp: NonNegative = 0.0
    """Strength of the L2 penalty on the backbone's distance from its pretrained weights (L2-SP, Li et al. 2018), 0 or
    more; 0 switches it off."""
