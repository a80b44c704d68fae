"""Who hears of the progress of a run or a search that a Python program started."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from imagetune.search.executors.protocol import Task
from imagetune.search.listeners import SearchPlan
from imagetune.search.proposers.finalists import Candidate
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.training.setup.events import EpochRecord, SilentListener

Hear: TypeAlias = Callable[[EpochRecord], object]
HearSearch: TypeAlias = Callable[[EpochRecord | TrialResult], object]


class EpochListener(SilentListener):
    """A listener that passes each epoch on.

    Args:
        hear: Called with each epoch's metrics once its checkpoint is committed.
    """

    def __init__(self, hear: Hear) -> None:
        self._hear = hear

    def epoch_done(self, record: EpochRecord) -> None:
        """Pass it on."""
        self._hear(record)


class TrialWatcher:
    """A watcher that passes each trial on that has ended.

    Args:
        hear: Called with how it ended.
    """

    def __init__(self, hear: HearSearch) -> None:
        self._hear = hear

    def search_started(self, plan: SearchPlan) -> None:
        """Ignore it."""

    def trial_started(self, trial: Trial, task: Task) -> None:
        """Ignore it."""

    def trial_ended(self, result: TrialResult, task: Task | None) -> None:
        """Pass it on."""
        del task
        self._hear(result)

    def tick(self) -> None:
        """Ignore it."""

    def refit_started(self, winner: Candidate) -> None:
        """Ignore it."""
