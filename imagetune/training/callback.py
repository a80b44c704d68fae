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
from imagetune.recipe.metrics import is_lower_better
from imagetune.recipe.train import EarlyStoppingConfig, StageConfig
from imagetune.training.averaging import KeptWeights
from imagetune.training.checkpoints import (
    Start,
    TrainingState,
    checkpoint_path,
    commit_checkpoint,
    prune_checkpoints,
)
from imagetune.training.events import EpochRecord, Listener, StepDone
from imagetune.training.optimizer import scale_rate
from imagetune.training.schedules import PlateauRate
from imagetune.training.stages import StageSetup
from imagetune.training.standing import Best, Patience, Position, StageFacts, Standing, remembered
from imagetune.training.stopping import StopRequest

# Asked after every epoch; true ends the training there.
Enough = Callable[[EpochRecord], bool]


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
        facts: What the stage began with.
        listener: Hears of progress.
        stop: Asked after every step.
        enough: Whether training ends with this epoch.
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
    facts: StageFacts
    listener: Listener
    stop: StopRequest
    enough: Enough


class StageCallback(keras.callbacks.Callback):
    """Watches the loss, validates, commits checkpoints, remembers the best epoch and stops early.

    Args:
        context: What it works with.
        setup: What the stage trains with.
        weights: What the stage trains and keeps.
        standing: Where an earlier training of this stage stood that this one goes on with.

    Attributes:
        position: How far training has come.
        best: The best epoch so far, of this stage or of those before it.
        enough: Whether training ends here, whatever stages are left.
    """

    def __init__(
        self, context: StageContext, setup: StageSetup, weights: KeptWeights, standing: Standing | None = None
    ) -> None:
        super().__init__()
        self.context = context
        self.setup = setup
        self.weights = weights
        self.position = context.start if standing is None else standing.position
        self.best = context.best if standing is None else standing.best
        self.enough = False
        patience = Patience() if standing is None else standing.patience
        self._plateau = PlateauRate(setup.schedule, patience.plateau)
        self._stalled_epochs = patience.stalled_epochs
        self._committed: tuple[int, Path] | None = None
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
        arrays = remembered(self.context.model, self.setup.learner.optimizer, self.weights)
        with self.weights.shown():
            record = self._record(float((logs or {})["loss"]), seconds)
            best = self._decide(record)
            over = self._out_of_patience or epoch + 1 == self.context.stage.epochs
            standing = self._standing(best, arrays, over=over)
            self._commit(record.figure(self.context.early_stopping.metric), standing)
        self.best = best
        prune_checkpoints(self.context.folder, best=best.checkpoint)
        self.context.listener.epoch_done(record)
        self.enough = self.context.enough(record)
        self.model.stop_training = self.enough or self._out_of_patience
        self.context.stop.check()

    def commit(self, figure: float | None) -> Path:
        """Commit a checkpoint of the weights as they would be kept now, unless that of the last epoch is it."""
        if self._committed is not None and self._committed[0] == self.position.step:
            return self._committed[1]
        with self.weights.shown():
            return self._commit(figure)

    def _commit(self, figure: float | None, standing: Standing | None = None) -> Path:
        context, resume = self.context, None if standing is None else standing.as_resume()
        state = TrainingState(context.stage.name, self.position.epoch, self.position.step, figure)
        path = commit_checkpoint(
            context.folder, context.model, state, context.weights_at_start, context.learned, resume
        )
        self._committed = self.position.step, path
        return path

    def _standing(self, best: Best, arrays: dict[str, Any], *, over: bool) -> Standing:
        context = self.context
        return Standing(
            stage=context.stage.name,
            began=context.start,
            position=self.position,
            over=over,
            best=best,
            learned=context.learned,
            patience=Patience(self._stalled_epochs, self._plateau.state),
            averaged_epochs=self.weights.averaged_epochs,
            facts=context.facts,
            arrays=arrays,
        )

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
        return (-gain if is_lower_better(watched.metric) else gain) > watched.min_delta

    def _decide(self, record: EpochRecord) -> Best:
        """Count an epoch for whatever waits for improvements, and return the best epoch so far."""
        improved = self._improves(record)
        self._stalled_epochs = 0 if improved else self._stalled_epochs + 1
        self._plateau.after_epoch(improved=improved)
        if self.best is None or improved or self.context.early_stopping.keep == "last":
            return Best(record, checkpoint_path(self.context.folder, self.position.step))
        return self.best

    @property
    def _out_of_patience(self) -> bool:
        patience = self.context.early_stopping.patience
        return patience is not None and self._stalled_epochs > patience

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
