"""Running time of a search without its pauses, as between two sessions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from imagetune.search.records.trial import TrialResult

# Between two trials of one session pass seconds; a resumed search starts and reads its images first.
_PAUSE_SECONDS = 120.0


@dataclass(frozen=True)
class Clock:
    """Conversion from the time of day to seconds of running time of a search.

    Attributes:
        spans: Begin and end of every stretch in which trials ran, in order, in seconds since 1970.
    """

    spans: tuple[tuple[float, float], ...]

    def seconds(self, moment: float) -> float:
        """Return the running time of the search up to a moment, given in seconds since 1970."""
        return sum(min(max(moment - begin, 0.0), end - begin) for begin, end in self.spans)

    @property
    def total(self) -> float:
        """The running time of the whole search in seconds."""
        return sum(end - begin for begin, end in self.spans)

    @property
    def pauses(self) -> tuple[float, ...]:
        """The running times at which the search was resumed."""
        return tuple(self.seconds(begin) for begin, _ in self.spans[1:])


def build_clock(results: Iterable[TrialResult]) -> Clock:
    """Return the clock of a search from its trials; those that never ran don't count."""
    spans: list[tuple[float, float]] = []
    for began, seconds in sorted((result.began, result.seconds) for result in results if result.seconds > 0):
        if spans and began <= spans[-1][1] + _PAUSE_SECONDS:
            spans[-1] = (spans[-1][0], max(spans[-1][1], began + seconds))
        else:
            spans.append((began, began + seconds))
    return Clock(tuple(spans))
