"""Zip archives and NumPy's .npz files, whose members are held to what the file has room for before any is read."""

from __future__ import annotations

import io
import math
import os
import tokenize
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.lib.npyio import NpzFile

MAX_MEMBERS = 20_000
# A member takes about a hundred bytes of the directory at the end of the file.
MAX_DIRECTORY_BYTES = 4 << 20
# What code that reads a damaged archive raises; the second line is what headers of brackets lead NumPy's parser to.
BROKEN = (
    *(OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zipfile.LargeZipFile),
    *(RecursionError, MemoryError, SyntaxError, tokenize.TokenError),
)


class _DirectoryFirst(io.FileIO):
    """A file of which only so much is read at once while zipfile reads the directory, which states its own size."""

    largest: int | None = MAX_DIRECTORY_BYTES

    def read(self, size: int | None = -1, /) -> Any:
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if self.largest is not None and size > self.largest:
            raise zipfile.BadZipFile(f"its directory is larger than {self.largest:,} bytes")
        return super().read(size)


@contextmanager
def open_stored_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Yield a zip archive whose members are stored as they are, and together aren't larger than the file.

    Compression could inflate without end, and members may overlap so that a small file holds terabytes.

    Raises:
        zipfile.BadZipFile: It is no archive, has compressed members, too many, or ones that it has no room for.
        OSError: It can't be read.
    """
    # A pipe has no size and no end to look from.
    if not path.is_file():
        raise zipfile.BadZipFile("not a regular file")
    with _DirectoryFirst(path) as file, zipfile.ZipFile(file) as archive:
        file.largest = None
        members = archive.infolist()
        if len(members) > MAX_MEMBERS or len({member.filename for member in members}) < len(members):
            raise zipfile.BadZipFile(f"it has more than {MAX_MEMBERS:,} members, or two of a name")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise zipfile.BadZipFile(
                    f"{member.filename[:80]!r} is compressed: refused, it could inflate without end"
                )
        if sum(member.file_size for member in members) > os.fstat(file.fileno()).st_size:
            raise zipfile.BadZipFile("its members are larger than the file")
        yield archive


@contextmanager
def open_arrays(path: Path) -> Iterator[NpzFile]:
    """Yield the arrays of an .npz file by name; each is as large as its header states, and holds no objects.

    Raises:
        zipfile.BadZipFile: As `open_stored_archive`.
        ValueError: A member is no array, or not of the size that its header states.
        OSError: It can't be read.
    """
    with open_stored_archive(path) as archive:
        for member in archive.infolist():
            _check_array(archive, member)
    # Said outright wherever arrays are read: a pickle could run code.
    with np.load(path, allow_pickle=False) as arrays:
        yield arrays


def _check_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Refuse a member whose header states another size than it has, before memory is allocated for it."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{member.filename[:80]!r} is an array of an unknown version")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        stated = math.prod(shape) * dtype.itemsize
        # An item of no size would let any number of them be stated.
        if dtype.hasobject or not dtype.itemsize or file.tell() + stated != member.file_size:
            raise ValueError(f"{member.filename[:80]!r} states an array that it doesn't hold")
