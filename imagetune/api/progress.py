"""Progress callbacks of the Python API: functions called with each epoch or each finished trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from imagetune.search.executors.protocol import Task
from imagetune.search.listeners import SearchPlan
from imagetune.search.proposers.finalists import Candidate
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.training.setup.events import EpochRecord, SilentListener

EpochCallback: TypeAlias = Callable[[EpochRecord], object]
SearchCallback: TypeAlias = Callable[[EpochRecord | TrialResult], object]


class EpochListener(SilentListener):
    """A listener that calls a function with each epoch, and ignores stages and steps.

    Args:
        hear: Called with each epoch's metrics once its checkpoint is committed.
    """

    def __init__(self, hear: EpochCallback) -> None:
        self._hear = hear

    def epoch_done(self, record: EpochRecord) -> None:
        """Call the function with the epoch's record."""
        self._hear(record)


class TrialWatcher:
    """A watcher that calls a function with each trial that has ended, and ignores all else.

    Args:
        hear: Called with the trial's result.
    """

    def __init__(self, hear: SearchCallback) -> None:
        self._hear = hear

    def search_started(self, plan: SearchPlan) -> None:
        """Ignore the plan of the search."""

    def trial_started(self, trial: Trial, task: Task) -> None:
        """Ignore the start of a trial."""

    def trial_ended(self, result: TrialResult, task: Task | None) -> None:
        """Call the function with the trial's result."""
        del task
        self._hear(result)

    def tick(self) -> None:
        """Ignore the passing of time."""

    def refit_started(self, winner: Candidate) -> None:
        """Ignore the start of the refit."""
