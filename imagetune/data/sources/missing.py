"""What to say about paths that don't exist: what lies beside one, and where the images of a table are instead."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from imagetune.core.files import is_folder, is_link
from imagetune.core.text import format_list, suggest_name
from imagetune.data.sources.image_files import is_image
from imagetune.data.sources.walking import Walk, list_names, walk_folders
from imagetune.errors import DataError

# Enough to find a pattern, and few enough to be looked for among a hundred thousand files.
_SAMPLES = 8
_MAX_FILES = 200_000


def build_path_error(path: Path) -> DataError:
    """Return the error for a file or folder that doesn't exist, with what is there in its place."""
    if is_link(path):
        target = str(path.readlink())
        return DataError(f"is a symbolic link to {target!r}, which does not exist", where=str(path))
    parent = path.parent
    if not is_folder(parent):
        return DataError(f"no such file or folder; {parent} does not exist either", where=str(path))
    names = list_names(parent)
    beside = f"beside it: {format_list(names)}" if names else f"{parent} is empty"
    return DataError("no such file or folder", where=str(path), hint=suggest_name(path.name, names) or beside)


def describe_missing(paths: Sequence[str], root: Path) -> tuple[str, str]:
    """Return where images lie that were not found, and what to do about it; empty texts where none is found.

    Args:
        paths: Absolute paths of files that don't exist.
        root: The folder that the table's paths start from.
    """
    samples = [path for path in paths[:: max(1, len(paths) // _SAMPLES)] if not os.path.lexists(path)]
    by_name: dict[str, str] = {}
    for file in _list_files(root):
        by_name.setdefault(PurePosixPath(file).name, file)
        by_name.setdefault(PurePosixPath(file).stem, file)
    for path in samples:
        found = by_name.get(Path(path).name)
        if found is None:
            continue
        return f"there is {found}", _suggest(path, found, samples, root)
    return "", ""


def _list_files(root: Path) -> Iterator[str]:
    """Yield the images below a folder, relative to it, with slashes; not all of very many."""
    count = 0
    for _, entries in walk_folders(str(root), Walk()):
        for entry in entries:
            if is_image(entry.name):
                yield Path(entry.path).relative_to(root).as_posix()
                count += 1
        if count > _MAX_FILES:
            return


def _suggest(path: str, found: str, samples: Sequence[str], root: Path) -> str:
    """Return the format that makes the table's paths those of existing files, or else what to write into the table."""
    if Path(path).is_relative_to(root):
        cell = Path(path).relative_to(root).as_posix()
        # A path of one part may be found with a folder before it and a suffix behind it.
        before, inside, behind = found.rpartition(cell)
        form = f"{before}{{}}{behind}"
        cells = [Path(sample).relative_to(root).as_posix() for sample in samples if Path(sample).is_relative_to(root)]
        if inside and any((root / form.replace("{}", other)).exists() for other in cells):
            # YAML reads braces at the beginning as a mapping.
            return "set data.columns.path_format: " + (f'"{form}"' if form.startswith("{") else form)
    return f"write the paths relative to {root}, such as {found}"
