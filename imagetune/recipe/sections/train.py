"""The ``train`` section: stages, optimizer, learning-rate schedule and early stopping."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from imagetune.recipe.metrics import EpochMetric
from imagetune.recipe.presets import HEAD_RATE, expand_stages
from imagetune.recipe.sections.base import (
    AugmentedCopies,
    BatchSize,
    Epochs,
    Fraction,
    NonNegative,
    Patience,
    Positive,
    Section,
    Sequence,
)
from imagetune.recipe.sections.data import Augmentation, ImageSize
from imagetune.recipe.sections.learning import AverageConfig, LossConfig, MixConfig, RegularisationConfig, TeacherConfig
from imagetune.recipe.unfreeze import parse_unfreeze

DEFAULT_BATCH = 32


class OptimizerConfig(Section):
    """A Keras optimizer and its own settings; a bare name means its defaults."""

    name: Literal["adamw", "adam", "sgd", "rmsprop", "lion"] = "adamw"
    """Optimization algorithm, as Keras implements it."""
    # Neither 0 nor 0.01 made a clear difference on small image sets (docs/strategies.md).
    weight_decay: NonNegative = 0.0001
    """Decoupled weight decay of kernels, 0 or more; biases, normalisation and scales have none."""
    momentum: Fraction = 0.9
    """Momentum of sgd and rmsprop, 0 to 1."""
    nesterov: bool = True
    """Whether sgd uses Nesterov momentum."""
    beta_1: Fraction = 0.9
    """Decay rate of the first moment of adam, adamw and lion, 0 to 1."""
    beta_2: Fraction = 0.999
    """Decay rate of the second moment of adam, adamw and lion, 0 to 1."""
    clip_norm: Positive | None = None
    """Largest global norm of the gradients; larger ones are scaled down. By default gradients aren't clipped."""
    clip_value: Positive | None = None
    """Largest absolute value of a gradient; larger ones are cut. Without effect where clip_norm is set."""


class ScheduleConfig(Section):
    """Learning-rate schedule of a stage; a bare name means its defaults."""

    # A constant learning rate lost 2.9 points on small image sets (docs/strategies.md).
    name: Literal[
        "cosine", "one_cycle", "linear", "polynomial", "exponential", "step", "inverse_sqrt", "constant", "plateau"
    ] = "cosine"
    """Shape of the schedule. `cosine`, `linear`, `polynomial` and `exponential` fall with every step down to
    final_fraction; `one_cycle` (Smith 2018) first rises for rise_fraction of the stage; `step` is multiplied by factor
    every step_epochs; `inverse_sqrt` falls with the square root of the steps after the warmup; `plateau` is multiplied
    by factor when validation stops improving; `constant` stays."""
    warmup_epochs: NonNegative = 0.5
    """Length of the linear warmup in epochs, fractions allowed; 0 starts at the peak. one_cycle has a rise of its
    own."""
    final_fraction: Fraction = 0.01
    """Share of the peak learning rate that is left at the end of the stage, 0 to 1."""
    power: Positive = 2.0
    """Exponent of polynomial, above 0; 1 is a straight line."""
    rise_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    """Share of the stage in which one_cycle rises, from a 25th of the peak learning rate; between 0 and 1."""
    step_epochs: Positive = 3.0
    """Epochs between two reductions of step, fractions allowed."""
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    """Factor that plateau and step multiply the learning rate by, between 0 and 1."""
    patience: Patience = 2
    """Epochs without improvement before plateau lowers the learning rate."""


class EarlyStoppingConfig(Section):
    """Early stopping: when a stage ends before its epochs are over, and which epoch's weights it leaves."""

    metric: EpochMetric = "loss"
    """Validation metric to watch; it also decides which epoch's weights are the best."""
    patience: Patience | None = None
    """Epochs without improvement before the stage ends; by default it has all its epochs."""
    min_delta: NonNegative = 0.0
    """Smallest change of the metric that counts as an improvement, in the metric's units."""
    keep: Literal["best", "last"] = "best"
    """Which epoch's weights a stage leaves: those of the `best` epoch so far, or those of its `last` one."""


class StageConfig(Section):
    """A stage: epochs of training with the same trainable layers and one learning-rate schedule."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    """Name of the stage in logs and metrics, of letters, digits, `_` and `-`."""
    unfreeze: str | Sequence[str] = "none"
    """Trainable part of the backbone: `none`, `all`, `last 3 blocks`, `last 30%`, or names or patterns of blocks or
    layers, as `imagetune model layers BACKBONE` lists them."""
    epochs: Epochs
    """Number of passes over the training images."""
    learning_rate: Positive | Literal["auto"]
    """Peak learning rate, above 0; `auto` finds one by a range test at the start of the stage, as `imagetune
    lr-find`."""
    solve: Literal["auto"] | bool = False
    """Whether the head is solved instead of trained, where the backbone stays frozen: L-BFGS finds the optimum of the
    penalised loss on standardised features of the images and their augmented copies, with the penalty chosen by
    cross-validation. `auto`, as in presets, solves where the head is linear and its loss convex. Epochs and learning
    rate then have no effect and may be left out."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How the learning rate changes during the stage."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Layer-wise learning-rate decay, above 0 and up to 1: each block's learning rate is this share of the next block's
    towards the output. 1 means the same learning rate for all."""
    # Training it lost 5.7 points on small image sets (docs/strategies.md).
    batch_norm: Literal["frozen", "train"] = "frozen"
    """Whether BatchNorm layers of unfrozen blocks are trained and update their statistics, or stay `frozen`."""
    adapt: Literal["all", "norm", "bias"] = "all"
    """Which parameters of the unfrozen part of the backbone are trained: `all`, only scales and shifts of its
    normalisation layers (`norm`), or only its biases and shifts (`bias`, Ben Zaken et al. 2022). Both change a
    thousandth of a vision transformer; the BatchNorm of convolutional networks takes part with `batch_norm: train`."""
    freeze_head: bool = False
    """Whether the head stays frozen, so that only the unfrozen part of the backbone is trained."""
    augmentation: Augmentation | None = None
    """Augmentation of this stage; by default data.augmentation."""
    image_size: ImageSize | None = None
    """Image size while this stage trains, for progressive resizing; by default data.image_size. Validation, test and
    the saved model keep data.image_size."""
    early_stopping: EarlyStoppingConfig | None = None
    """Early stopping of this stage; by default train.early_stopping."""
    min_gain_standard_errors: NonNegative | None = None
    """How clearly the stage must beat the weights that it starts from: its best epoch is kept only if it lowers the
    validation loss by more than this many standard errors of the paired difference. By default any improvement
    counts. For trained stages alone."""
    cache: str | None = None
    """Feature cache of this stage: `auto`, `off`, or the name of the frozen block whose output is kept. By default
    train.cache."""
    augmented_copies: AugmentedCopies | Literal["auto"] | None = None
    """Augmented copies of this stage; by default train.augmented_copies."""

    @property
    def peak_rate(self) -> float:
        """Peak learning rate of the head as a number.

        Raises:
            ValueError: It is still `auto`.
        """
        if self.learning_rate == "auto":
            raise ValueError(f"the learning rate of stage {self.name!r} has not been measured yet")
        return self.learning_rate

    @model_validator(mode="before")
    @classmethod
    def _solved_without_epochs(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("solve") is True:
            return {"epochs": 1, "learning_rate": HEAD_RATE, **value}
        return value

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
        if self.adapt != "all" and parse_unfreeze(self.unfreeze).nothing:
            raise ValueError(f"adapt: {self.adapt} is for unfrozen layers, and unfreeze is `none`")
        if self.solve and not parse_unfreeze(self.unfreeze).nothing:
            raise ValueError("only a head on a frozen backbone can be solved: set unfreeze: none, or solve: false")
        if self.solve and self.min_gain_standard_errors is not None:
            raise ValueError("min_gain_standard_errors is for stages that are trained: leave it out of a solved one")
        return self


class TrainConfig(Section):
    """How the model is trained: stages, batch size, optimizer, loss and early stopping."""

    stages: Annotated[Sequence[StageConfig], Field(max_length=100)] = ()
    """Stages in their order, or a preset: auto (the default), linear_probe, head_then_top, lp_ft, gradual or full.
    Beside a preset, `epochs` sets the epochs of each of its stages and `learning_rate` that of a trained head. Heads on
    a frozen backbone are solved instead, unless there is a `learning_rate` or `solve: false`."""
    batch_size: BatchSize | Literal["auto"] = DEFAULT_BATCH
    """Images that go through the model at a time; `auto` finds the largest that fits in memory: a whole step, or a
    power of two that divides it."""
    effective_batch: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Images in an optimizer step, a multiple of batch_size; gradients are accumulated to reach it. By default
    batch_size, or 32 where that is `auto`."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer of all stages."""
    # 0.1 lost more often than it won on small image sets (docs/strategies.md).
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Label smoothing: the share of each label's weight that is spread over all classes, 0 to 1; 0 switches it off."""
    loss: LossConfig = LossConfig()
    """Loss that training minimises."""
    mix: MixConfig = MixConfig()
    """Mixup or CutMix: blending of images and labels in a batch. By default there is none."""
    average: AverageConfig = AverageConfig()
    """Averaging of the weights over training steps or epochs. By default there is none."""
    regularisation: RegularisationConfig = RegularisationConfig()
    """Penalties on the backbone's weights beside weight decay. By default there are none."""
    # Re-estimated statistics lost 17 points on small image sets (docs/strategies.md).
    batch_norm_statistics: Literal["keep", "reestimate"] = "keep"
    """Whether to `keep` the BatchNorm statistics of the pretrained backbone, or to `reestimate` them on the training
    images before training (Li et al. 2016), for images unlike those of pretraining."""
    teacher: TeacherConfig | None = None
    """Finished run whose predictions are learned from (distillation). By default there is none."""
    class_weights: Literal["none", "balanced", "effective_number"] | dict[str, Positive] = "none"
    """Weight of each class in the loss: `none`, `balanced` (inverse frequency), `effective_number` (less extreme, Cui
    et al. 2019), or a weight above 0 for each class name."""
    sampling: Literal["natural", "balanced", "square_root"] = "natural"
    """How often images are drawn in an epoch: `natural` shows each once, `balanced` shows every class equally often,
    `square_root` lies in between."""
    # XLA makes most backbones slower on the CPU, so it isn't simply on.
    jit_compile: Literal["auto"] | bool = "auto"
    """Whether steps are compiled by XLA; `auto` leaves it off on the CPU with TensorFlow, where it measured slower."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Number format of the computation; the weights stay float32."""
    cache: Literal["auto", "off"] = "auto"
    """Feature cache: whether the features of frozen layers are computed once and kept, instead of in every epoch.
    `auto` keeps them where that saves time and changes little, and says so."""
    augmented_copies: AugmentedCopies | Literal["auto"] = "auto"
    """Number of augmented copies of each image that a stage with cached features takes in turn, one in each epoch;
    `auto` is 4. More come nearer to augmentation that never repeats, and take longer."""
    refit: Literal["auto", "off"] = "auto"
    """Whether a solved head is solved once more, on training and validation images together, after everything is
    chosen. Validation metrics, calibration and thresholds stay those of the head that hasn't seen the validation
    images. `off` keeps that head."""
    commit_minutes: Annotated[float, Field(gt=0.0, le=100_000.0)] = 5.0
    """Minutes of training after which a checkpoint is committed within an epoch; each epoch's end commits one, too. A
    run that is killed loses no more than that: `fit --resume` goes on from the last checkpoint."""
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    """When a stage ends early, and by which validation metric the best weights are chosen."""

    @property
    def trains_backbone(self) -> bool:
        """Whether some stage trains the backbone itself, so that its features depend on the training labels."""
        return any(stage.unfreeze != "none" for stage in self.stages)

    def until(self, stage: str) -> TrainConfig:
        """Return the section with the stages up to one of them alone, which have made that one's weights."""
        names = [one.name for one in self.stages]
        return self.model_copy(update={"stages": self.stages[: names.index(stage) + 1]})

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
        """Images in an optimizer step."""
        return self.effective_batch or (DEFAULT_BATCH if self.batch_size == "auto" else self.batch_size)

    @property
    def accumulation(self) -> int:
        """Number of passes whose accumulated gradients make one optimizer step."""
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
    def _distinct_stages(self) -> Self:
        if not self.stages:
            raise ValueError("`stages` is empty: at least one stage must train something")
        names = [stage.name for stage in self.stages]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            # Metrics and checkpoints know a stage by its name.
            raise ValueError(f"two stages are called {twice[0]!r}")
        return self

    @model_validator(mode="after")
    def _growing_stages(self) -> Self:
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
    def _cacheable_features(self) -> Self:
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
