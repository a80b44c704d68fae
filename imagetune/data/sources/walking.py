"""The one way through folders: no recursion, each real folder once, and whatever can't be listed is named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from imagetune.core.path_names import is_utf8
from imagetune.data.sources.image_files import is_image_file
from imagetune.data.sources.written import is_written
from imagetune.errors import DataError

# Files that operating systems leave behind; a finding about them would only be noise.
_LITTER = frozenset(("thumbs.db", "desktop.ini", "__macosx", "@eadir"))
# A minute of walking. Data sets have a folder a class, or one a patient.
MAX_FOLDERS = 200_000


@dataclass
class Walk:
    """Files found below a folder, by kind.

    Attributes:
        images: Absolute paths of images, sorted within each folder.
        others: Paths of files that are not images.
        loops: Symbolic links to a folder that contains them.
        repeated: Paths of folders that another path has led to before.
        unreadable: Folders that can't be listed.
        not_utf8: Paths of images whose names are not UTF-8, as Python opens them.
        written: Folders that imagetune wrote.
    """

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    not_utf8: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)


def walk_images(folder: Path, *, seen: set[tuple[int, int]] | None = None) -> Walk:
    """Return all files below a folder; hidden names are skipped, and links are followed to folders not yet seen.

    Args:
        folder: The folder.
        seen: Device and inode of folders that earlier walks have been in; those of this one are added.

    Raises:
        DataError: There are more than 200,000 folders.
    """
    walk = Walk()
    add_files_below(str(folder), walk, seen)
    return walk


def add_files_below(top: str, walk: Walk, seen: set[tuple[int, int]] | None = None) -> None:
    """Add all files below a folder to a walk, each real folder once.

    Raises:
        DataError: There are more than 200,000 folders.
    """
    for _, entries in walk_folders(top, walk, seen):
        for entry in entries:
            # A link to nothing counts as an image, so that the audit names it.
            if is_image_file(entry.path):
                (walk.images if is_utf8(entry.path) else walk.not_utf8).append(entry.path)
            else:
                walk.others.append(entry.path)


def add_class_folder(folder: str, walk: Walk, above: frozenset[tuple[int, int]]) -> None:
    """Add all files below a class folder to a walk, unless it is one of the folders above or imagetune wrote it.

    Args:
        folder: The class folder.
        walk: The walk.
        above: Device and inode of the folders that hold it, because a link gives one folder many paths.

    Raises:
        DataError: There are more than 200,000 folders.
    """
    identity = identify_folder(folder)
    if identity in above or is_link_loop(folder):
        walk.loops.append(folder)
    elif is_written(folder):
        walk.written.append(folder)
    else:
        add_files_below(folder, walk)


def walk_folders(
    top: str, walk: Walk, seen: set[tuple[int, int]] | None = None
) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Yield each real folder from ``top`` on once, with its entries that are no folders, sorted by name.

    Args:
        top: The folder to begin with.
        walk: Receives the folders that are left out, by the reason.
        seen: Device and inode of folders that earlier walks have been in; those of this one are added.

    Raises:
        DataError: There are more than 200,000 folders.
    """
    for folder in iterate_folders(top, walk, set() if seen is None else seen):
        try:
            files = [entry for entry in scan_entries(folder) if not is_folder_entry(entry)]
        except OSError:
            walk.unreadable.append(folder)
            continue
        # The file system's own order differs between machines, and records must not.
        yield folder, sorted(files, key=lambda entry: entry.name)


def iterate_files(top: str, walk: Walk, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Yield the path of each file below a folder, those of one folder in no order.

    A folder of a million files takes no memory here, unlike in `walk_folders`.

    Args:
        top: As for `walk_folders`.
        walk: As for `walk_folders`.
        seen: As for `walk_folders`.

    Raises:
        DataError: There are more than 200,000 folders.
    """
    for folder in iterate_folders(top, walk, seen):
        try:
            yield from (entry.path for entry in scan_entries(folder) if not is_folder_entry(entry))
        except OSError:
            walk.unreadable.append(folder)


def iterate_folders(top: str, walk: Walk, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Yield the path of each real folder from ``top`` on once, in the order of their names.

    Args:
        top: As for `walk_folders`.
        walk: As for `walk_folders`.
        seen: As for `walk_folders`.

    Raises:
        DataError: There are more than 200,000 folders.
    """
    pending = [top]
    while pending:
        folder = pending.pop()
        if not _enter(folder, top, walk, seen):
            continue
        try:
            inside = [entry.path for entry in scan_entries(folder) if is_folder_entry(entry)]
        except OSError:
            walk.unreadable.append(folder)
            continue
        yield folder
        # The last one is taken first.
        pending += sorted(inside, reverse=True)


def scan_entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """Yield what is in a folder in no order, without what is skipped.

    Raises:
        OSError: It can't be listed.
    """
    with os.scandir(folder) as found:
        yield from (entry for entry in found if not is_skipped(entry.name))


def _enter(folder: str, top: str, walk: Walk, seen: set[tuple[int, int]]) -> bool:
    """Return whether a walk from ``top`` goes into a folder, and note why it doesn't.

    Raises:
        DataError: There are more than 200,000 folders.
    """
    identity = identify_folder(folder)
    if identity is None:
        walk.unreadable.append(folder)
    elif folder != top and is_link_loop(folder):
        walk.loops.append(folder)
    elif identity in seen:
        walk.repeated += [folder] if folder != top else []
    elif folder != top and is_written(folder):
        walk.written.append(folder)
    else:
        seen.add(identity)
        if len(seen) > MAX_FOLDERS:
            what = f"holds more than {MAX_FOLDERS:,} folders"
            raise DataError(what, where=top, hint="name a folder further down, or use a table with path,label")
        return True
    return False


def list_entries(folder: str) -> tuple[list[str], list[os.DirEntry[str]]]:
    """Return the folders in a folder, and what else is in it, both sorted by name and without what is skipped.

    Raises:
        OSError: It can't be listed.
    """
    # The file system's own order differs between machines, and records must not.
    entries = sorted(scan_entries(folder), key=lambda entry: entry.name)
    inside = [entry.path for entry in entries if is_folder_entry(entry)]
    return inside, [entry for entry in entries if not is_folder_entry(entry)] if inside else entries


def list_names(folder: Path) -> list[str]:
    """Return the names in a folder that aren't hidden, sorted; none where it can't be listed."""
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def is_folder_entry(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; a link that leads back to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_skipped(name: str) -> bool:
    """Return whether a file or folder is hidden, or one that operating systems leave behind."""
    return name.startswith(".") or name.casefold() in _LITTER


def identify_folder(folder: str) -> tuple[int, int] | None:
    """Return device and inode of a folder; None where it can't be reached."""
    try:
        status = Path(folder).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_link_loop(folder: str) -> bool:
    """Return whether a folder is a link to one that contains it, whose images would all get the label of the link."""
    path = Path(folder)
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())
