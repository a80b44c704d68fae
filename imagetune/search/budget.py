"""Budget of a search: limits on trials and hours, and how much of them is spent."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from imagetune.recipe.sections.search import BudgetConfig
from imagetune.search.records.trial import TrialResult


@dataclass(frozen=True)
class Budget:
    """The budget of a search across its sessions.

    Attributes:
        config: The limits, ``search.budget``.
        spent_seconds: Seconds that trials of earlier sessions ran.
        began: When this session began, in seconds of the monotonic clock.
    """

    config: BudgetConfig
    spent_seconds: float = 0.0
    # The monotonic clock: setting the system's time must neither end a search early nor prolong it.
    began: float = field(default_factory=time.monotonic)

    def may_start(self, trials: int) -> bool:
        """Return whether the budget allows one more trial after ``trials`` of them."""
        if self.config.trials is not None and trials >= self.config.trials:
            return False
        # A trial may start while any time is left, and may overdraw it: it isn't cut off.
        left = self.seconds_left()
        return left is None or left > 0.0

    def seconds_left(self) -> float | None:
        """Return the remaining seconds, negative once they are overdrawn; None without ``search.budget.hours``."""
        return None if self.config.hours is None else self.config.hours * 3600 - self.compute_spent_seconds()

    def compute_spent_seconds(self) -> float:
        """Return the seconds of this session, and those that trials of earlier sessions ran."""
        return self.spent_seconds + time.monotonic() - self.began


def compute_busy_seconds(results: Iterable[TrialResult]) -> float:
    """Return for how many seconds at least one trial ran: parallel trials count once, pauses between sessions don't."""
    busy, until = 0.0, float("-inf")
    # In order of their beginnings, so that a trial which overlaps earlier ones adds its end alone.
    for began, seconds in sorted((result.began, result.seconds) for result in results):
        ended = began + seconds
        busy += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return busy
