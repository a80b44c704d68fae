"""Lists of images of any length: their paths stand in a file of SQLite, which sorts them and finds repeated ones.

A million paths take no memory so, neither here nor in the processes that load the images.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, overload
from urllib.parse import quote
from weakref import finalize

from imagetune.core.files import is_file, is_folder
from imagetune.core.messages import Say, say_nothing
from imagetune.core.path_names import expand_home, find_spelling
from imagetune.core.stopping import ask_before_each, check_stop
from imagetune.core.text import format_list
from imagetune.data.sources.folders import build_walk_findings
from imagetune.data.sources.image_files import is_image_file
from imagetune.data.sources.missing import build_path_error
from imagetune.data.sources.path_tables import iterate_table_paths
from imagetune.data.sources.walking import Walk, iterate_files, iterate_folders, scan_entries
from imagetune.errors import DataError, ResourceError
from imagetune.recipe.source_kinds import TABLE_SUFFIXES

if TYPE_CHECKING:
    from imagetune.recipe.sections.data import ColumnsConfig

# Below a megabyte, however long the paths are.
_CHUNK = 256
# Rows of a table may repeat an image; the index holds only what folders, patterns and single files name.
_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA temp_store = FILE;
CREATE TABLE images (path BLOB NOT NULL, once INTEGER);
CREATE UNIQUE INDEX once ON images (path) WHERE once = 1;
CREATE TEMP TABLE found (path BLOB NOT NULL);
"""


class ImageList(Sequence[str]):
    """Absolute paths of images in a file, for any number of threads and, pickled, of processes.

    Args:
        file: Written by `list_images`.
        folder: A folder that is removed with the list, or None.
    """

    def __init__(self, file: Path, folder: Path | None = None) -> None:
        self._file = file
        self._lock = threading.Lock()
        # Immutable: it is read without locks, which network file systems may not have.
        address = f"file:{quote(str(file))}?immutable=1"
        self._rows = sqlite3.connect(address, uri=True, check_same_thread=False)
        self._count: int = self._rows.execute("SELECT count(*) FROM images").fetchone()[0]
        self._close = finalize(self, _close, self._rows, folder)

    def __reduce__(self) -> tuple[type[ImageList], tuple[Path]]:
        return ImageList, (self._file,)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        """Return a path, or the list of those of a slice; the latter is one request."""
        if isinstance(place, slice):
            start, stop, _ = place.indices(self._count)
            return self._read(start, stop)
        return self._read(range(self._count)[place], range(self._count)[place] + 1)[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, self._count, _CHUNK):
            yield from self._read(start, min(start + _CHUNK, self._count))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and remove the folder that was made for it; a second call does nothing."""
        self._close()

    def compute_sha256(self) -> str:
        """Return the SHA-256 of all paths in their order, in hexadecimal."""
        digest = hashlib.sha256()
        for path in self:
            digest.update(os.fsencode(path) + b"\0")
        return digest.hexdigest()

    def _read(self, start: int, stop: int) -> list[str]:
        # Row numbers begin at 1, and have no gaps.
        query = "SELECT path FROM images WHERE rowid > ? AND rowid <= ? ORDER BY rowid"
        with self._lock:
            found = self._rows.execute(query, (start, stop)).fetchall()
        return [os.fsdecode(path) for (path,) in found]


def list_images(
    words: Sequence[str], columns: ColumnsConfig | None = None, *, folder: Path | None = None, say: Say = say_nothing
) -> ImageList:
    """Return the list of the image files that the arguments of a command line name; it is to be closed.

    Args:
        words: Files (with any suffix), folders (searched recursively), globs with ``*``, ``?`` or ``**``, and tables
            (.csv, .tsv, .parquet) of paths, which start at the table's folder.
        columns: ``path`` and ``path_format`` name and complete the column of a table; the recipe's defaults if None.
        folder: Folder for the list's file; by default a temporary one, which goes with the list.
        say: Receives what was passed over in folders, and why.

    Returns:
        Absolute paths. Those of a folder or a glob are sorted; what folders, globs and files name is listed once; each
        row of a table is listed.

    Raises:
        DataError: A path doesn't exist, no image is found, or a table can't be read.
        ResourceError: The file can't be written.
    """
    with _convert_errors():
        made = None if folder else Path(tempfile.mkdtemp(prefix="imagetune-"))
        file = (folder or made or Path()) / "images.sqlite"
        try:
            walk = _write_list(file, words, columns)
            images = ImageList(file, made)
        except BaseException:
            if made:
                shutil.rmtree(made, ignore_errors=True)
            raise
    walk.others = [*dict.fromkeys(walk.others)]
    for finding in build_walk_findings(walk):
        say("note", f"{finding.title}: {format_list(finding.paths)}")
    if not images:
        images.close()
        hint = "name files, folders, globs such as 'in/*.jpg', or tables of paths"
        raise DataError("no images found", where=format_list(words), hint=hint)
    return images


def _close(rows: sqlite3.Connection, folder: Path | None) -> None:
    rows.close()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _convert_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        hint = "free some space there; TMPDIR names another folder for temporary files"
        raise ResourceError(
            f"can't write the list of images: {error}", where=tempfile.gettempdir(), hint=hint
        ) from error


def _write_list(file: Path, words: Sequence[str], columns: ColumnsConfig | None) -> Walk:
    """Write the file of a list, and return what was passed over."""
    file.unlink(missing_ok=True)
    walk, seen = Walk(), set[tuple[int, int]]()
    # Nobody else opens the file while it is written, and network file systems may have no locks.
    with closing(sqlite3.connect(f"file:{quote(str(file))}?nolock=1", uri=True)) as rows:
        rows.executescript(_SCHEMA)
        for word in words:
            path = Path(find_spelling(str(expand_home(word).absolute())))
            if is_folder(path):
                _add_sorted(rows, _choose_images(iterate_files(str(path), walk, seen), walk))
            elif is_file(path) and path.suffix.lower() in TABLE_SUFFIXES:
                for cells in ask_before_each(iterate_table_paths(path, columns)):
                    rows.executemany("INSERT INTO images (path) VALUES (?)", ((os.fsencode(cell),) for cell in cells))
            elif os.path.lexists(path):
                rows.execute("INSERT OR IGNORE INTO images VALUES (?, 1)", (os.fsencode(path),))
            elif glob.has_magic(word):
                _add_sorted(rows, _list_matches(word, walk, seen))
            else:
                raise build_path_error(path)
        rows.commit()
    return walk


def _add_sorted(rows: sqlite3.Connection, paths: Iterable[str]) -> None:
    """Add paths to a list in their order, without those that are there already."""
    rows.executemany("INSERT INTO found VALUES (?)", ((os.fsencode(path),) for path in paths))
    rows.execute("INSERT OR IGNORE INTO images SELECT path, 1 FROM found ORDER BY path")
    rows.execute("DELETE FROM found")


def _choose_images(paths: Iterable[str], walk: Walk) -> Iterator[str]:
    """Yield the images among some files, and add the others to a walk."""
    for path in ask_before_each(paths):
        if is_image_file(path):
            yield path
        else:
            walk.others.append(path)


def _list_matches(word: str, walk: Walk, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Yield the images that match a pattern, and those in the folders that match it."""
    # Only what was typed is a pattern, not the name of the working folder.
    typed = expand_home(word)
    pattern = str(typed) if typed.is_absolute() else f"{glob.escape(str(Path.cwd()))}/{typed}"
    # `**` matches every folder as well as the files inside; a plain `*` matches folders to be searched.
    folders: list[str] = []
    for match in _expand_pattern(pattern):
        check_stop()
        if is_folder(match):
            folders.append(match)
        else:
            yield from _choose_images([match], walk)
    # In the order of their names, which decides by which of its paths a folder with several is reached.
    for folder in sorted(folders):
        yield from _choose_images(iterate_files(folder, walk, seen), walk)


def _expand_pattern(pattern: str) -> Iterator[str]:
    """Yield the paths that match a pattern, some perhaps repeatedly; ``**`` matches any folders, each real one once."""
    # Folders that match are searched anyway.
    before, stars, after = pattern.removesuffix("/**").partition("**/")
    if not stars or not before.endswith("/"):
        yield from _match_names(pattern.removesuffix("/**"))
        return
    # Path.glob accepts no absolute pattern.
    for top in glob.iglob(before.rstrip("/") or "/"):  # noqa: PTH207
        for folder in iterate_folders(top, Walk(), set()):
            yield from _expand_pattern(f"{glob.escape(folder)}/{after}")


def _match_names(pattern: str) -> Iterator[str]:
    """Yield what glob finds for a pattern; unlike glob without keeping the names of a large folder."""
    head, tail = os.path.split(pattern)
    if not glob.has_magic(tail):
        yield from glob.iglob(pattern)  # noqa: PTH207
        return
    for folder in glob.iglob(head):  # noqa: PTH207
        # As glob does: a folder that can't be listed matches nothing.
        with suppress(OSError):
            yield from (entry.path for entry in scan_entries(folder) if fnmatch.fnmatch(entry.name, tail))
