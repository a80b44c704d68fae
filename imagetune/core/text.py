"""Text formatting for screens, pages and errors: counts, lists, durations, suggestions, and untrusted texts.

Names of files and classes, values of recipes and words of servers may come from untrusted sources: on a screen they
must not move the cursor, and in Markdown they must not be a link.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable

# Control characters, line and paragraph separators, what turns the direction of text around, and invisible tags.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]")
_MARKDOWN = re.compile(r"[\\`*\[\]|$]|~(?=~)|(?<![^\W_])_|_(?![^\W_])|(?<=[a-z]):(?=//)|(?<=www)\.", re.IGNORECASE)
_ENTITY = re.compile(r"&(?=#?\w+;)")
# What makes a list, heading, quotation or rule of a line. A number such as -0.5 stays as it is.
_MARKDOWN_START = re.compile(r"^(\s*)([#>=]|[-+](?=[\s+-]|$)|\d+(?=[.)](?:\s|$)))")


def escape_controls(text: str) -> str:
    r"""Return a text in which control characters stand as visible escapes: ``\u001b`` for that of terminals.

    The escapes are those of JSON, in whose strings they mean the same character.
    """
    return CONTROLS.sub(lambda found: json.dumps(found[0])[1:-1], text)


def escape_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line: no link, image, heading, table cell or HTML."""
    plain = " ".join(text.replace("\r", "\n").split("\n"))
    # An entity for HTML, whose sign some renderers take in spite of a backslash.
    plain = _ENTITY.sub("&amp;", escape_controls(plain)).replace("<", "&lt;")
    escaped = _MARKDOWN.sub(r"\\\g<0>", plain)
    return _MARKDOWN_START.sub(lambda found: f"{found[1]}{_escape_start(found[2])}", escaped)


def _escape_start(sign: str) -> str:
    # Of 1. it is the dot that makes a list.
    return f"{sign}\\" if sign.isdigit() else f"\\{sign}"


def format_code(text: str) -> str:
    """Return a text as Markdown code, with as many backticks around it as it needs; a bar would end a table's cell."""
    plain = escape_controls(text).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    blank = " " if "`" in plain else ""
    return f"{fence}{blank}{plain}{blank}{fence}"


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
