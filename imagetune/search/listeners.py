"""What a search tells whoever watches it: the screen, and what copies its trials to MLflow."""

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
    """What a search is about to do.

    Attributes:
        folder: Its run folder.
        recipe: Its recipe, spaces at their defaults.
        paths: What is searched.
        direction: Whether a smaller or a larger objective is better.
        slots: Trials at a time.
        expected: How many there will be.
        budget: What they may cost.
        known: How the trials of earlier sessions ended.
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
    """Hears of a search; must be quick and must not raise."""

    def search_started(self, plan: SearchPlan) -> None:
        """Hear what is going to happen, before the first trial."""

    def refit_started(self, winner: Candidate) -> None:
        """Hear that all trials have ended and the winner is trained once more."""


class Watchers:
    """Passes everything on to several watchers, in their order.

    Args:
        watchers: Who watches.
    """

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = tuple(watchers)

    def search_started(self, plan: SearchPlan) -> None:
        """Pass it on."""
        for watcher in self._watchers:
            watcher.search_started(plan)

    def trial_started(self, trial: Trial, task: Task) -> None:
        """Pass it on."""
        for watcher in self._watchers:
            watcher.trial_started(trial, task)

    def trial_ended(self, result: TrialResult, task: Task | None) -> None:
        """Pass it on."""
        for watcher in self._watchers:
            watcher.trial_ended(result, task)

    def tick(self) -> None:
        """Pass it on."""
        for watcher in self._watchers:
            watcher.tick()

    def refit_started(self, winner: Candidate) -> None:
        """Pass it on."""
        for watcher in self._watchers:
            watcher.refit_started(winner)
