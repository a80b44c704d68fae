"""Learning-rate schedules, a value a step."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from imagetune.recipe.train import ScheduleConfig


class StageSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warmup, then constant, cosine (Loshchilov and Hutter 2017, arXiv 1608.03983) or exponential decay.

    Args:
        peak: Learning rate at the end of the warmup.
        config: Shape of the schedule. ``plateau`` is constant here; PlateauRate lowers it.
        steps_per_epoch: Steps that an epoch has.
        epochs: Epochs of the stage.
    """

    def __init__(self, peak: float, config: ScheduleConfig, *, steps_per_epoch: int, epochs: int) -> None:
        self.peak = peak
        self.config = config
        self.steps_per_epoch = steps_per_epoch
        self.epochs = epochs

    def __call__(self, step: Any) -> Any:
        """Return the rate at ``step`` as a backend scalar."""
        return self._rate(keras.ops.cast(step, "float32"), keras.ops)

    def rate_at(self, step: int) -> float:
        """Return the rate at ``step`` (from 0 in the stage) as a number."""
        return float(self._rate(np.float64(step), np))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, for Keras."""
        shape = self.config.model_dump()
        return {"peak": self.peak, "config": shape, "steps_per_epoch": self.steps_per_epoch, "epochs": self.epochs}

    def _rate(self, step: Any, ops: Any) -> Any:
        total = self.steps_per_epoch * self.epochs
        warmup = min(self.config.warmup_epochs * self.steps_per_epoch, total / 2)
        progress = ops.minimum((step - warmup) / max(total - warmup, 1.0), 1.0)
        progress = ops.maximum(progress, 0.0)
        # The first step already moves: a rate of exactly zero would waste it.
        rising = ops.minimum((step + 1.0) / (warmup + 1.0), 1.0)
        return self.peak * rising * self._decay(progress, ops)

    def _decay(self, progress: Any, ops: Any) -> Any:
        final = self.config.final_fraction
        if self.config.name == "cosine":
            return final + (1.0 - final) * 0.5 * (1.0 + ops.cos(np.pi * progress))
        if self.config.name == "exponential":
            return ops.exp(progress * np.log(max(final, 1e-6)))
        return progress * 0.0 + 1.0


class PlateauRate:
    """Lowers a constant rate when a watched figure stops improving.

    Args:
        config: ``factor``, ``patience`` and ``final_fraction``, the least share of the rate.
        peak: The rate at the start.
    """

    def __init__(self, config: ScheduleConfig, peak: float) -> None:
        self.config = config
        self.rate = peak
        self._floor = peak * config.final_fraction
        self._stalled_epochs = 0

    def after_epoch(self, *, improved: bool) -> float:
        """Return the share by which the rate changes now: 1 or ``factor``."""
        self._stalled_epochs = 0 if improved else self._stalled_epochs + 1
        if self._stalled_epochs <= self.config.patience or self.rate * self.config.factor < self._floor:
            return 1.0
        self._stalled_epochs = 0
        self.rate *= self.config.factor
        return self.config.factor
