"""Callbacks of a search, for those who watch it: the progress display, and the copies of trials in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imagetune.recipe.document import NodePath
from imagetune.recipe.schema import Recipe
from imagetune.search.budget import Budget
from imagetune.search.executors.protocol import Task
from imagetune.search.forecast import Expected
from imagetune.search.loop import SearchListener
from imagetune.search.proposers.finalists import Candidate, Direction
from imagetune.search.records.trial import Trial, TrialResult


@dataclass(frozen=True)
class SearchPlan:
    """The plan of a search, as it is known before the first trial.

    Attributes:
        folder: Run folder of the search.
        recipe: Its recipe, spaces at their defaults.
        paths: Recipe paths of the search spaces.
        direction: Whether a smaller or a larger objective is better.
        slots: How many trials run at a time.
        expected: Expected number of trials and trainings.
        budget: Limits on trials and hours.
        known: Results of the trials of earlier sessions.
    """

    folder: Path
    recipe: Recipe
    paths: tuple[NodePath, ...]
    direction: Direction
    slots: int
    expected: Expected
    budget: Budget
    known: tuple[TrialResult, ...]


class Watcher(SearchListener, Protocol):
    """Callbacks of a whole search. They run in the search's own thread: they must be quick and must not raise."""

    def search_started(self, plan: SearchPlan) -> None:
        """Called with the plan before the first trial."""

    def refit_started(self, winner: Candidate) -> None:
        """Called when all trials have ended, before the winner is trained once more."""


class Watchers:
    """A watcher that calls several watchers, in their order.

    Args:
        watchers: The watchers to call.
    """

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = tuple(watchers)

    def search_started(self, plan: SearchPlan) -> None:
        """Pass the plan on to every watcher."""
        for watcher in self._watchers:
            watcher.search_started(plan)

    def trial_started(self, trial: Trial, task: Task) -> None:
        """Pass the start of a trial on to every watcher."""
        for watcher in self._watchers:
            watcher.trial_started(trial, task)

    def trial_ended(self, result: TrialResult, task: Task | None) -> None:
        """Pass the result of a trial on to every watcher."""
        for watcher in self._watchers:
            watcher.trial_ended(result, task)

    def tick(self) -> None:
        """Pass the tick on to every watcher."""
        for watcher in self._watchers:
            watcher.tick()

    def refit_started(self, winner: Candidate) -> None:
        """Pass the start of the refit on to every watcher."""
        for watcher in self._watchers:
            watcher.refit_started(winner)
