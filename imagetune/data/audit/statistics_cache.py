"""What the check of each image told, kept so that an unchanged file is never opened for it again.

One SQLite file in the cache folder, shared by all runs and safe under several processes. An entry is told by the path,
by size and times of the file, and by the settings and decoders that made it. Whoever can't use the file goes on
without: the images are opened again.
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

from imagetune.core.row_store import cache_root
from imagetune.data.audit.image_statistics import Appearance, ImageFacts, Inspection

NAME = "facts-1.sqlite3"
MAX_BYTES = 2 << 30
# File systems count time in steps of up to two seconds (FAT): a file that was just written may change unseen.
SETTLED_SECONDS = 2.0
WAIT_SECONDS = 2.0
_USED_AGAIN_SECONDS = 86_400
_REMOVED_AT_ONCE = 20_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (
    path BLOB NOT NULL, settings BLOB NOT NULL, stamp TEXT NOT NULL, facts TEXT NOT NULL, thumbnail BLOB NOT NULL,
    checksum INTEGER NOT NULL, used INTEGER NOT NULL, PRIMARY KEY (path, settings)
);
CREATE INDEX IF NOT EXISTS facts_by_use ON facts (used);
"""
_FIND = "SELECT facts, thumbnail, checksum, used FROM facts WHERE path = ? AND settings = ? AND stamp = ?"
_USE = "UPDATE facts SET used = ? WHERE path = ? AND settings = ?"
_KEEP = "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?, ?)"
_FORGET = "DELETE FROM facts WHERE rowid IN (SELECT rowid FROM facts ORDER BY used LIMIT ?)"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What changes when a file does, and when that was looked up.

    The change time is among it because archives and copying tools set the modification time as they like.

    Attributes:
        size: In bytes.
        modified_ns: Modification time.
        changed_ns: Change time; on Windows the time of creation.
        seen_ns: When this was looked up.
    """

    size: int
    modified_ns: int
    changed_ns: int
    seen_ns: int

    @property
    def settled(self) -> bool:
        """Whether the file has been left alone for so long that a further change would show."""
        return self.seen_ns - max(self.modified_ns, self.changed_ns) >= SETTLED_SECONDS * 1e9

    @property
    def text(self) -> str:
        """What tells one state of the file from another."""
        return f"{self.size} {self.modified_ns} {self.changed_ns}"


def stamp_of(path: str) -> Stamp | None:
    """Return the stamp of a file, None where there is none; to be taken before the file is read."""
    seen = time.time_ns()
    try:
        status = os.stat(path)  # noqa: PTH116  (there may be a million of them)
    except (OSError, ValueError):
        return None
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, seen)


class FactsStore:
    """Inspections of earlier audits.

    Args:
        settings: Everything but the file that an inspection depends on; JSON values.
        path: The database; ``facts-1.sqlite3`` in the cache folder by default.
        max_bytes: What was not used for longest is forgotten when the database grows beyond this.
    """

    def __init__(self, settings: object, *, path: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        self.path = path or cache_root() / NAME
        self.max_bytes = max_bytes
        self._settings = hashlib.sha256(json.dumps(settings).encode()).digest()[:8]

    def read(self, paths: Sequence[str], stamps: Sequence[Stamp | None]) -> list[Inspection | None]:
        """Return what is known of each file as it is now; None for one that has to be opened."""
        found: list[Inspection | None] = [None] * len(paths)
        with self._or_without(), closing(self._open()) as connection, connection:
            used = []
            for place, (path, stamp) in enumerate(zip(paths, stamps, strict=True)):
                if stamp is None:
                    continue
                key = (os.fsencode(path), self._settings)
                row = connection.execute(_FIND, (*key, stamp.text)).fetchone()
                found[place] = _inspection(path, row) if row else None
                if row and time.time() - row[3] > _USED_AGAIN_SECONDS:
                    used.append((int(time.time()), *key))
            if used:
                connection.executemany(_USE, used)
        return found

    def write(self, inspections: Iterable[tuple[Inspection, Stamp | None]]) -> None:
        """Keep what was found out, but for files that couldn't be read or were changed just now."""
        now = int(time.time())
        rows = (
            (os.fsencode(one.facts.path), self._settings, stamp.text, *_content(one), now)
            for one, stamp in inspections
            if stamp is not None and stamp.settled and one.facts.sha256
        )
        with self._or_without(), closing(self._open()) as connection, connection:
            connection.executemany(_KEEP, rows)
            while _bytes_in_use(connection) > self.max_bytes:
                connection.execute(_FORGET, (_REMOVED_AT_ONCE,))

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
    def _or_without(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError):  # locked, full, not to be written
            return
        except sqlite3.DatabaseError:  # corrupted: the next writer begins anew
            for suffix in ("", "-journal"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)


def _content(one: Inspection) -> tuple[str, bytes, int]:
    """Return facts, thumbnail and their checksum."""
    facts = one.facts
    values = [facts.sha256, facts.size_bytes, facts.width, facts.height, facts.perceptual_hash, facts.error]
    look = None if facts.appearance is None else astuple(facts.appearance)
    text = json.dumps([*values, facts.notes, facts.kind, facts.camera, look])
    return text, one.thumbnail, _checksum(text, one.thumbnail)


def _inspection(path: str, row: tuple[str, bytes, int, int]) -> Inspection | None:
    """Return what a row tells, None where it is corrupted."""
    text, thumbnail, checksum, _ = row
    if not isinstance(text, str) or not isinstance(thumbnail, bytes) or _checksum(text, thumbnail) != checksum:
        return None
    sha256, size, width, height, code, error, notes, kind, camera, look = json.loads(text)
    noted = tuple((name, words) for name, words in notes)
    appearance = None if look is None else Appearance(*look)
    facts = ImageFacts(path, sha256, size, width, height, code, error, noted, kind, camera, appearance)
    return Inspection(facts, thumbnail)


def _checksum(text: str, thumbnail: bytes) -> int:
    return zlib.crc32(thumbnail, zlib.crc32(text.encode()))


def _bytes_in_use(connection: sqlite3.Connection) -> int:
    def pragma(name: str) -> int:
        value: Any = connection.execute(f"PRAGMA {name}").fetchone()[0]
        return int(value)

    return (pragma("page_count") - pragma("freelist_count")) * pragma("page_size")
