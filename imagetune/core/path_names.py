"""Names of files that no file system has, told before anything asks for one."""

from __future__ import annotations

import os
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
