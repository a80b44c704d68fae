"""Interface of proposers, which decide the next trial: ask for a trial, tell its result."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import Protocol

from imagetune.search.records.trial import Trial


class Turn(Enum):
    """Reason why a proposer has no trial to start."""

    WAIT = "wait"
    """The next trial depends on the results of running ones."""
    OVER = "over"
    """The proposer has no more trials."""


class Proposer(Protocol):
    """An ask-and-tell optimiser: it proposes trials and gets their results; the same results give the same trials."""

    def ask(self) -> Trial | Turn:
        """Return the next trial to run, or why there is none; several trials may be open at a time."""

    def tell(self, trial: Trial, objective: float | None) -> None:
        """Take the result of an open trial.

        Args:
            trial: A trial from ``ask``. One that is replayed from the journal may have other values than were proposed
                now under its name; then the journal's count.
            objective: The objective that was reached, finite; None for a failed trial.
        """


class ListProposer:
    """A proposer of trials that are known from the beginning, such as the finalists' repeats.

    Args:
        trials: The trials in the order in which they are to run.
    """

    def __init__(self, trials: Iterable[Trial]) -> None:
        self._waiting = deque(trials)

    def ask(self) -> Trial | Turn:
        """Return the next trial of the list."""
        return self._waiting.popleft() if self._waiting else Turn.OVER

    def tell(self, trial: Trial, objective: float | None) -> None:
        """Ignore the result: no later trial depends on it."""
