"""Temporary files: named after the process that makes them, so that what killed processes leave can be told."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import time
from contextlib import suppress
from pathlib import Path

_TEMPORARY = re.compile(r"\.tmp-([0-9a-f]{6})-(\d{1,10})-")
_LEFTOVER_SECONDS = 24 * 3600.0


def name_temporary() -> str:
    """Return how names of temporary files and folders of this process begin, which tell it from others: host and id."""
    return f".tmp-{_host()}-{os.getpid()}-"


def list_leftovers(folder: Path) -> list[Path]:
    """Return the temporary files and folders in a folder whose process has died, or that are older than a day.

    A process of another machine can't be asked, so that its files have to be old.
    """
    found = []
    for path in folder.glob(".tmp-*"):
        name = _TEMPORARY.match(path.name)
        with suppress(OSError):
            dead = name is not None and name[1] == _host() and not _is_alive(int(name[2]))
            if dead or (name is not None and time.time() - path.lstat().st_mtime > _LEFTOVER_SECONDS):
                found.append(path)
    return found


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # that of another user
        pass
    return True
