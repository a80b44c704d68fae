"""What decides which trial comes next."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import Protocol

from imagetune.search.records.trial import Trial


class Turn(Enum):
    """Why there is no trial to start."""

    WAIT = "wait"
    """Running trials have to end first."""
    OVER = "over"
    """The search is over."""


class Proposer(Protocol):
    """Asked for trials and told how they ended. The same predictions make it ask for the same trials."""

    def ask(self) -> Trial | Turn:
        """Return the next trial to run; several may be open."""

    def tell(self, trial: Trial, objective: float | None) -> None:
        """Hear how an open trial ended.

        Args:
            trial: One that ``ask`` returned; a replayed one of an earlier session may have other values under the same
                name, which stand.
            objective: The finite metric that was reached; None for a failed trial.
        """


class ListProposer:
    """Trials that are known from the beginning.

    Args:
        trials: In the order in which they are to be run.
    """

    def __init__(self, trials: Iterable[Trial]) -> None:
        self._waiting = deque(trials)

    def ask(self) -> Trial | Turn:
        """Return the next one."""
        return self._waiting.popleft() if self._waiting else Turn.OVER

    def tell(self, trial: Trial, objective: float | None) -> None:
        """Nothing depends on it."""
