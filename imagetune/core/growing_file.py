"""Files that grow for hours and appear under their names when they are complete, also after the process was killed.

What is written lies in a folder ``NAME.partial`` beside the file, with a note of how far it is known to be good. A file
that can't be appended to, such as a Parquet table, is made of these bytes at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NotRequired

from filelock import FileLock, Timeout
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from imagetune.core.documents import CURRENT_FORMAT, FORMAT_VERSION, check_document, check_format_version
from imagetune.core.files import convert_disk_errors, read_json_object, write_json
from imagetune.core.run_documents import Count
from imagetune.core.text import format_count
from imagetune.errors import CheckpointError, ResourceError

SUFFIX = ".partial"


class _State(TypedDict):
    """state.json: what the rows follow from, and how many of them are good."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]  # pydantic's own way; no key
    format_version: NotRequired[Count]
    about: dict[str, Any]
    rows: Count
    bytes: Count
    note: dict[str, Any]


_ROWS, _STATE, _LOCK, _MADE = "rows", "state.json", "lock", "made"
_SHAPE = TypeAdapter(_State)
# What a power cut may cost; a process that is killed loses as much at most.
_COMMIT_SECONDS = 2.0


class GrowingFile:
    """A file to which bytes are added, a number of rows at a time.

    Attributes:
        rows: Number of rows that are in it.
        kept: Number of those that are safe from whatever ends the process.
        note: What else is known about the rows; plain JSON values, which come back when the file is gone on with.
        lasting: Whether what is kept outlasts the process; not for a device or pipe.
    """

    def __init__(self, path: Path, folder: Path, state: Mapping[str, Any]) -> None:
        self.rows: int = state["rows"]
        self.kept = self.rows
        self.note: dict[str, Any] = dict(state["note"])
        self.lasting = not _is_special(path)
        self._about = state["about"]
        self._path = path
        self._folder = folder
        self._file: BinaryIO = (folder / _ROWS).open("r+b")
        # What follows was being written when the process ended.
        self._file.truncate(state["bytes"])
        self._file.seek(state["bytes"])
        self._committed = time.monotonic()

    def add(self, content: bytes, rows: int) -> None:
        """Add rows, which are kept within seconds.

        Raises:
            ResourceError: They can't be written.
        """
        with convert_disk_errors(self._path):
            self._file.write(content)
        self.rows += rows
        if time.monotonic() - self._committed > _COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Write all rows to the disk, and then how many they are.

        Raises:
            ResourceError: They can't be written.
        """
        with convert_disk_errors(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            state = _build_state(self._about, rows=self.rows, size=self._file.tell(), note=self.note)
            write_json(self._folder / _STATE, state)
        self.kept = self.rows
        self._committed = time.monotonic()

    def finish(self, convert: Callable[[Path, Path], None] | None = None) -> None:
        """Put the file, or what is made of it, under its name.

        Args:
            convert: Reads the first path, and writes what is wanted to the second; by default the bytes are.

        Raises:
            ResourceError: It can't be written.
        """
        self.commit()
        content = self._folder / _ROWS
        with convert_disk_errors(self._path):
            self._file.close()
            if convert is not None:
                convert(content, self._folder / _MADE)
                content = self._folder / _MADE
            if not self.lasting:
                with content.open("rb") as source, self._path.open("wb") as target:
                    shutil.copyfileobj(source, target)
            else:
                with content.open("rb") as file:
                    os.fsync(file.fileno())
                content.replace(_find_place(self._path))

    def close(self) -> None:
        """Keep what is written, so that it can be gone on with."""
        # The disk may be full, and be the reason why the work ends; then the last commit holds.
        with suppress(ResourceError, OSError, ValueError):
            self.commit()
        with suppress(OSError):
            self._file.close()


@contextmanager
def grow_file(path: Path, about: Mapping[str, Any], *, resume: bool) -> Iterator[GrowingFile]:
    """Yield a file to add rows to, which are kept if the block fails, and of which the block finishes the file.

    Args:
        path: The file. A device or pipe gets its content at the end, and nothing is kept for it.
        about: What the rows follow from, as plain JSON values; those of a file that is gone on with have to be equal.
        resume: Go on with what is kept; without anything the file begins at its beginning.

    Raises:
        CheckpointError: Something is kept but ``resume`` is false, or was made with something else, or is written by
            another process; or nothing is kept, and the file is there.
        ResourceError: The file can't be written.
    """
    about = json.loads(json.dumps(about))  # as it is read again: tuples become lists
    with _open_folder(path, resume=resume) as folder:
        with convert_disk_errors(path):
            file = GrowingFile(path, folder, _read_state(path, folder, about, resume=resume))
        try:
            yield file
        except BaseException:
            file.close()
            if not file.kept:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _find_place(path: Path) -> Path:
    """Return where a file is written: a link keeps its place, and the file that it leads to is replaced."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _is_special(path: Path) -> bool:
    """Return whether a path is a device, pipe or folder, which can't be replaced by a file."""
    return path.exists() and not path.is_file()


def is_complete(path: Path) -> bool:
    """Return whether a file is there and nothing is kept beside it: whoever wanted to go on with it has it."""
    place = _find_place(path)
    return place.is_file() and not place.with_name(place.name + SUFFIX).is_dir()


@contextmanager
def _open_folder(path: Path, *, resume: bool) -> Iterator[Path]:
    """Yield the folder of a growing file, which no other process has."""
    if _is_special(path):
        if resume:
            what = "is no file, so that nothing was kept to go on with"
            raise CheckpointError(what, where=str(path), hint="leave --resume out")
        with tempfile.TemporaryDirectory(prefix="imagetune-", ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
        return
    place = _find_place(path)
    folder = place.with_name(place.name + SUFFIX)
    if resume and is_complete(path):
        hint = "leave --resume out to write it again"
        raise CheckpointError("is complete: nothing is kept to go on with", where=str(path), hint=hint)
    try:
        with convert_disk_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            _refuse_links(folder)
            lock = FileLock(folder / _LOCK).acquire(timeout=0)
    except Timeout:
        hint = "wait for it, or name another file"
        raise CheckpointError("is being written by another process", where=str(path), hint=hint) from None
    with lock:
        yield folder


def _read_state(path: Path, folder: Path, about: Mapping[str, Any], *, resume: bool) -> Mapping[str, Any]:
    """Return how far a file is; one that has not been begun is made.

    Raises:
        CheckpointError: As from `grow_file`.
    """
    rows, place = folder / _ROWS, _find_place(path)
    try:
        state = read_json_object(folder / _STATE)
    except ValueError:
        state = {}
    if state:
        check_format_version(state, folder / _STATE, error=CheckpointError)
        check_document(state, _SHAPE, folder / _STATE, error=CheckpointError)
    # The process may have ended just after it gave the rows their name.
    moved = not rows.is_file() and place.is_file() and place.stat().st_size == state.get("bytes")
    if not state.get("rows") or not (rows.is_file() or moved):
        rows.write_bytes(b"")
        return _build_state(about, rows=0, size=0, note={})
    count = format_count(state["rows"], "row")
    if not resume:
        hint = f"--resume goes on behind them; remove {folder} to begin again"
        raise CheckpointError(f"has {count} kept in {folder.name}", where=str(path), hint=hint)
    differing = [key for key in about if state["about"].get(key) != about[key]]
    if differing:
        what = f"what is kept of it ({count}) was made with other {' and other '.join(differing)}"
        hint = f"give what it was begun with, or remove {folder} to begin again"
        raise CheckpointError(what, where=str(path), hint=hint)
    if moved:
        place.replace(rows)
    if rows.stat().st_size < state["bytes"]:
        what = f"has {rows.stat().st_size:,} bytes, and {state['bytes']:,} were kept"
        raise CheckpointError(what, where=str(rows), hint=f"remove {folder} to begin again")
    return state


def _refuse_links(folder: Path) -> None:
    """Refuse a folder in which a name leads elsewhere: rows would be written over what lies there.

    Raises:
        CheckpointError: It is a link, or holds anything but files.
    """
    for path in (folder, *folder.iterdir()):
        if path.is_symlink() or not (path == folder or path.is_file()):
            hint = f"remove {folder} to begin again"
            raise CheckpointError("isn't what imagetune writes: it leads elsewhere", where=str(path), hint=hint)


def _build_state(about: Mapping[str, Any], *, rows: int, size: int, note: Mapping[str, Any]) -> dict[str, Any]:
    return {FORMAT_VERSION: CURRENT_FORMAT, "about": dict(about), "rows": rows, "bytes": size, "note": dict(note)}
