"""When a search has cost enough."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from imagetune.recipe.search import BudgetConfig
from imagetune.search.records.trial import TrialResult


@dataclass(frozen=True)
class Budget:
    """What a search may cost.

    Attributes:
        config: The limits.
        spent_seconds: What earlier sessions took.
        began: When this session began, on the monotonic clock.
    """

    config: BudgetConfig
    spent_seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def may_start(self, trials: int) -> bool:
        """Tell whether one more trial may start after so many."""
        if self.config.trials is not None and trials >= self.config.trials:
            return False
        left = self.seconds_left()
        return left is None or left > 0.0

    def seconds_left(self) -> float | None:
        """Return the seconds that are left, negative when they are overdrawn; None without a limit."""
        if self.config.hours is None:
            return None
        return self.config.hours * 3600 - self.spent_seconds - (time.monotonic() - self.began)


def busy_seconds(results: Iterable[TrialResult]) -> float:
    """Return for how long at least one of these trials ran: several at a time count once, pauses don't."""
    busy, until = 0.0, float("-inf")
    for began, seconds in sorted((result.began, result.seconds) for result in results):
        ended = began + seconds
        busy += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return busy
