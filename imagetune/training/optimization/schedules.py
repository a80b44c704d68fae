"""Learning-rate schedules: warmup, cosine, one-cycle, step and others, with a value for every step of a stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from imagetune.recipe.sections.train import ScheduleConfig

ONE_CYCLE_START = 1 / 25  # Smith's ratio of the first learning rate to the highest


class StageSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning-rate schedule of a stage: a linear warmup, then a falling shape; one_cycle rises by itself.

    Over the steps after the warmup, from 0 to 1:

    - ``cosine``: half a cosine down to ``final_fraction`` (Loshchilov and Hutter 2017, arXiv 1608.03983).
    - ``linear``, ``polynomial``: (1 - progress) to the power of 1 or ``power``, down to ``final_fraction``.
    - ``exponential``: the same ratio every step, down to ``final_fraction``.
    - ``inverse_sqrt``: with the square root of the steps (Vaswani et al. 2017, arXiv 1706.03762).
    - ``constant``, and ``plateau``, which `PlateauLearningRate` lowers.

    Over the whole stage:

    - ``one_cycle``: half a cosine from a 25th of the peak up for ``rise_fraction`` of the steps, then another down to
      ``final_fraction`` (Smith 2018, arXiv 1803.09820).
    - ``step``: times ``factor`` every ``step_epochs``, at the nearest step.

    Args:
        peak: The highest learning rate.
        config: Shape of the schedule; keys of other shapes have no effect.
        steps_per_epoch: Optimizer steps in an epoch; a fraction where accumulated batches don't fill the last one.
        epochs: Number of epochs of the stage.
        first_step: Number of optimizer steps before the stage.
        accumulation: Passes in an optimizer step: Keras counts every pass whose gradients it accumulates, and calls
            its schedule with that count.
    """

    def __init__(
        self,
        peak: float,
        config: ScheduleConfig,
        *,
        steps_per_epoch: float,
        epochs: int,
        first_step: int = 0,
        accumulation: int = 1,
    ) -> None:
        self.peak = peak
        self.config = config
        self.steps_per_epoch = steps_per_epoch
        self.epochs = epochs
        self.first_step = first_step
        self.accumulation = accumulation

    @property
    def total_steps(self) -> float:
        """Number of optimizer steps of the stage."""
        return self.steps_per_epoch * self.epochs

    @property
    def warmup_steps(self) -> float:
        """Steps of the linear warmup: at most half of the stage, and none for one_cycle, which rises by itself."""
        if self.config.name == "one_cycle":
            return 0.0
        return min(self.config.warmup_epochs * self.steps_per_epoch, self.total_steps / 2)

    def __call__(self, step: Any) -> Any:
        """Return the learning rate at the optimizer's count ``step`` as a float32 scalar of the backend."""
        taken = keras.ops.floor_divide(step, self.accumulation) - self.first_step
        return self._value(keras.ops.cast(taken, "float32"), keras.ops)

    def rate_at(self, step: float) -> float:
        """Return the learning rate at a step, counted from 0 in the stage, as a number."""
        return float(self._value(np.float64(step), np))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments by name, for Keras."""
        return {
            "peak": self.peak,
            "config": self.config.model_dump(),
            "steps_per_epoch": self.steps_per_epoch,
            "epochs": self.epochs,
            "first_step": self.first_step,
            "accumulation": self.accumulation,
        }

    def _value(self, step: Any, ops: Any) -> Any:
        step = ops.maximum(step, 0.0)
        # The first step already has a learning rate above zero: at zero it would be wasted.
        rising = ops.minimum((step + 1.0) / (self.warmup_steps + 1.0), 1.0)
        return self.peak * rising * self._shape(step, ops)

    def _shape(self, step: Any, ops: Any) -> Any:
        """Return the share of the peak learning rate at a step, warmup aside."""
        config, warmup = self.config, self.warmup_steps
        falling = ops.maximum(step - warmup, 0.0)
        left = 1.0 - ops.minimum(falling / max(self.total_steps - warmup, 1.0), 1.0)
        match config.name:
            case "cosine":
                return _interpolate(config.final_fraction, 1.0, _follow_half_cosine(left, ops))
            case "linear":
                return _interpolate(config.final_fraction, 1.0, left)
            case "polynomial":
                return _interpolate(config.final_fraction, 1.0, left**config.power)
            case "exponential":
                # A constant ratio never reaches a final fraction of 0.
                return ops.exp((1.0 - left) * np.log(max(config.final_fraction, 1e-6)))
            case "inverse_sqrt":
                scale = max(warmup, 1.0)
                return ops.sqrt(scale / (scale + falling))
            case "step":
                # Half a step on: a reduction that falls between two steps comes at the nearer one.
                return config.factor ** ops.floor((step + 0.5) / (config.step_epochs * self.steps_per_epoch))
            case "one_cycle":
                return self._cycle(step, ops)
            case "constant" | "plateau":
                # A value of the backend's own type, as the other shapes give, which a plain 1.0 is not.
                return left * 0.0 + 1.0

    def _cycle(self, step: Any, ops: Any) -> Any:
        rise = self.config.rise_fraction * self.total_steps
        up = _follow_half_cosine(ops.minimum(step / rise, 1.0), ops)
        left = 1.0 - ops.minimum(ops.maximum(step - rise, 0.0) / (self.total_steps - rise), 1.0)
        down = _interpolate(self.config.final_fraction, 1.0, _follow_half_cosine(left, ops))
        return ops.where(step < rise, _interpolate(ONE_CYCLE_START, 1.0, up), down)


@dataclass(frozen=True)
class PlateauState:
    """State of a plateau schedule, as a checkpoint keeps it.

    Attributes:
        learning_rate: Learning rate of the last step; None before the first.
        share: Share of the peak that is left after the reductions so far.
        step: Number of the last step.
        stalled_epochs: Number of epochs without improvement since the last reduction.
    """

    learning_rate: float | None = None
    share: float = 1.0
    step: int = 0
    stalled_epochs: int = 0


class PlateauLearningRate:
    """Learning rate of ``plateau``: a warmup, then constant and lowered whenever a metric stops improving.

    Call `before_step` before each step and `after_epoch` after each epoch. Epochs that end in the warmup don't count as
    stalled: the learning rate there is low because it still rises.

    Args:
        schedule: Schedule of the stage, with warmup, ``factor``, ``patience`` and ``final_fraction``, the smallest
            share of the peak.
        state: State of the earlier training that this one resumes.
    """

    def __init__(self, schedule: StageSchedule, state: PlateauState | None = None) -> None:
        state = state or PlateauState()
        self.schedule = schedule
        self.learning_rate = schedule.peak if state.learning_rate is None else state.learning_rate
        self._share = state.share
        self._step = state.step
        self._stalled_epochs = state.stalled_epochs

    @property
    def state(self) -> PlateauState:
        """Current state, for a checkpoint."""
        return PlateauState(self.learning_rate, self._share, self._step, self._stalled_epochs)

    def before_step(self, step: int) -> float:
        """Return the factor by which a step, counted from 0 in the stage, changes the learning rate; 1 leaves it.

        The first call starts from the peak.
        """
        before, self._step = self.learning_rate, step
        self.learning_rate = self.schedule.rate_at(step) * self._share
        # A factor and not the rate itself, because each group of layers has a rate of its own.
        return self.learning_rate / before

    def after_epoch(self, *, improved: bool) -> None:
        """Count an epoch, and lower the learning rate from the next step on where ``patience`` is exceeded."""
        config = self.schedule.config
        warming = self._step + 1 < self.schedule.warmup_steps
        self._stalled_epochs = 0 if improved or warming else self._stalled_epochs + 1
        # There is no reduction below the final fraction: the stage would stand still.
        if self._stalled_epochs > config.patience and self._share * config.factor >= config.final_fraction:
            self._stalled_epochs = 0
            self._share *= config.factor


def _follow_half_cosine(share: Any, ops: Any) -> Any:
    """Return a value from 0 to 1 along half a cosine, for ``share`` from 0 to 1."""
    return 0.5 * (1.0 - ops.cos(np.pi * share))


def _interpolate(low: float, high: float, share: Any) -> Any:
    return low + (high - low) * share
