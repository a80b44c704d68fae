"""Counts, lists, durations and guesses in words, the same on the screen, on pages and in errors."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return ``1 picture`` or ``2,000 pictures``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def shortened(words: Iterable[str], *, most: int = 5) -> str:
    """Return the words with commas between, and how many more there are."""
    listed = list(words)
    rest = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest


def duration(seconds: float) -> str:
    """Return ``12 s``, ``3 min`` or ``1 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the known word that looks most like this one, or "" without one."""
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return f"did you mean {folded[close[0]]!r}?" if close else ""
