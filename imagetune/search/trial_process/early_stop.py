"""Early stopping of a running trial by the median rule, against earlier trials' metrics in their folders."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagetune.core import run_files
from imagetune.core.files import read_json_lines
from imagetune.recipe.sections.train import StageConfig
from imagetune.run_folder.folder import RunFolder
from imagetune.search.proposers.finalists import Direction, get_direction
from imagetune.search.proposers.median_rule import falls_behind, may_end_after
from imagetune.training.setup.events import EpochRecord

_LOOK_SECONDS = 0.2
# A trial writes its status at least once a second while it trains. One that is silent for so long has lost its process
# or its machine without a trace.
SILENT_SECONDS = 120.0


@dataclass
class MedianStopping:
    """Callback after every epoch that says whether the trial ends there.

    It waits for earlier trials that still run and haven't come as far, so that its decision is the same however many
    trials run in parallel. Earlier trials wait only for those before them, never for this one: no deadlock.

    Attributes:
        compared: Run folders of the earlier trials; one need not exist yet.
        objective: Name of the validation metric.
        stages: Stages of the trial's recipe.
        beat: Called while it waits; may raise to stop.
        silent_seconds: How long an earlier trial may write nothing before it is left out.
        metrics: Objective of each epoch of this trial so far.
        silent: Earlier trials that aren't waited for any more.
        stopped: Whether the rule has ended this trial.
    """

    compared: Sequence[Path]
    objective: str
    stages: Sequence[StageConfig]
    beat: Callable[[], None]
    silent_seconds: float = SILENT_SECONDS
    metrics: list[float] = field(default_factory=list)
    silent: set[Path] = field(default_factory=set)
    stopped: bool = False

    def __call__(self, record: EpochRecord) -> bool:
        """Add an epoch's metrics, and return whether the trial ends after it."""
        self.metrics.append(record.val[self.objective])
        if not self.compared or not may_end_after(self.stages, record.epoch):
            return False
        direction: Direction = get_direction(self.objective)
        best = (min if direction == "min" else max)(self.metrics)
        earlier = [self._wait_for(folder, record.epoch) for folder in self.compared]
        self.stopped = falls_behind(best, earlier, epoch=record.epoch, direction=direction)
        return self.stopped

    def _wait_for(self, folder: Path, epoch: int) -> list[float]:
        """Return a trial's metrics up to an epoch, once it has got there or ended; none of one that failed before."""
        seen, since = "", time.monotonic()
        while True:
            # The status first: metrics that are written between the two are no harm, missed ones would be.
            status = RunFolder(folder).read_status()
            metrics = self._read(folder)
            if len(metrics) >= epoch:
                return metrics[:epoch]
            # A trial without a status hasn't begun: it is waited for like one that runs.
            state = status.get("state", "running")
            if state != "running":
                # What had failed before this epoch doesn't count, as if it had never begun (see median_rule).
                return metrics if state == "finished" else []
            if (moved := _progress_mark(folder, len(metrics))) != seen:
                seen, since = moved, time.monotonic()
            if folder in self.silent or time.monotonic() - since > self.silent_seconds:
                # Once is enough: waiting for a dead trial at every epoch would cost this one its time again and again.
                self.silent.add(folder)
                return []
            # While it waits this trial writes its own status, or later ones would take it for silent.
            self.beat()
            time.sleep(_LOOK_SECONDS)

    def _read(self, folder: Path) -> list[float]:
        try:
            return [float(line["val"][self.objective]) for line in read_json_lines(RunFolder(folder).metrics)]
        except (OSError, ValueError, KeyError, TypeError):  # its folder is being replaced
            return []


def _progress_mark(folder: Path, epochs: int) -> str:
    """Return a text that changes whenever a trial makes progress."""
    try:
        return f"{epochs} {(folder / run_files.STATUS).stat().st_mtime_ns}"
    except OSError:
        return f"{epochs}"
