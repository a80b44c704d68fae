"""Interface of executors, which run each trial in a process of its own, several at a time; tasks and outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from imagetune.recipe.schema import Recipe


@dataclass(frozen=True)
class Task:
    """Everything that the process of a trial needs; it is pickled.

    Attributes:
        trial_id: Name of the trial.
        folder: Run folder of the trial, absolute, not there yet; every machine sees it under this path.
        recipe: Complete, validated recipe, which ``imagetune fit`` would repeat.
        epochs: Hyperband: the last epoch, counted over all stages; schedules stay those of the whole recipe.
        continues: Hyperband: run folder of the trial whose training this one continues from its last checkpoint.
        compared: Median stopping: run folders of the earlier trials that this one is compared with, whether they have
            ended or not; none switches it off.
        probe: Bake-off: a linear probe of the backbone's features in place of a training.
        probed: Bake-off: run folder of the probe of the backbone that is fine-tuned.
    """

    trial_id: str
    folder: Path
    recipe: Recipe
    epochs: int | None = None
    continues: Path | None = None
    compared: tuple[Path, ...] = ()
    probe: bool = False
    probed: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """Result of a trial's process; it is pickled.

    Attributes:
        status: ``stopped`` is median stopping; ``lost`` is a trial whose machine went away or that was asked to stop:
            it may be run again.
        objective: Validation metric of the epoch whose weights are kept; None where there is none.
        epochs: How many epochs were trained.
        best_epoch: Epoch with the objective, counted from 1 over all stages.
        seconds: Wall time from the start of the process to its end.
        place: Where it ran: a machine or a GPU.
        error: Why it failed, one line with its code.
    """

    status: Literal["completed", "stopped", "failed", "lost"]
    objective: float | None = None
    epochs: int = 0
    best_epoch: int | None = None
    seconds: float = 0.0
    place: str = ""
    error: str = ""


# Runs a trial from its beginning to its end; only a bug raises. It is pickled, so it is a module's function or a
# functools.partial of one.
Work = Callable[[Task], Outcome]


class Executor(Protocol):
    """Runs tasks in parallel. All its methods are called from one thread."""

    @property
    def slots(self) -> int:
        """How many tasks may run at a time."""

    def start(self, task: Task) -> None:
        """Start a task; only while fewer than ``slots`` run."""

    def wait(self, timeout_seconds: float) -> Sequence[tuple[Task, Outcome]]:
        """Return the tasks that ended since the last call, after waiting at most ``timeout_seconds`` for the first."""

    def close(self) -> None:
        """Ask running tasks to stop, kill after a while those that don't, and free everything."""
