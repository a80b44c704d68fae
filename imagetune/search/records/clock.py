"""The time of a search as its trials saw it: pauses, as between two sessions, are left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from imagetune.search.records.trial import TrialResult

_PAUSE_SECONDS = 120.0


@dataclass(frozen=True)
class Clock:
    """Turns the time of day into seconds of the search.

    Attributes:
        spans: Begin and end of every stretch in which trials ran, in order, seconds since the epoch.
    """

    spans: tuple[tuple[float, float], ...]

    def seconds(self, moment: float) -> float:
        """Return how many seconds of the search had passed by then."""
        return sum(min(max(moment - begin, 0.0), end - begin) for begin, end in self.spans)

    @property
    def total(self) -> float:
        """Return the seconds of the whole search."""
        return sum(end - begin for begin, end in self.spans)

    @property
    def pauses(self) -> tuple[float, ...]:
        """Return where stretches after the first begin, in seconds of the search."""
        return tuple(self.seconds(begin) for begin, _ in self.spans[1:])


def clock_of(results: Iterable[TrialResult]) -> Clock:
    """Return the clock of trials; those that never ran don't count."""
    spans: list[tuple[float, float]] = []
    for began, seconds in sorted((result.began, result.seconds) for result in results if result.seconds > 0):
        if spans and began <= spans[-1][1] + _PAUSE_SECONDS:
            spans[-1] = (spans[-1][0], max(spans[-1][1], began + seconds))
        else:
            spans.append((began, began + seconds))
    return Clock(tuple(spans))
