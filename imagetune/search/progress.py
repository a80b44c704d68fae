"""Progress of running trials: stage, epoch and best metric so far, read from their folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from imagetune.core.files import read_json_lines
from imagetune.run_folder.folder import RunFolder
from imagetune.search.executors.protocol import Task
from imagetune.search.proposers.finalists import get_direction


@dataclass(frozen=True)
class TrialProgress:
    """Progress of a running trial.

    Attributes:
        stage: Name of the stage that it trains; empty before the first step.
        epoch: The present epoch, counted from 1 over all stages; 0 before the first.
        epochs: The largest number of epochs that it may train.
        objective: Best objective so far; None before the first validation.
    """

    stage: str
    epoch: int
    epochs: int
    objective: float | None


class ProgressReader:
    """Reads the progress of a trial from its folder; metrics.jsonl is read again only when it has grown.

    Args:
        task: Task of the trial.
        objective: Name of the validation metric.
    """

    def __init__(self, task: Task, objective: str) -> None:
        self._folder = RunFolder(task.folder)
        self._objective = objective
        self._better: Callable[..., float] = min if get_direction(objective) == "min" else max
        self._epochs = task.epochs or sum(stage.epochs for stage in task.recipe.train.stages)
        self._size = 0
        self._best: float | None = None

    def read(self) -> TrialProgress:
        """Return the present progress of the trial."""
        status = self._folder.read_status()
        self._read_metrics()
        epoch = status.get("epoch")
        return TrialProgress(
            str(status.get("stage") or ""), epoch if isinstance(epoch, int) else 0, self._epochs, self._best
        )

    def _read_metrics(self) -> None:
        path = self._folder.metrics
        try:
            size = path.stat().st_size
            if size == self._size:
                return
            # Before the lines are read: what is appended meanwhile changes the size once more.
            self._size = size
            metrics = [line.get("val", {}).get(self._objective) for line in read_json_lines(path)]
        # The trial may be starting again, or a network disk lag behind: a later call reads it.
        except (OSError, ValueError):
            return
        known = [float(metric) for metric in metrics if isinstance(metric, (int, float))]
        self._best = self._better(known) if known else None
