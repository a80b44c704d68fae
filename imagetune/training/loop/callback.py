"""Keras callback of a stage: checks the loss, validates, commits checkpoints, and stops early."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import keras
from numpy.typing import NDArray

from imagetune.errors import DivergedError
from imagetune.training.loop.checkpoint_writer import CheckpointWriter
from imagetune.training.loop.checkpoints import get_checkpoint_path
from imagetune.training.loop.resume import collect_arrays, restore_sums
from imagetune.training.loop.state import BestEpoch, StageState, TrainingState, improves
from imagetune.training.loop.weight_averaging import KeptWeights
from imagetune.training.optimization.optimizer import scale_learning_rate
from imagetune.training.optimization.schedules import PlateauLearningRate
from imagetune.training.setup.events import EpochRecord, StepDone
from imagetune.training.setup.job import TrainingJob
from imagetune.training.setup.stages import StageSetup

# Called after every epoch; true ends the training there.
StopCondition = Callable[[EpochRecord], bool]


class StageCallback(keras.callbacks.Callback):
    """Callback of a stage: checks the loss, validates, commits checkpoints, keeps the best epoch and stops early.

    Args:
        job: The training job.
        state: State at the beginning of the stage, or of the earlier training of it that is resumed.
        setup: The prepared stage.
        weights: Weights that the stage trains and keeps.
        validate: Returns the validation metrics of the current model.
        writer: Writes the checkpoints.
        stop_when: Called after every epoch; true ends the training there.
        resumed: Arrays of the checkpoint that the stage is resumed from; empty where it begins.

    Attributes:
        state: Current state of training.
        stopped: Whether ``stop_when`` has ended the training, whatever stages are left.
    """

    def __init__(
        self,
        job: TrainingJob,
        state: TrainingState,
        setup: StageSetup,
        weights: KeptWeights,
        *,
        validate: Callable[[], dict[str, float]],
        writer: CheckpointWriter,
        stop_when: StopCondition,
        resumed: Mapping[str, NDArray[Any]],
    ) -> None:
        super().__init__()
        self.job = job
        self.state = state
        self.setup = setup
        self.weights = weights
        self.validate = validate
        self.writer = writer
        self.stop_when = stop_when
        self.stopped = False
        self._early_stopping = setup.stage.early_stopping or job.config.early_stopping
        self._plateau = PlateauLearningRate(setup.schedule, self._stage.plateau)
        self._committed_step: int | None = None
        self._committed_at = time.monotonic()
        self._began, self._began_step = 0.0, state.step
        self._resumed = resumed if self.steps_of_epoch else {}

    @property
    def _stage(self) -> StageState:
        if self.state.stage is None:
            raise ValueError("a callback works in a stage")
        return self.state.stage

    @property
    def epochs_of_stage(self) -> int:
        """Number of finished epochs of the stage."""
        return self.state.epoch - self._stage.epochs_before

    @property
    def steps_of_epoch(self) -> int:
        """Number of passes of the epoch that has begun; 0 between two epochs."""
        return self._steps_of_stage - self.epochs_of_stage * self.job.steps_per_epoch

    @property
    def ended(self) -> bool:
        """Whether the stage has no more epochs."""
        return self.stopped or self._stage.finished

    @property
    def _steps_of_stage(self) -> int:
        return self.state.step - self._stage.steps_before

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock of the epoch, with the sums that it had where it is resumed."""
        del epoch, logs
        self._began, self._began_step = time.perf_counter(), self.state.step
        if self._resumed:
            restore_sums(self._resumed, self.model, self.setup.tally)
            self._resumed = {}

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the learning rate of a plateau schedule, which depends on the validation metrics."""
        del batch, logs
        if self.setup.schedule.config.name != "plateau":
            return
        factor = self._plateau.before_step(self._steps_of_stage // self.job.config.accumulation)
        if factor != 1.0:
            if keras.backend.backend() == "jax":  # its state lives outside the variables during an epoch
                self.model.jax_state_sync()
            scale_learning_rate(self.model.optimizer, factor)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Check that the loss is finite, notify the listener, commit where it is time, and stop on request.

        Raises:
            DivergedError: The loss is not finite.
            ResourceError: The disk is full.
            StoppedError: A signal was received.
        """
        del batch
        loss = float((logs or {})["loss"])
        # Counted before the check, so that the error names the step that diverged.
        self.state = replace(self.state, step=self.state.step + 1)
        if not math.isfinite(loss):
            raise self._diverged(loss)
        done, steps = self.steps_of_epoch, self.job.steps_per_epoch
        self.job.listener.step_done(StepDone(self._stage.name, self.state.epoch + 1, done, steps, loss))
        # The end of an epoch commits itself, and asks then.
        if done < steps:
            self.writer.check()
            if self._is_commit_due():
                self.commit()
            self.job.stop.check()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validate, commit a checkpoint, and decide whether the stage goes on.

        Raises:
            DivergedError: The validation loss is not finite.
            ResourceError: The disk is full.
            StoppedError: A signal was received.
        """
        seconds = time.perf_counter() - self._began
        self.state = replace(self.state, epoch=self.state.epoch + 1)
        # Before the arrays are collected, because the sum of SWA is one of them.
        self.weights.add_epoch(epoch + 1)
        # Collected before averages are swapped in: training goes on with the learned weights.
        arrays = collect_arrays(self.job.model, self.setup.learner, self.weights)
        with self.weights.swap_in():
            record = self._record(float((logs or {})["loss"]), seconds)
            self._advance(record, last=epoch + 1 == self.setup.stage.epochs)
            self._commit(replace(self.state, arrays=arrays))
        self.job.listener.epoch_done(record)
        self.stopped = self.stop_when(record)
        self.model.stop_training = self.ended
        # Last of all: a signal doesn't cost the epoch that has just ended.
        self.job.stop.check()

    def commit(self) -> None:
        """Commit a checkpoint of the weights as they would be kept now, unless the last one is the same."""
        if self._committed_step == self.state.step:
            return
        tally = self.setup.tally if self.steps_of_epoch else None
        arrays = collect_arrays(self.job.model, self.setup.learner, self.weights, tally)
        stage = replace(self._stage, plateau=self._plateau.state)
        with self.weights.swap_in():
            self._commit(replace(self.state, stage=stage, arrays=arrays))

    def _is_commit_due(self) -> bool:
        """Return whether the last commit is long enough ago, and complete: no step waits for a slow disk."""
        past = time.monotonic() - self._committed_at
        return past > 60.0 * self.job.config.commit_minutes and not self.writer.busy

    def _commit(self, state: TrainingState) -> None:
        self.writer.commit(self.job.model, state)
        self._committed_step, self._committed_at = state.step, time.monotonic()

    def _record(self, loss: float, seconds: float) -> EpochRecord:
        val = self.validate()
        if val and not math.isfinite(val["loss"]):
            raise self._diverged(val["loss"])
        return EpochRecord(
            stage=self._stage.name,
            epoch=self.state.epoch,
            step=self.state.step,
            train=self.setup.tally.metrics(loss),
            val=val,
            learning_rate=self._learning_rate(),
            images_per_second=self._count_images() / max(seconds, 1e-9),
        )

    def _count_images(self) -> int:
        """Return the number of images that were trained on since the epoch began, or was resumed."""
        missed = self.job.steps_per_epoch - (self.state.step - self._began_step)
        return len(self.job.images.train) - missed * self.job.config.pass_size

    def _advance(self, record: EpochRecord, *, last: bool) -> None:
        """Update early stopping, plateau, the best and the last epoch with an epoch's record.

        Args:
            record: Record of the epoch.
            last: Whether it is the stage's last epoch.
        """
        best, watched = self.state.best, self._early_stopping
        improved = best is None or improves(record, best.record, watched)
        if best is None or improved or watched.keep == "last":
            best = BestEpoch(record, get_checkpoint_path(self.job.folder, self.state.step))
        self._plateau.after_epoch(improved=improved)
        stalled = 0 if improved else self._stage.stalled_epochs + 1
        stage = replace(
            self._stage,
            stalled_epochs=stalled,
            plateau=self._plateau.state,
            averaged_epochs=self.weights.averaged_epochs,
            finished=last or (watched.patience is not None and stalled > watched.patience),
        )
        self.state = replace(self.state, best=best, last=record, stage=stage)

    def _learning_rate(self) -> float:
        if self.setup.schedule.config.name == "plateau":
            return self._plateau.learning_rate
        # The count is already that of the next step.
        passes = max(self._steps_of_stage - 1, 0)
        return self.setup.schedule.rate_at(passes // self.job.config.accumulation)

    def _diverged(self, loss: float) -> DivergedError:
        return DivergedError(
            f"the loss is {loss} at step {self.state.step} with a learning rate of {self._learning_rate():.3g}",
            where=f"stage {self._stage.name!r}",
            hint="lower its learning_rate or set train.optimizer.clip_norm; the best weights are in checkpoints/",
        )
