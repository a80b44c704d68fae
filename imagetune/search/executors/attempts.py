"""Attempts at a trial on a cluster: only the latest writes the trial's folder, even while a lost machine still runs.

The latest attempt writes its name into a claim, a file beside the trial's folder; an earlier one reads it every second
and ends its process when the name is another. The earlier one's folder is then renamed, so that a file which it still
has open moves along. All but its checkpoints is kept in the search's ``interrupted/``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagetune.core import run_files
from imagetune.core.files import read_json_or_empty, write_json

_LOOK_SECONDS = 1.0
# Time for an earlier attempt to read the claim twice.
_SETTLE_SECONDS = 2.5
# Network file systems may show a new file to other machines late.
_APPEAR_SECONDS = 10.0


def locate_claim(folder: Path) -> Path:
    """Return the path of a trial's claim, the file in which the latest attempt writes its name."""
    return folder.with_name(f".{folder.name}.claim")


def open_claim(folder: Path, search: str) -> None:
    """Create a trial's claim with the id of its search, by which other machines see whether the folder is shared.

    Args:
        folder: Run folder of the trial.
        search: Id of the search.
    """
    path = locate_claim(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(search, encoding="utf-8")


def sees_claim(folder: Path, search: str) -> bool:
    """Return whether this machine sees the claim that another has made: whether they share the folder.

    Args:
        folder: Run folder of the trial.
        search: Id of the search.
    """
    deadline = time.monotonic() + _APPEAR_SECONDS
    # Only the beginning: an attempt that has started meanwhile has added its own name behind the search's id.
    while not (_name(folder) or "").startswith(search):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_SECONDS / 4)
    return True


def close_claim(folder: Path) -> None:
    """Remove a trial's claim, upon which an attempt that still runs ends its process."""
    locate_claim(folder).unlink(missing_ok=True)


@contextmanager
def attempt(folder: Path, search: str) -> Iterator[bool]:
    """Make this process the only writer of a trial's folder, which doesn't exist when the block begins.

    The process ends, with exit code 1, when another attempt begins or the claim is closed.

    Args:
        folder: Run folder of the trial.
        search: Id of the search, as in `open_claim`.

    Yields:
        Whether an earlier attempt left files, which are in ``interrupted/`` now.
    """
    name = f"{search} {secrets.token_hex(8)}"
    # Overwritten and not replaced: network file systems show other machines the new content at once.
    locate_claim(folder).write_text(name, encoding="utf-8")
    done = threading.Event()
    # A daemon, so that it never keeps a process alive that has done its work.
    threading.Thread(target=_end_when_lost, args=(folder, name, done), daemon=True, name="claim").start()
    try:
        yield _move_aside(folder)
    finally:
        # Before the claim is removed by the search, or a trial that has just ended would be ended with exit code 1.
        done.set()


def _end_when_lost(folder: Path, name: str, done: threading.Event) -> None:
    while not done.wait(_LOOK_SECONDS):
        # A claim that can't be read for a moment, as while a file server is away, doesn't mean another attempt.
        with contextlib.suppress(OSError):
            if _name(folder) != name:
                # Not an exception, which would end this thread alone: the training beside it must write nothing more.
                os._exit(1)


def list_lost_attempts(folder: Path) -> list[Path]:
    """Return the folders that keep the files of earlier attempts at the trial of ``folder``."""
    return sorted(_interrupted(folder).glob(f"{folder.name}-*"))


def _move_aside(folder: Path) -> bool:
    """Move what earlier attempts left out of the way, and return whether there was anything."""
    occupied = folder.exists()
    while folder.exists():
        time.sleep(_SETTLE_SECONDS)
        aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        folder.rename(aside)
        # The new attempt starts from its beginning, so that nobody reads these again.
        shutil.rmtree(aside / run_files.CHECKPOINTS, ignore_errors=True)
        _keep(aside, folder)
        # A process that was about to replace a file there creates the folder again.
        time.sleep(_LOOK_SECONDS)
    return occupied


def _keep(aside: Path, folder: Path) -> None:
    status = aside / run_files.STATUS
    if status.exists():
        # MLflow takes the state of the attempt's run from here, and `running` would never end there.
        write_json(status, {**read_json_or_empty(status), "state": "killed"})
    place = _interrupted(folder)
    place.mkdir(exist_ok=True)
    aside.rename(run_files.next_numbered(place / folder.name))


def _interrupted(folder: Path) -> Path:
    return folder.parents[1] / run_files.INTERRUPTED


def _name(folder: Path) -> str | None:
    try:
        return locate_claim(folder).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
