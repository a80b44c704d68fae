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
from imagetune.recipe.presets import expand_stages
from imagetune.recipe.unfreeze import parse_unfreeze

WatchedMetric = Literal["loss", "accuracy", "precision", "recall", "f1"]


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


class ScheduleConfig(Section):
    """How the learning rate moves during a stage; a bare name means its defaults."""

    name: Literal["cosine", "constant", "exponential", "plateau"] = "cosine"
    """`cosine` and `exponential` fall each step to final_fraction; `plateau` falls when validation stalls."""
    warmup_epochs: NonNegative = 0.5
    """Epochs (fractions allowed) of linear rise from zero."""
    final_fraction: Fraction = 0.01
    """Share of the learning rate left at the end of the stage."""
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    """What plateau multiplies the rate with."""
    patience: NonNegativeInt = 2
    """Epochs without improvement before plateau lowers the rate."""


class EarlyStoppingConfig(Section):
    """When a stage ends before its epochs are over."""

    metric: WatchedMetric = "loss"
    """Validation figure to watch; also decides which epoch's weights are the best."""
    patience: NonNegativeInt | None = None
    """Epochs without improvement before the stage ends; by default it runs all its epochs."""
    min_delta: NonNegative = 0.0
    """Smallest change that counts as an improvement."""


class StageConfig(Section):
    """One stretch of training with the same layers trainable."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    """Name in logs and metrics."""
    unfreeze: str | Sequence[str] = "none"
    """Part of the backbone to train: `none`, `all`, `last 3 blocks`, `last 30%`, or names or patterns of
    blocks or layers."""
    epochs: PositiveInt
    """Passes over the training pictures."""
    learning_rate: Positive
    """Peak learning rate."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How the learning rate moves."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """The rate of each block is that of the next one towards the output times this; 1 means the same for all."""
    batch_norm: Literal["frozen", "train"] = "frozen"
    """Whether BatchNorm layers of unfrozen blocks learn and update their statistics."""
    early_stopping: EarlyStoppingConfig | None = None
    """Overrides train.early_stopping in this stage."""

    @field_validator("schedule", mode="before")
    @classmethod
    def _schedule_by_name(cls, value: Any) -> Any:
        return _bare_name(value)

    @field_validator("unfreeze")
    @classmethod
    def _readable(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        parse_unfreeze(value)
        return value


class TrainConfig(Section):
    """Stages, optimizer and when to stop."""

    stages: Sequence[StageConfig] = ()
    """Stages in order, or a preset: linear_probe, head_then_top, lp_ft, gradual, full. A preset takes `epochs` (of
    each of its stages) and `learning_rate` (of the head) beside it. The default is head_then_top."""
    batch_size: PositiveInt = 32
    """Pictures a step."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimizer of all stages."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of each label's weight spread over all classes."""
    class_weights: Literal["none", "balanced"] | dict[str, Positive] = "none"
    """`balanced` weighs classes by inverse frequency; or a weight a class name."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Number format of the computation; weights stay float32."""
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    """When a stage ends early, and by which validation figure its best weights are chosen."""

    @field_validator("optimizer", mode="before")
    @classmethod
    def _optimizer_by_name(cls, value: Any) -> Any:
        return _bare_name(value)

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


def _bare_name(value: Any) -> Any:
    """Accept ``adamw`` for ``{name: adamw}``."""
    return {"name": value} if isinstance(value, str) else value
