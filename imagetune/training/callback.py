"""What happens after each step and epoch of a stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from imagetune.errors import DivergedError
from imagetune.recipe.train import EarlyStoppingConfig, StageConfig
from imagetune.training.averaging import KeptWeights
from imagetune.training.checkpoints import Start, TrainingState, commit_checkpoint, prune_checkpoints
from imagetune.training.events import EpochRecord, Listener, StepDone
from imagetune.training.optimizer import scale_rate
from imagetune.training.schedules import PlateauRate
from imagetune.training.stages import StageSetup
from imagetune.training.stopping import StopRequest

LOWER_IS_BETTER = ("loss", "mae")


@dataclass(frozen=True)
class Position:
    """How far training has come: finished epochs and optimizer steps over all stages."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Best:
    """The best epoch so far, and the checkpoint with its weights."""

    record: EpochRecord
    checkpoint: Path


@dataclass(frozen=True)
class StageContext:
    """What a stage's callback works with.

    Attributes:
        model: Raw pictures to probabilities: what checkpoints hold.
        stage: The stage's values.
        early_stopping: The stage's own, or that of all stages.
        start: Position before the stage.
        best: What earlier stages reached, whose weights this stage starts from; it has to be beaten.
        steps_per_epoch: Passes an epoch.
        accumulation: Passes an optimizer step.
        train_pictures: Number of training pictures.
        validate: Gives the validation figures of the model as it is.
        folder: Where checkpoints go.
        weights_at_start: What training started with.
        learned: Places of the weights that may have changed since.
        listener: Hears of progress.
        stop: Asked after every step.
    """

    model: keras.Model
    stage: StageConfig
    early_stopping: EarlyStoppingConfig
    start: Position
    best: Best | None
    steps_per_epoch: int
    accumulation: int
    train_pictures: int
    validate: Callable[[], dict[str, float]]
    folder: Path
    weights_at_start: Start
    learned: frozenset[int]
    listener: Listener
    stop: StopRequest


class StageCallback(keras.callbacks.Callback):
    """Watches the loss, validates, commits checkpoints, remembers the best epoch and stops early.

    Attributes:
        position: How far training has come.
        best: The best epoch so far, of this stage or of those before it.
    """

    def __init__(self, context: StageContext, setup: StageSetup, weights: KeptWeights) -> None:
        super().__init__()
        self.context = context
        self.setup = setup
        self.weights = weights
        self.position = context.start
        self.best = context.best
        self._plateau = PlateauRate(setup.schedule)
        self._stalled_epochs = 0
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        del epoch, logs
        self._began = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the rate of plateau, which depends on how training goes."""
        del batch, logs
        if self.context.stage.schedule.name != "plateau":
            return
        factor = self._plateau.before_step((self.position.step - self.context.start.step) // self.context.accumulation)
        if factor != 1.0:
            if keras.backend.backend() == "jax":  # its state lives outside the variables during an epoch
                self.model.jax_state_sync()
            scale_rate(self.model.optimizer, factor)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Refuse a loss that is no number, tell the listener, and stop if asked to."""
        loss = float((logs or {})["loss"])
        self.position = Position(self.position.epoch, self.position.step + 1)
        if not math.isfinite(loss):
            raise self._diverged(loss)
        context = self.context
        context.listener.step_done(
            StepDone(context.stage.name, self.position.epoch + 1, batch + 1, context.steps_per_epoch, loss)
        )
        context.stop.check()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validate, commit, and decide how to go on."""
        seconds = time.perf_counter() - self._began
        self.position = Position(self.position.epoch + 1, self.position.step)
        self.weights.epoch_ended(epoch + 1)
        with self.weights.shown():
            record = self._record(float((logs or {})["loss"]), seconds)
            checkpoint = self._commit(record.figure(self.context.early_stopping.metric))
        improved = self._improves(record)
        if improved or self.best is None:
            self.best = Best(record, checkpoint)
        prune_checkpoints(self.context.folder, best=self.best.checkpoint)
        self.context.listener.epoch_done(record)
        self._decide(improved=improved)
        self.context.stop.check()

    def commit(self, figure: float | None) -> Path:
        """Commit a checkpoint of the weights as they would be kept now."""
        with self.weights.shown():
            return self._commit(figure)

    def _commit(self, figure: float | None) -> Path:
        state = TrainingState(self.context.stage.name, self.position.epoch, self.position.step, figure)
        context = self.context
        return commit_checkpoint(context.folder, context.model, state, context.weights_at_start, context.learned)

    def _record(self, loss: float, seconds: float) -> EpochRecord:
        val = self.context.validate()
        if val and not math.isfinite(val["loss"]):
            raise self._diverged(val["loss"])
        return EpochRecord(
            stage=self.context.stage.name,
            epoch=self.position.epoch,
            step=self.position.step,
            train=self.setup.tally.figures(loss),
            val=val,
            learning_rate=self._rate(),
            images_per_second=self.context.train_pictures / max(seconds, 1e-9),
        )

    def _improves(self, record: EpochRecord) -> bool:
        if self.best is None:
            return True
        watched = self.context.early_stopping
        gain = record.figure(watched.metric) - self.best.record.figure(watched.metric)
        return (-gain if watched.metric in LOWER_IS_BETTER else gain) > watched.min_delta

    def _decide(self, *, improved: bool) -> None:
        self._stalled_epochs = 0 if improved else self._stalled_epochs + 1
        patience = self.context.early_stopping.patience
        if patience is not None and self._stalled_epochs > patience:
            self.model.stop_training = True
        self._plateau.after_epoch(improved=improved)

    def _rate(self) -> float:
        if self.context.stage.schedule.name == "plateau":
            return self._plateau.rate
        passes = max(self.position.step - self.context.start.step - 1, 0)
        return self.setup.schedule.rate_at(passes // self.context.accumulation)

    def _diverged(self, loss: float) -> DivergedError:
        rate = self._rate()
        return DivergedError(
            f"the loss is {loss} at step {self.position.step} with a learning rate of {rate:.3g}",
            where=f"stage {self.context.stage.name!r}",
            hint="lower its learning_rate or set train.optimizer.clip_norm; the best weights are in checkpoints/",
        )
