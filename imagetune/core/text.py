"""Text formatting for screens, pages and errors: counts, lists, durations and suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def format_count(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: ``1 image`` or ``2,000 images``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def shorten_middle(text: str, limit: int = 200) -> str:
    """Return a text of at most ``limit`` characters: of a longer one the start and the end, with three dots between."""
    if len(text) <= limit:
        return text
    head = (limit - 3) // 2
    return f"{text[:head]}...{text[head + 3 - limit :]}"


def format_list(words: Iterable[str], *, most: int = 5) -> str:
    """Return words joined by commas, ``a, b and 3 more`` for more than ``most`` words."""
    listed = list(words)
    rest = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest


def format_set_difference(wanted: Iterable[str], found: Iterable[str]) -> str:
    """Return the difference of two sets of names: ``lacks a, b and has c besides``; "" for equal sets."""
    lacking, besides = sorted({*wanted} - {*found}), sorted({*found} - {*wanted})
    parts = [f"lacks {format_list(lacking)}"] if lacking else []
    parts += [f"has {format_list(besides)} besides"] if besides else []
    return " and ".join(parts)


def format_duration(seconds: float) -> str:
    """Return a duration: ``12 s``, ``3 min`` or ``1 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def suggest_name(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the most similar known word, "" without a similar one."""
    similar = find_similar_name(word, known)
    return "" if similar is None else f"did you mean {similar!r}?"


def find_similar_name(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most similar to a word, ignoring case and separators; None without a similar one."""
    folded = {_fold(name): name for name in known}
    close = difflib.get_close_matches(_fold(word), folded, n=1)
    return folded[close[0]] if close else None


def _fold(name: str) -> str:
    folded = name.casefold()
    # A name of separators alone would become empty, and so equal to every other such name.
    return "".join(char for char in folded if char not in "_- ") or folded
