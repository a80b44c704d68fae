"""Names of files: what no file system can hold, their spelling in Unicode, a user's home, and how they are shown."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

# What Linux and macOS allow at most, without the room for the names of temporary files.
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4000


def find_path_problem(path: str | Path) -> str:
    """Return what makes a path impossible on every file system; "" where nothing does.

    Asking the system about such a path raises errors of several types, in whichever call comes first.
    """
    try:
        content = os.fsencode(path)
    except UnicodeEncodeError:
        return "the path has half a surrogate pair, which no file name can hold"
    if b"\0" in content:
        return "the path has a null character, which no file name can hold"
    longest = max(map(len, content.split(b"/")), default=0)
    if longest > MAX_NAME_BYTES:
        return f"a name in the path has {longest:,} bytes, and the most is {MAX_NAME_BYTES}"
    if len(content) > MAX_PATH_BYTES:
        return f"the path has {len(content):,} bytes, and the most is {MAX_PATH_BYTES:,}"
    return ""


def is_utf8(path: str) -> bool:
    """Return whether a path can be written as UTF-8: one that can't has surrogates for the bytes that aren't."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def format_path(path: str) -> str:
    r"""Return a path as text that screens, JSON and CSV files can hold: ``caf\xe9.png`` for a name in Latin-1."""
    return path if is_utf8(path) else os.fsencode(path).decode(errors="backslashreplace")


def find_spelling(path: str) -> str:
    """Return the path of an existing file whose names differ from a path's only in Unicode's normal form.

    macOS writes ä as two code points and other systems as one, so an archive or a table from there names the same file
    in other bytes. A path that exists, or has no such file, comes back as it is.
    """
    if path.isascii() or os.path.lexists(path):
        return path
    found = Path(path).anchor
    for part in Path(path).parts[1 if found else 0 :]:
        spellings = (part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part))
        existing = (name for name in spellings if os.path.lexists(Path(found, name)))
        found = str(Path(found, next(existing, part)))
    return found if os.path.lexists(found) else path


def expand_home(path: str | Path) -> Path:
    """Return a path with ``~`` or ``~name`` replaced by that user's home; as it is where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def format_relative_path(path: str, root: Path) -> str:
    """Return an image's path as in splits.csv: relative to the root if it lies below it, with forward slashes."""
    start = f"{root}{os.sep}"
    return path[len(start) :].replace(os.sep, "/") if path.startswith(start) else path
