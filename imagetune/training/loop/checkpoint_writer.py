"""Writing checkpoints beside the training, which waits only for the copy of the weights in memory."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import keras

from imagetune.training.loop.checkpoints import (
    InitialWeights,
    Snapshot,
    prune_checkpoints,
    take_snapshot,
    write_checkpoint,
)
from imagetune.training.loop.state import TrainingState


class CheckpointWriter:
    """Writer of a stage's checkpoints, one at a time, in a thread of its own.

    As a context manager it ends when its last checkpoint is complete. An error of the disk is raised by whichever
    method is called next; where the block has failed already, the block's error stays the one that is reported.

    Args:
        folder: Folder of the run's checkpoints.
        initial: Weights that training started with.

    Raises:
        ResourceError: The disk is full; earlier checkpoints are untouched.
    """

    def __init__(self, folder: Path, initial: InitialWeights) -> None:
        self._folder = folder
        self._initial = initial
        self._thread = ThreadPoolExecutor(1, "imagetune-checkpoint")
        self._written: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self.wait()
        except Exception:
            if error is None:
                raise
        finally:
            self._thread.shutdown()

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is still being written."""
        return self._written is not None and not self._written.done()

    def commit(self, model: keras.Model, state: TrainingState) -> None:
        """Copy the weights, and write them as a checkpoint when the one before is complete.

        Args:
            model: Model whose weights are written; it may be trained on at once.
            state: State of training; its arrays must not be changed any more.
        """
        self.wait()
        self._written = self._thread.submit(_write, self._folder, take_snapshot(model, state, self._initial))

    def check(self) -> None:
        """Raise the error of a checkpoint that couldn't be written, without waiting for one that is being written."""
        if not self.busy:
            self.wait()

    def wait(self) -> None:
        """Wait until the last checkpoint is complete."""
        written, self._written = self._written, None
        if written is not None:
            written.result()


def _write(folder: Path, snapshot: Snapshot) -> None:
    write_checkpoint(folder, snapshot)
    # Only now that the new checkpoint is complete.
    prune_checkpoints(folder)
