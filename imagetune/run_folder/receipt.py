"""The receipt of a run folder: the SHA-256 of each of its files, by which `imagetune verify` finds what has changed.

It is written when a run or a search finishes. A command that changes files of a finished run later renews the receipt
for these alone: whatever else has changed keeps its old hash there, and is found.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagetune.core import run_files
from imagetune.core.documents import CURRENT_FORMAT, FORMAT_VERSION, find_broken_seal, read_document, seal_document
from imagetune.core.files import MAX_JSON_BYTES, compute_file_sha256, read_bounded_bytes, write_json
from imagetune.core.run_documents import RECEIPT
from imagetune.errors import ImagetuneError

# Locks are empty. The state of tracking lists the hashes of what was sent, this receipt among them, so that it can't be
# in it: it has a seal of its own.
_OUTSIDE = frozenset({run_files.RECEIPT, run_files.TRACKING, run_files.RUN_LOCK, run_files.TRACKING_LOCK})
_MARKS = (run_files.RECEIPT, run_files.STATUS)
_TEMPORARY = ".tmp-"
_AS_WRITTEN = "as imagetune wrote it"
_LOST = "no such file, which a run gets when it finishes"


@dataclass(frozen=True)
class Difference:
    """Something that is not as a run recorded it.

    Attributes:
        where: The file, by its path in the run folder, with the field or image in it; or the path of an image.
        expected: What was recorded.
        found: What is there.
    """

    where: str
    expected: str
    found: str


@dataclass(frozen=True)
class FileCheck:
    """A run folder compared with its receipt.

    Attributes:
        files: How many files are as they were recorded.
        differences: Those that aren't.
        missing: Recorded files that are not there.
        unrecorded: Files that the receipt doesn't know; they can't be compared.
        runs: Runs in the folder with a receipt of their own, by their path in it.
    """

    files: int = 0
    differences: tuple[Difference, ...] = ()
    missing: tuple[str, ...] = ()
    unrecorded: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Found:
    """The files of a folder by their path in it, those with a seal, and the runs that have a receipt of their own."""

    files: dict[str, os.stat_result] = field(default_factory=dict)
    sealed: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


def write_receipt(folder: Path) -> None:
    """Write the receipt of a run or a search that has finished, over all files that are in its folder now.

    Runs in the folder that have a receipt are left to that.

    Raises:
        ResourceError: The disk is full.
    """
    found = _find_files(folder)
    _write(folder, _hash_files(folder, found.files), found.runs)


@contextmanager
def renew_receipt(folder: Path) -> Iterator[None]:
    """Renew a receipt for the files that the block writes or removes; a run without one, as in progress, gets none.

    Args:
        folder: A run folder; that of a trial is in the receipt of its search.
    """
    # A trial lies two folders below its search. Other programs may have files of this name.
    near = (folder, *folder.absolute().parents[:2])
    place = next((path for path in near if all((path / name).is_file() for name in _MARKS)), None)
    if place is None:
        yield
        return
    before = _find_files(place).files
    try:
        yield
    finally:
        # Where the block has removed the whole run there is nothing to renew.
        if place.is_dir():
            _renew(place, before)


def _renew(place: Path, before: Mapping[str, os.stat_result]) -> None:
    try:
        receipt = _read_receipt(place)
    except _UnreadableError:
        # One that is corrupted stays so, to be found.
        return
    after = _find_files(place)
    changed = {
        name: now for name, now in after.files.items() if name not in before or _mark(before[name]) != _mark(now)
    }
    gone = before.keys() - after.files.keys()
    files = {name: known for name, known in receipt["files"].items() if name not in gone}
    files |= _hash_files(place, changed)
    if files != receipt["files"]:
        _write(place, files, after.runs)


def _mark(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _write(folder: Path, files: Mapping[str, str], runs: Iterable[str]) -> None:
    document = {FORMAT_VERSION: CURRENT_FORMAT, "files": dict(sorted(files.items())), "runs": sorted(runs)}
    write_json(folder / run_files.RECEIPT, seal_document(document))


def check_files(folder: Path) -> FileCheck:
    """Return how the files of a run folder differ from its receipt, those of runs in it by their own receipts.

    No file is read as what it is, so that each can be of any content.
    """
    own = _check_own_files(folder)
    below = [(name, check_files(folder / name)) for name in own.runs]
    return FileCheck(
        own.files + sum(check.files for _, check in below),
        (*own.differences, *(_put_below(name, one) for name, check in below for one in check.differences)),
        (*own.missing, *(f"{name}/{file}" for name, check in below for file in check.missing)),
        (*own.unrecorded, *(f"{name}/{file}" for name, check in below for file in check.unrecorded)),
        (*own.runs, *(f"{name}/{run}" for name, check in below for run in check.runs)),
    )


def _put_below(name: str, one: Difference) -> Difference:
    return Difference(f"{name}/{one.where}", one.expected, one.found)


def _check_own_files(folder: Path) -> FileCheck:
    found = _find_files(folder)
    broken = _check_seals(folder, found.sealed)
    try:
        receipt = _read_receipt(folder)
    except _UnreadableError as error:
        return FileCheck(len(found.sealed) - len(broken), (*broken, error.difference))
    recorded: Mapping[str, str] = receipt["files"]
    hashes = _hash_files(folder, {name: found.files[name] for name in recorded if name in found.files})
    # Only those that are there are looked into: a receipt may be by anyone, and a name in it lead anywhere.
    lost = [run for run in receipt["runs"] if run not in found.runs]
    differing = [name for name, now in hashes.items() if now != recorded[name]]
    below = tuple(f"{run}/" for run in lost)
    extra = [name for name in found.files if name not in recorded and not name.startswith(below)]
    return FileCheck(
        len(hashes) - len(differing) + len(found.sealed) - len(broken) + 1,
        (
            *broken,
            *(Difference(name, f"SHA-256 {recorded[name]}", hashes[name]) for name in differing),
        ),
        (*(name for name in recorded if name not in found.files), *(f"{run}/{run_files.RECEIPT}" for run in lost)),
        tuple(extra),
        tuple(found.runs),
    )


class _UnreadableError(Exception):
    """A receipt that isn't there or isn't as it was written."""

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.difference = Difference(run_files.RECEIPT, _AS_WRITTEN, f"{found}; without it no file can be compared")


def _read_receipt(folder: Path) -> dict[str, Any]:
    path = folder / run_files.RECEIPT
    try:
        if broken := find_broken_seal(read_bounded_bytes(path, max_bytes=MAX_JSON_BYTES)):
            raise _UnreadableError(broken)
        return read_document(path, RECEIPT)
    except FileNotFoundError:
        raise _UnreadableError(_LOST) from None
    except (OSError, ImagetuneError) as error:
        raise _UnreadableError(str(error)) from error


def _check_seals(folder: Path, names: Iterable[str]) -> tuple[Difference, ...]:
    contents = ((name, read_bounded_bytes(folder / name, max_bytes=MAX_JSON_BYTES)) for name in names)
    seals = ((name, find_broken_seal(content)) for name, content in contents)
    return tuple(Difference(name, _AS_WRITTEN, broken) for name, broken in seals if broken)


def _find_files(folder: Path) -> _Found:
    """Return the regular files in a folder and below, without links, temporary files and what has a receipt itself."""
    found = _Found()
    for place, folders, names in os.walk(folder):
        here = Path(place)
        if here != folder and run_files.RECEIPT in names:
            found.runs.append(here.relative_to(folder).as_posix())
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(_TEMPORARY)]
        for path in (here / name for name in names if not name.startswith(_TEMPORARY)):
            status, name = path.lstat(), path.relative_to(folder).as_posix()
            # A pipe would be waited for, and a link leads to what isn't the run's.
            if not stat.S_ISREG(status.st_mode):
                continue
            if path.name == run_files.TRACKING:
                found.sealed.append(name)
            elif path.name not in _OUTSIDE:
                found.files[name] = status
    return found


def _hash_files(folder: Path, files: Mapping[str, os.stat_result]) -> dict[str, str]:
    """Return the SHA-256 of each file; checkpoints share theirs by hard links, and are read once."""
    known: dict[tuple[int, int], str] = {}
    hashes = {}
    for name, status in files.items():
        key = status.st_dev, status.st_ino
        if key not in known:
            known[key] = compute_file_sha256(folder / name)
        hashes[name] = known[key]
    return hashes
