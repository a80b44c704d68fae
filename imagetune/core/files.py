"""Atomic file writes (a file is complete or absent), bounded reads, JSON, JSON lines, CSV and SHA-256."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from imagetune.core.leftovers import name_temporary
from imagetune.core.path_names import is_utf8
from imagetune.core.text import shorten_middle
from imagetune.errors import ResourceError

HASH_CHUNK_BYTES = 1 << 20
# A JSON document of ours takes kilobytes, lock.json of 100,000 images 12 MB. Its values take more memory than its text:
# an empty list of two characters takes 64 bytes, a mapping of one key 200. So they are counted before they are made.
MAX_JSON_BYTES = 64 << 20
MAX_JSON_VALUES = 5_000_000
_JSON_MARKS = (b",", b"[", b"{")
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
_FULL = "free some space, or choose another path"
_REFUSED = "check the permissions, or choose another path"
_IN_THE_WAY = "a file or folder of another kind is in the way, so choose another path"
# Errors that a user can remedy. Others, such as a failing disk, keep their own type and traceback.
_HINTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: _REFUSED,
    errno.EPERM: _REFUSED,
    errno.EROFS: _REFUSED,
    errno.ENOENT: "the folder is gone, or no file can be made in it, so choose another path",
    errno.EEXIST: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.ENOTEMPTY: _IN_THE_WAY,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close other programs, or raise the system's limit on open files",
    errno.ELOOP: "a link leads back to itself, so choose another path",
}

# Pathlib's own questions raise where a name is too long or a folder can't be looked into; these answer no.
path_exists, is_file, is_folder, is_link = os.path.exists, os.path.isfile, os.path.isdir, os.path.islink


@contextmanager
def convert_disk_errors(path: Path) -> Iterator[None]:
    """Convert errors of the file system in the block, such as a full disk, to a ResourceError with a hint.

    Raises:
        ResourceError: An ``OSError`` that the user can remedy; it names ``path``. Others are not converted.
    """
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0)
        if hint is None:
            raise
        raise ResourceError(f"can't write: {error.strerror}", where=str(path), hint=hint) from error


@contextmanager
def convert_system_errors() -> Iterator[None]:
    """Convert errors of the file system in the block that nothing nearer has handled to a ResourceError with a hint.

    Raises:
        ResourceError: An ``OSError`` with a path that the user can remedy; others are not converted.
    """
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0)
        if hint is None or error.filename is None:
            raise
        raise ResourceError(
            f"{error.strerror}", where=shorten_middle(os.fsdecode(error.filename)), hint=hint
        ) from error


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` when the block succeeds, and is removed when it fails.

    It is in the same folder, because only a rename within a file system is atomic. A link keeps its place, and the file
    that it leads to is replaced; a device, pipe or socket is written to.
    """
    with convert_disk_errors(path):
        if path.exists() and not path.is_file():
            with _write_through(path) as temporary:
                yield temporary
            return
        path = Path(os.path.realpath(path)) if path.is_symlink() else path
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=name_temporary(), suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            # mkstemp creates private files, but colleagues and the MLflow server must read a run folder.
            temporary.chmod(0o644)
            # Before the rename: otherwise a power cut can leave the final name on a file whose content never reached
            # the disk.
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _write_through(path: Path) -> Iterator[Path]:
    """Yield a temporary path whose content is then written to what ``path`` is: replacing it would destroy a device."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with tempfile.TemporaryDirectory(prefix="imagetune-") as folder:
        temporary = Path(folder) / "content"
        yield temporary
        with temporary.open("rb") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)


def require_free_disk(folder: Path, size: int) -> None:
    """Make sure that a disk has room for a number of bytes, for libraries that don't survive a disk that becomes full.

    Raises:
        ResourceError: It has less.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        what = f"can't write: {size / 1e6:,.1f} MB are needed, and {free / 1e6:,.1f} MB are free"
        raise ResourceError(what, where=str(folder), hint=_FULL)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, which takes no space, or copy it where the file system has no hard links.

    Only for files that are replaced as a whole: what is written into one would be in the other, too.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_text(path: Path, text: str) -> None:
    """Write text to a file (UTF-8), atomically."""
    with replace_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write a value to a file as indented JSON, atomically; NumPy's numbers and truth values are written as Python's.

    Raises:
        ValueError: The value contains NaN or infinity, which JSON doesn't have.
        TypeError: The value contains something else that JSON doesn't have.
    """
    write_text(path, format_json(value))


def format_json(value: object) -> str:
    """Return the text that `write_json` writes for a value."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_convert_scalar) + "\n"


def overwrite_in_place(path: Path, text: str) -> bool:
    """Overwrite a small file (UTF-8) in the room that it has on the disk already, and return whether that succeeded.

    It is for a full disk, where no second file can be written to take the place of the first.
    """
    data = text.encode()
    try:
        with path.open("r+b", buffering=0) as file:
            before = file.read()
            file.seek(0)
            done = file.write(data) == len(data)
            if not done:
                # Half a text is worse than the old one, which has its room.
                file.seek(0)
                file.write(before)
            file.truncate()
            os.fsync(file.fileno())
    except OSError:
        return False
    return done


def _convert_scalar(value: Any) -> Any:
    # Told by its methods, as this module imports no NumPy: the program starts with it.
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} can't be written as JSON")


@contextmanager
def open_regular_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a regular file, open for reading.

    Raises:
        OSError: The file can't be read, or is a device, pipe, socket or folder; ``strerror`` says which.
    """
    try:
        # A pipe that nobody writes to would keep an ordinary open waiting for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a null byte or lone surrogate in the name
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kind = _KINDS.get(stat.S_IFMT(mode), "a device")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
    with os.fdopen(handle, "rb") as file:
        yield file


def read_bounded_bytes(path: Path, *, max_bytes: int) -> bytes:
    """Return the content of a regular file that is at most so large; it is measured before anything is read.

    Raises:
        OSError: As `open_regular_file`, or the file is larger; ``strerror`` says which.
    """
    with open_regular_file(path) as file:
        found = os.fstat(file.fileno())
        # One byte more than allowed: a file may grow meanwhile, and those of /proc say that they are empty.
        content = b"" if found.st_size > max_bytes else file.read(max_bytes + 1)
    if found.st_size > max_bytes or len(content) > max_bytes:
        size = f"{found.st_size:,}" if found.st_size > max_bytes else f"over {max_bytes:,}"
        raise OSError(errno.EFBIG, f"it has {size} bytes, and the most is {max_bytes:,}", str(path))
    return content


def read_bounded_text(path: Path, *, max_bytes: int) -> str:
    """Return the text of a regular file (UTF-8) that is at most so large; it is measured before anything is read.

    Raises:
        OSError: As `read_bounded_bytes`.
        UnicodeDecodeError: The file is not UTF-8.
    """
    return read_bounded_bytes(path, max_bytes=max_bytes).decode("utf-8")


def parse_json(content: bytes) -> Any:
    """Return the value of a JSON text (UTF-8) whose values are counted before they are made.

    Raises:
        ValueError: It is not JSON, has NaN or half a surrogate pair, millions of values, or hundreds of levels.
    """
    if (count := sum(map(content.count, _JSON_MARKS))) > MAX_JSON_VALUES:
        raise ValueError(f"it has about {count:,} values, and the most is {MAX_JSON_VALUES:,}")
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    # Half a surrogate pair can only come from an escape; no page and no file could be written with it.
    if (b"\\ud" in content or b"\\uD" in content) and not is_utf8(json.dumps(value, ensure_ascii=False)):
        raise ValueError("it has text that is no Unicode")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def read_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return the value in a JSON file, which is measured before it is read.

    Raises:
        OSError: As `read_bounded_bytes`.
        ValueError: As `parse_json`.
    """
    return parse_json(read_bounded_bytes(path, max_bytes=max_bytes))


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; empty where the file doesn't exist or contains another JSON value.

    Raises:
        OSError: It is no regular file, too large, or can't be read.
        ValueError: The file is not JSON.
    """
    try:
        value = read_json(path)
    except FileNotFoundError:
        return {}
    return value if isinstance(value, dict) else {}


def read_json_or_empty(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; empty also where it can't be read, such as while it is being written."""
    try:
        return read_json_object(path)
    except (OSError, ValueError):
        return {}


def append_json_line(path: Path, value: Mapping[str, object]) -> None:
    """Append a line of JSON to a file and flush it to the disk, so that it survives a crash."""
    with convert_disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects in a JSON-lines file, without a last line that was cut short by a crash.

    Raises:
        OSError: As `read_bounded_bytes`; but a file that doesn't exist has no lines.
        ValueError: A line is no JSON object.
    """
    try:
        content = read_bounded_bytes(path, max_bytes=MAX_JSON_BYTES)
    except FileNotFoundError:
        return []
    return [value for _, value in parse_json_lines(content)]


def parse_json_lines(content: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number (from 1) and the object of each complete line of a JSON-lines text.

    A complete line ends in a line break, so whatever follows the last break was cut short, or is empty.

    Raises:
        ValueError: A line is no JSON object; the message begins with its number.
    """
    for number, line in split_json_lines(content):
        if not line:
            continue
        try:
            yield number, parse_json_object(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error


def split_json_lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number (from 1) and the text of each complete line, as `parse_json_lines`.

    Raises:
        ValueError: All together have millions of values.
    """
    if (count := sum(map(content.count, _JSON_MARKS))) > MAX_JSON_VALUES:
        raise ValueError(f"it has about {count:,} values, and the most is {MAX_JSON_VALUES:,}")
    # Not splitlines, which also splits at other characters, and JSON strings may contain those.
    return enumerate(content.split(b"\n")[:-1], start=1)


def parse_json_object(content: bytes) -> dict[str, Any]:
    """Return the value of a JSON text that is an object.

    Raises:
        ValueError: As `parse_json`, or it is another value.
    """
    value = parse_json(content)
    if not isinstance(value, dict):
        raise ValueError("it is no object in braces")
    return value


def compute_file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; the file is read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
