"""Command lines that nobody meant: wrong words, missing and odd paths."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tests.faults.attack.case import Case, Room

WRONG = frozenset({2, 3, 5, 6, 7, 9})
ODD_PATHS = {
    "missing": "nosuch",
    "dash": "-",
    "empty": "",
    "dot": ".",
    "root": "/",
    "device": "/dev/zero",
    "process": "/proc/self/mem",
    "long": "x" * 5000,
    "many-parts": "/".join(["x"] * 5000),
    "newline": "two\nlines",
    "escape": "\x1b[2J\x1b]0;title\x07",
    "not-unicode": "b\udcff\udcfe.png",
    "uri": "http://127.0.0.1:9/x",
    "runs-uri": "runs:/../../outside",
    "models-uri": "models:/x/../../y",
}
TAKERS = {
    "fit": ("fit", "{}"),
    "check": ("data", "check", "{}"),
    "validate": ("recipe", "validate", "{}"),
    "evaluate": ("evaluate", "{}"),
    "report": ("report", "{}"),
    "compare": ("compare", "{}", "{}"),
    "predict": ("predict", "{run}", "{}"),
}


# Folders stand for a recipe with defaults, and all images of a machine can be predicted by whoever has the time.
GOOD = {("validate", "dot"), ("validate", "root"), ("predict", "root")}


def cases() -> Iterator[Case]:
    """Yield each odd path at each place where a path is taken."""
    for taker, words in TAKERS.items():
        for name, path in ODD_PATHS.items():
            if (taker, name) in GOOD:
                continue
            yield Case(f"command_lines/{taker}-{name}", partial(_fill, words, path), codes=WRONG, says=r"(?i)error")


def _fill(words: tuple[str, ...], path: str, room: Room) -> list[str]:
    return [word.format(path, run=room.shared / "run") if "{" in word else word for word in words]
