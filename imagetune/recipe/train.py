"""The ``train`` section: stages, optimizer, schedule and when to stop."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from imagetune.recipe.base import (
    Fraction,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    Section,
    Sequence,
)
from imagetune.recipe.data import Augmentation, ImageSize
from imagetune.recipe.learning import AverageConfig, LossConfig, MixConfig, RegularisationConfig, TeacherConfig
from imagetune.recipe.metrics import EpochMetric
from imagetune.recipe.presets import expand_stages
from imagetune.recipe.unfreeze import parse_unfreeze

DEFAULT_BATCH = 32


class OptimizerConfig(Section):
    """A Keras optimizer and its own settings; a bare name means its defaults."""

    name: Literal["adamw", "adam", "sgd", "rmsprop", "lion"] = "adamw"
    """The algorithm."""
    weight_decay: NonNegative = 0.0001
    """Decoupled weight decay on kernels; never on biases, normalisation and scales."""
    momentum: Fraction = 0.9
    """Momentum of sgd and rmsprop."""
    nesterov: bool = True
    """Nesterov momentum of sgd."""
    beta_1: Fraction = 0.9
    """Decay of the first moment of adam, adamw and lion."""
    beta_2: Fraction = 0.999
    """Decay of the second moment of adam, adamw and lion."""
    clip_norm: Positive | None = None
    """Largest global norm of the gradients; larger ones are scaled down."""
    clip_value: Positive | None = None
    """Largest absolute value of a gradient; larger ones are cut."""


class ScheduleConfig(Section):
    """How the learning rate moves during a stage; a bare name means its defaults."""

    name: Literal[
        "cosine", "one_cycle", "linear", "polynomial", "exponential", "step", "inverse_sqrt", "constant", "plateau"
    ] = "cosine"
    """`cosine`, `linear`, `polynomial` and `exponential` fall each step to final_fraction; `one_cycle` (Smith 2018)
    first rises for rise_fraction of the stage; `step` falls by factor every step_epochs; `inverse_sqrt` falls with the
    square root of the steps after the warmup; `plateau` falls by factor when validation stalls."""
    warmup_epochs: NonNegative = 0.5
    """Epochs (fractions allowed) of linear rise from zero; one_cycle rises by itself."""
    final_fraction: Fraction = 0.01
    """Share of the learning rate left at the end of the stage."""
    power: Positive = 2.0
    """Exponent of polynomial; 1 is a straight line."""
    rise_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    """Share of the stage in which one_cycle rises, from a 25th of the rate."""
    step_epochs: Positive = 3.0
    """Epochs (fractions allowed) between two falls of step."""
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    """What plateau and step multiply the rate with."""
    patience: NonNegativeInt = 2
    """Epochs without improvement before plateau lowers the rate."""


class EarlyStoppingConfig(Section):
    """When a stage ends before its epochs are over."""

    metric: EpochMetric = "loss"
    """Validation metric to watch; also decides which epoch's weights are the best."""
    patience: NonNegativeInt | None = None
    """Epochs without improvement before the stage ends; by default it runs all its epochs."""
    min_delta: NonNegative = 0.0
    """Smallest change that counts as an improvement."""
    keep: Literal["best", "last"] = "best"
    """Which epoch's weights a stage leaves: those of the `best` so far, or those of its `last`, whatever its metric."""


class StageConfig(Section):
    """One stretch of training with the same layers trainable."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    """Name in logs and metrics."""
    unfreeze: str | Sequence[str] = "none"
    """Part of the backbone to train: `none`, `all`, `last 3 blocks`, `last 30%`, or names or patterns of
    blocks or layers."""
    epochs: PositiveInt
    """Passes over the training images."""
    learning_rate: Positive | Literal["auto"]
    """Peak learning rate; `auto` measures one at the start of the stage, as `imagetune lr-find` does."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How the learning rate moves."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """The rate of each block is that of the next one towards the output times this; 1 means the same for all."""
    batch_norm: Literal["frozen", "train"] = "frozen"
    """Whether BatchNorm layers of unfrozen blocks learn and update their statistics."""
    freeze_head: bool = False
    """Keep the head as it is and train only the unfrozen part of the backbone."""
    augmentation: Augmentation | None = None
    """Overrides data.augmentation in this stage."""
    image_size: ImageSize | None = None
    """Overrides data.image_size while this stage trains: small images first, large ones later. Validation, test and
    the saved model keep data.image_size."""
    early_stopping: EarlyStoppingConfig | None = None
    """Overrides train.early_stopping in this stage."""
    cache: str | None = None
    """Overrides train.cache in this stage; the name of a frozen block means its output."""
    augmented_copies: PositiveInt | Literal["auto"] | None = None
    """Overrides train.augmented_copies in this stage."""

    @property
    def peak_rate(self) -> float:
        """The learning rate as a number.

        Raises:
            ValueError: It is still `auto`.
        """
        if self.learning_rate == "auto":
            raise ValueError(f"the learning rate of stage {self.name!r} has not been measured yet")
        return self.learning_rate

    @field_validator("schedule", mode="before")
    @classmethod
    def _schedule_by_name(cls, value: Any) -> Any:
        return _bare_name(value)

    @field_validator("unfreeze")
    @classmethod
    def _readable(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        parse_unfreeze(value)
        return value

    @model_validator(mode="after")
    def _trains_something(self) -> Self:
        if self.freeze_head and parse_unfreeze(self.unfreeze).nothing:
            raise ValueError("unfreeze is `none` and the head is frozen: nothing is left to train")
        return self


class TrainConfig(Section):
    """Stages, optimizer and when to stop."""

    stages: Sequence[StageConfig] = ()
    """Stages in order, or a preset: linear_probe, head_then_top, lp_ft, gradual, full. A preset takes `epochs` (of
    each of its stages) and `learning_rate` (of the head) beside it. The default is head_then_top."""
    batch_size: PositiveInt | Literal["auto"] = DEFAULT_BATCH
    """Images that go through the model at a time; `auto` tries what fits in memory: a whole step, or a power of two
    that divides it."""
    effective_batch: PositiveInt | None = None
    """Images an optimizer step, a multiple of batch_size; gradients are accumulated to reach it. By default
    batch_size, or 32 where that is `auto`."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimizer of all stages."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of each label's weight spread over all classes."""
    loss: LossConfig = LossConfig()
    """What is minimised."""
    mix: MixConfig = MixConfig()
    """Blending images and labels of a batch."""
    average: AverageConfig = AverageConfig()
    """Averaged weights."""
    regularisation: RegularisationConfig = RegularisationConfig()
    """Penalties on the backbone's weights."""
    batch_norm_statistics: Literal["keep", "reestimate"] = "keep"
    """`reestimate` takes means and variances of BatchNorm anew from the training images before training starts
    (Li et al. 2016), for images far from those that the backbone has seen."""
    teacher: TeacherConfig | None = None
    """A finished run to learn from."""
    class_weights: Literal["none", "balanced", "effective_number"] | dict[str, Positive] = "none"
    """`balanced` weighs classes by inverse frequency, `effective_number` more gently (Cui et al. 2019); or a weight a
    class name."""
    sampling: Literal["natural", "balanced", "square_root"] = "natural"
    """How often images come in an epoch: `balanced` shows every class equally often, `square_root` in between."""
    jit_compile: Literal["auto"] | bool = "auto"
    """XLA: `auto` leaves it off on the CPU with TensorFlow, where it measured slower."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Number format of the computation; weights stay float32."""
    cache: Literal["auto", "off"] = "auto"
    """Whether what the frozen part of the backbone makes of an image is computed once and kept, instead of in every
    epoch. `auto` does it where that saves time and changes little, and says so."""
    augmented_copies: PositiveInt | Literal["auto"] = "auto"
    """Differently augmented versions of each image that a cached stage takes in turn, an epoch each. More are nearer
    to an augmentation that never repeats, and take longer."""
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    """When a stage ends early, and by which validation metric its best weights are chosen."""

    @property
    def trains_backbone(self) -> bool:
        """Whether some stage trains the backbone itself, so that its features have seen the labels of training."""
        return any(stage.unfreeze != "none" for stage in self.stages)

    @property
    def pass_size(self) -> int:
        """Images that go through the model at a time, as a number.

        Raises:
            ValueError: It is still `auto`.
        """
        if self.batch_size == "auto":
            raise ValueError("the batch size has not been measured yet")
        return self.batch_size

    @property
    def step_size(self) -> int:
        """Images an optimizer step."""
        return self.effective_batch or (DEFAULT_BATCH if self.batch_size == "auto" else self.batch_size)

    @property
    def accumulation(self) -> int:
        """Passes whose gradients make one optimizer step."""
        return self.step_size // self.pass_size

    @field_validator("optimizer", "loss", "mix", "average", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return _bare_name(value)

    @field_validator("teacher", mode="before")
    @classmethod
    def _teacher_by_run(cls, value: Any) -> Any:
        return {"run": value} if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, value: Any) -> Any:
        return expand_stages(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _stages_that_can_be_told_apart(self) -> Self:
        if not self.stages:
            raise ValueError("`stages` is empty: at least one stage must train something")
        names = [stage.name for stage in self.stages]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two stages are called {twice[0]!r}")
        return self

    @model_validator(mode="after")
    def _stages_that_go_on(self) -> Self:
        everything = None
        for stage in self.stages:
            wanted = parse_unfreeze(stage.unfreeze)
            if everything is not None and wanted.nothing:
                what = f"stage {stage.name!r} unfreezes nothing after stage {everything!r} unfroze everything"
                raise ValueError(f"{what}: put it first, or leave it out")
            if wanted.everything:
                everything = stage.name
        return self

    @model_validator(mode="after")
    def _caches_that_can_be_kept(self) -> Self:
        for stage in self.stages:
            if stage.cache in (None, "auto", "off"):
                continue
            if self.mix.name != "none" or self.teacher is not None:
                other = "teacher looks at" if self.mix.name == "none" else f"mix {self.mix.name} blends"
                what = f"stage {stage.name!r} keeps features of {stage.cache}, but the {other} images of each epoch"
                raise ValueError(f"{what}: leave one of them out")
        return self

    @model_validator(mode="after")
    def _whole_accumulation(self) -> Self:
        size, whole = self.batch_size, self.effective_batch
        if whole is not None and size != "auto" and whole % size:
            raise ValueError(f"effective_batch {whole} is not a multiple of batch_size {size}")
        return self


def _bare_name(value: Any) -> Any:
    """Accept ``adamw`` for ``{name: adamw}``."""
    return {"name": value} if isinstance(value, str) else value
