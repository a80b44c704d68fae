"""Cache of image statistics, so that the audit never opens an unchanged file twice.

One SQLite file in the cache folder, shared by all runs and safe under several processes. The key of an entry is the
path, the size and times of the file, and the settings and decoders that made it. Where the database can't be used, the
images are opened again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from imagetune.core.row_store import find_cache_root
from imagetune.data.audit.image_statistics import Appearance, ImageStatistics, Inspection

NAME = "image-statistics-1.sqlite3"
MAX_BYTES = 2 << 30
# File systems count time in steps of up to two seconds (FAT), so a file just written may change without a new stamp.
SETTLED_SECONDS = 2.0
# Opening the images again is better than a long wait for another process's lock.
WAIT_SECONDS = 2.0
# The last use of an entry is stored to the day only, so that reading rarely writes.
_REFRESH_USE_AFTER_SECONDS = 86_400
# Entries are deleted in large steps, because measuring the size of the database after each would be slow.
_DELETED_AT_ONCE = 20_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS images (
    path BLOB NOT NULL, settings BLOB NOT NULL, stamp TEXT NOT NULL, statistics TEXT NOT NULL, thumbnail BLOB NOT NULL,
    checksum INTEGER NOT NULL, used INTEGER NOT NULL, PRIMARY KEY (path, settings)
);
CREATE INDEX IF NOT EXISTS images_by_use ON images (used);
"""
_FIND = "SELECT statistics, thumbnail, checksum, used FROM images WHERE path = ? AND settings = ? AND stamp = ?"
_USE = "UPDATE images SET used = ? WHERE path = ? AND settings = ?"
_STORE = "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM images WHERE rowid IN (SELECT rowid FROM images ORDER BY used LIMIT ?)"


@dataclass(frozen=True, slots=True)
class Stamp:
    """State of a file by its size and times, and when they were read.

    The change time is part of it because archives and copying tools set the modification time as they like.

    Attributes:
        size: Size in bytes.
        modified_ns: Modification time in nanoseconds.
        changed_ns: Change time in nanoseconds; on Windows the time of creation.
        seen_ns: The time when these were read.
    """

    size: int
    modified_ns: int
    changed_ns: int
    seen_ns: int

    @property
    def settled(self) -> bool:
        """Whether the last change is long enough ago that a further one would change the times."""
        return self.seen_ns - max(self.modified_ns, self.changed_ns) >= SETTLED_SECONDS * 1e9

    @property
    def text(self) -> str:
        """The part of the cache key that distinguishes states of the file."""
        return f"{self.size} {self.modified_ns} {self.changed_ns}"


def read_file_stamp(path: str) -> Stamp | None:
    """Return the stamp of a file, None where there is none.

    Take it before reading the file: a change in between then makes the entry stale instead of wrong.
    """
    seen = time.time_ns()
    try:
        status = os.stat(path)  # noqa: PTH116  (there may be a million of them)
    except (OSError, ValueError):
        return None
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, seen)


class StatisticsCache:
    """Inspections of earlier audits in an SQLite database.

    Args:
        settings: Everything but the file that an inspection depends on; JSON values.
        path: The database; ``image-statistics-1.sqlite3`` in the cache folder by default.
        max_bytes: The least recently used entries are deleted when the database grows beyond this.
    """

    def __init__(self, settings: object, *, path: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        self.path = path or find_cache_root() / NAME
        self.max_bytes = max_bytes
        self._settings = hashlib.sha256(json.dumps(settings).encode()).digest()[:8]

    def read(self, paths: Sequence[str], stamps: Sequence[Stamp | None]) -> list[Inspection | None]:
        """Return the cached inspection of each file in its present state; None for a file that has to be opened."""
        found: list[Inspection | None] = [None] * len(paths)
        # A connection's own block commits or rolls back, but leaves it open.
        with self._skip_on_failure(), closing(self._open()) as connection, connection:
            used = []
            for place, (path, stamp) in enumerate(zip(paths, stamps, strict=True)):
                if stamp is None:
                    continue
                # As bytes: a path need not be UTF-8, as SQLite's texts must be.
                key = (os.fsencode(path), self._settings)
                row = connection.execute(_FIND, (*key, stamp.text)).fetchone()
                found[place] = _decode(path, row) if row else None
                if row and time.time() - row[3] > _REFRESH_USE_AFTER_SECONDS:
                    used.append((int(time.time()), *key))
            if used:
                connection.executemany(_USE, used)
        return found

    def write(self, inspections: Iterable[tuple[Inspection, Stamp | None]]) -> None:
        """Store inspections, except of files that couldn't be read or were changed just now."""
        now = int(time.time())
        rows = (
            (os.fsencode(one.statistics.path), self._settings, stamp.text, *_encode(one), now)
            for one, stamp in inspections
            if stamp is not None and stamp.settled and one.statistics.sha256
        )
        with self._skip_on_failure(), closing(self._open()) as connection, connection:
            connection.executemany(_STORE, rows)
            while _measure_size(connection) > self.max_bytes:
                connection.execute(_DELETE, (_DELETED_AT_ONCE,))

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=WAIT_SECONDS)
        try:
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _skip_on_failure(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError):  # locked, full or read-only
            return
        except sqlite3.DatabaseError:  # corrupted: the next writer starts a new one
            for suffix in ("", "-journal"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)


def _encode(one: Inspection) -> tuple[str, bytes, int]:
    """Return the statistics as JSON, the descriptors and their checksum."""
    statistics = one.statistics
    values: list[object] = [
        statistics.sha256,
        statistics.size_bytes,
        statistics.width,
        statistics.height,
        statistics.perceptual_hash,
        statistics.error,
    ]
    appearance = None if statistics.appearance is None else astuple(statistics.appearance)
    values += [statistics.notes, statistics.kind, statistics.camera, appearance, statistics.bit_depth]
    text = json.dumps(values)
    return text, one.thumbnail, _checksum(text, one.thumbnail)


def _decode(path: str, row: tuple[str, bytes, int, int]) -> Inspection | None:
    """Return the inspection in a row of the table, None where it is corrupted."""
    text, thumbnail, checksum, _ = row
    if not isinstance(text, str) or not isinstance(thumbnail, bytes) or _checksum(text, thumbnail) != checksum:
        return None
    sha256, size, width, height, code, error, notes, kind, camera, appearance, bit_depth = json.loads(text)
    noted = tuple((name, words) for name, words in notes)
    appearance = None if appearance is None else Appearance(*appearance)
    statistics = ImageStatistics(
        path, sha256, size, width, height, code, error, noted, kind, camera, appearance, bit_depth
    )
    return Inspection(statistics, thumbnail)


def _checksum(text: str, thumbnail: bytes) -> int:
    return zlib.crc32(thumbnail, zlib.crc32(text.encode()))


def _measure_size(connection: sqlite3.Connection) -> int:
    def pragma(name: str) -> int:
        value: Any = connection.execute(f"PRAGMA {name}").fetchone()[0]
        return int(value)

    # Deleted entries leave free pages in the file, which doesn't shrink by itself.
    return (pragma("page_count") - pragma("freelist_count")) * pragma("page_size")
