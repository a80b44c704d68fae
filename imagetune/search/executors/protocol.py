"""What runs trials: each in a process of its own, here or elsewhere, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from imagetune.recipe.schema import Recipe


@dataclass(frozen=True)
class Task:
    """A trial as its process needs it; travels pickled.

    Attributes:
        trial_id: Name of the trial.
        folder: Its run folder, absolute, not there yet; every machine sees it under this path.
        recipe: Complete and validated: what ``imagetune fit`` would repeat.
        epochs: Hyperband: where training ends, in epochs of all stages; schedules stay those of the whole recipe.
        continues: Hyperband: run folder of the trial whose last checkpoint training goes on from.
        compared: Median stopping: run folders of the earlier trials that this one is compared with, whether they have
            ended or not; none switches it off.
        probe: Bake-off: a linear probe of the backbone's features in place of a training.
    """

    trial_id: str
    folder: Path
    recipe: Recipe
    epochs: int | None = None
    continues: Path | None = None
    compared: tuple[Path, ...] = ()
    probe: bool = False


@dataclass(frozen=True)
class Outcome:
    """How the process of a trial ended; travels pickled.

    Attributes:
        status: ``lost`` is a trial whose machine went away, or that was ended on purpose: it may be run again.
        objective: The validation metric of the epoch that is kept; None unless there is one.
        epochs: Epochs that were trained.
        best_epoch: Epoch with the objective, from 1 over all stages.
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


# Runs a trial from begin to end and raises nothing but what is a bug. It is pickled: a function of a module, or a
# functools.partial of one.
Work = Callable[[Task], Outcome]


class Executor(Protocol):
    """Runs tasks beside each other. All its methods are called from one thread."""

    @property
    def slots(self) -> int:
        """How many tasks may run at a time."""

    def start(self, task: Task) -> None:
        """Start a task; only while fewer than ``slots`` run."""

    def wait(self, timeout_seconds: float) -> Sequence[tuple[Task, Outcome]]:
        """Return what has ended since the last call, waiting for the first of it at most so long."""

    def close(self) -> None:
        """Ask what still runs to stop, wait a moment, kill what doesn't, and free everything."""
