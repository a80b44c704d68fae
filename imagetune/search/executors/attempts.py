"""One attempt at a time writes a trial's folder, even where a lost machine goes on without knowing that it is lost.

The latest attempt writes its name into a claim, a file beside the trial's folder; an earlier one looks there every
second and ends its process when it reads another name. What it wrote is then moved away in one step: a file that it has
open moves along. All but its checkpoints is kept in the search's ``interrupted/``.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagetune.core import run_files
from imagetune.core.files import write_json

_LOOK_SECONDS = 1.0
# An earlier attempt has had time to look, and to look again.
_SETTLE_SECONDS = 2.5
# Shared folders may show a new file to other machines late.
_APPEAR_SECONDS = 10.0


def claim_path(folder: Path) -> Path:
    """Return where the latest attempt at the trial of ``folder`` writes its name."""
    return folder.with_name(f".{folder.name}.claim")


def open_claim(folder: Path, search: str) -> None:
    """Make a claim that says which search the trial belongs to; attempts elsewhere look whether they see it.

    Args:
        folder: The trial's run folder.
        search: A text that no other search has.
    """
    path = claim_path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(search, encoding="utf-8")


def sees_claim(folder: Path, search: str) -> bool:
    """Tell whether this machine sees the claim that ``open_claim`` made on another: whether the folder is shared."""
    deadline = time.monotonic() + _APPEAR_SECONDS
    while not (_name(folder) or "").startswith(search):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_SECONDS / 4)
    return True


def close_claim(folder: Path) -> None:
    """Remove the claim; an attempt that still runs ends its process."""
    claim_path(folder).unlink(missing_ok=True)


@contextmanager
def attempt(folder: Path, search: str) -> Iterator[bool]:
    """Let this process be the only one that writes ``folder``, which is not there when the block begins.

    The process ends, with exit code 1, when another attempt begins or the claim is closed.

    Args:
        folder: The trial's run folder.
        search: What the claim was opened with.

    Yields:
        Whether an earlier attempt left files, which are in ``interrupted/`` now.
    """
    name = f"{search} {secrets.token_hex(8)}"
    # Not replaced but overwritten: network folders show that to other machines at once.
    claim_path(folder).write_text(name, encoding="utf-8")
    done = threading.Event()
    threading.Thread(target=_end_when_lost, args=(folder, name, done), daemon=True, name="claim").start()
    try:
        yield _clear(folder)
    finally:
        done.set()


def _end_when_lost(folder: Path, name: str, done: threading.Event) -> None:
    while not done.wait(_LOOK_SECONDS):
        # What can't be read at the moment, as while a file server is away, says nothing.
        with contextlib.suppress(OSError):
            if _name(folder) != name:
                os._exit(1)


def lost_attempts(folder: Path) -> list[Path]:
    """Return where the files of earlier attempts at the trial of ``folder`` are kept."""
    return sorted(_interrupted(folder).glob(f"{folder.name}-*"))


def _clear(folder: Path) -> bool:
    occupied = folder.exists()
    while folder.exists():
        time.sleep(_SETTLE_SECONDS)
        aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        folder.rename(aside)
        shutil.rmtree(aside / run_files.CHECKPOINTS, ignore_errors=True)
        _keep(aside, folder)
        # Who was about to replace a file there makes the folder again.
        time.sleep(_LOOK_SECONDS)
    return occupied


def _keep(aside: Path, folder: Path) -> None:
    status = aside / run_files.STATUS
    if status.exists():
        with contextlib.suppress(ValueError):
            write_json(status, {**json.loads(status.read_text(encoding="utf-8")), "state": "killed"})
    place = _interrupted(folder)
    place.mkdir(exist_ok=True)
    number = 1
    while (place / f"{folder.name}-{number}").exists():
        number += 1
    aside.rename(place / f"{folder.name}-{number}")


def _interrupted(folder: Path) -> Path:
    return folder.parents[1] / run_files.INTERRUPTED


def _name(folder: Path) -> str | None:
    try:
        return claim_path(folder).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
