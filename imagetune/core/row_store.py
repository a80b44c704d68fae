"""Row store: arrays of one shape that are computed once and read often, such as decoded images and cached features.

A table is a folder with keys, a checksum for each row, and the rows, which are read through a memory map. Tables are
shared by threads, worker processes and later runs. The key of a row identifies its content, so a stale row is never
read; a row with a wrong checksum is computed again. Where the folder can't be written, callers work without a table.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from imagetune.core.files import write_json
from imagetune.errors import ResourceError

if TYPE_CHECKING:
    import numpy.typing as npt

KEY_BYTES = 32
_ROOT_VARIABLE = "IMAGETUNE_CACHE"
_KEYS, _SUMS, _ROWS, _ABOUT = "keys.bin", "sums.bin", "rows.bin", "about.json"
_SUM = np.dtype("<u4")
_LOCK_SECONDS = 30.0
_POLL_SECONDS = 0.2


class Rows(Protocol):
    """Rows of one shape and dtype, some of which may be missing."""

    def __len__(self) -> int:
        """Return the number of rows, present or missing."""

    def get(self, position: int) -> npt.NDArray[Any] | None:
        """Return a copy of a row, or None where it is missing."""

    def take(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the rows at ``positions``; LookupError where one is missing."""

    def there(self) -> npt.NDArray[np.bool_]:
        """Return which rows exist, ``(n,)`` bool; a corrupted one may count."""

    def put(self, position: int, row: npt.NDArray[Any]) -> None:
        """Store a row; do nothing where there is no room."""


class MemoryRows:
    """Rows in the memory of this process, shared by its threads.

    Args:
        count: Number of rows.
        shape: Shape of a row.
        dtype: Dtype of a row.
    """

    def __init__(self, count: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        # The operating system allocates pages only when they are written.
        self._rows = np.empty((count, *shape), dtype)
        self._there = np.zeros(count, bool)

    def __len__(self) -> int:
        """Return the number of rows, present or missing."""
        return len(self._there)

    def get(self, position: int) -> npt.NDArray[Any] | None:
        """Return a copy of a row, or None where it is missing."""
        return self._rows[position].copy() if self._there[position] else None

    def take(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the rows at ``positions``; LookupError where one is missing."""
        if not self._there[positions].all():
            raise LookupError(f"row {positions[~self._there[positions]][0]} is not there")
        taken: npt.NDArray[Any] = self._rows[positions]
        return taken

    def there(self) -> npt.NDArray[np.bool_]:
        """Return which rows exist, ``(n,)`` bool."""
        return self._there.copy()

    def put(self, position: int, row: npt.NDArray[Any]) -> None:
        """Store a row."""
        self._rows[position] = row
        self._there[position] = True


class StoredRows:
    """Rows of a table on disk, opened by `open_rows`; a pickled copy opens the same files again.

    Args:
        folder: The folder of the table.
        places: ``(n,)`` int64, row of the table for each position; -1 where the table has no room.
        shape: Shape of a row.
        dtype: Dtype of a row.
    """

    def __init__(self, folder: Path, places: npt.NDArray[np.int64], shape: tuple[int, ...], dtype: str) -> None:
        self._folder, self._places, self._shape, self._dtype = folder, places, shape, np.dtype(dtype)
        # Open files stay readable even if another process removes the table meanwhile.
        # Unbuffered, so that a row is in the file before its checksum says so.
        self._file = (folder / _ROWS).open("r+b", buffering=0)
        with (folder / _SUMS).open("r+b") as sums:
            count = os.fstat(sums.fileno()).st_size // _SUM.itemsize
            self._sums = np.memmap(sums, _SUM, "r+", shape=(count,))
            # Distinguishes these files from later ones of the same name, as long as they are open.
            self.identity = (os.fstat(self._file.fileno()).st_ino, os.fstat(sums.fileno()).st_ino)
        self._rows = np.memmap(self._file, self._dtype, "r", shape=(count, *shape))
        self._checked = np.zeros(count, bool)
        self._lock = threading.Lock()
        self._overflow: dict[int, npt.NDArray[Any]] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (self._folder, self._places, self._shape, self._dtype.str, self.identity))

    def __len__(self) -> int:
        """Return the number of rows, present or missing."""
        return len(self._places)

    def keep_overflow(self) -> None:
        """Keep rows that the disk doesn't take in the memory of this process, for callers that need every row."""
        self._overflow = {}

    def get(self, position: int) -> npt.NDArray[Any] | None:
        """Return a copy of a row, or None where it is missing or corrupted."""
        if self._overflow and position in self._overflow:
            return self._overflow[position].copy()
        place = int(self._places[position])
        if place < 0 or not self._sums[place]:
            return None
        row = np.array(self._rows[place])
        if not self._checked[place]:
            if _compute_checksum(row) != self._sums[place]:
                return None
            self._checked[place] = True
        return row

    def take(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the rows at ``positions``; LookupError where one is missing or corrupted."""
        taken = np.empty((len(positions), *self._shape), self._dtype)
        for number, position in enumerate(positions.tolist()):
            row = self.get(position)
            if row is None:
                raise LookupError(f"row {position} is not there")
            taken[number] = row
        return taken

    def there(self) -> npt.NDArray[np.bool_]:
        """Return which rows exist, ``(n,)`` bool; a corrupted one may count."""
        written: npt.NDArray[np.bool_] = np.asarray(self._sums)[self._places] != 0
        # The place -1 has read the last sum, whose row isn't meant.
        written &= self._places >= 0
        written[list(self._overflow or ())] = True
        return written

    def put(self, position: int, row: npt.NDArray[Any]) -> None:
        """Store a row; where there is no room or the disk is full, do nothing, or keep it as `keep_overflow` says."""
        data = np.ascontiguousarray(row, self._dtype)
        if data.shape != self._shape:
            raise ValueError(f"a row of this table has the shape {self._shape}, not {data.shape}")
        if not self._store(int(self._places[position]), data) and self._overflow is not None:
            self._overflow[position] = data.copy()

    def _store(self, place: int, data: npt.NDArray[Any]) -> bool:
        """Write a row into the table, and return whether it is there then."""
        if place < 0:
            return False
        try:
            # Writing through the memory map would kill the process (SIGBUS) on a full disk.
            with self._lock:
                self._file.seek(place * data.nbytes)
                written = self._file.write(data.data.cast("B"))
        except OSError:
            return False
        if written != data.nbytes:
            return False
        # After the row itself: until then readers in other processes take the row for missing.
        self._sums[place] = _compute_checksum(data)
        self._checked[place] = True
        return True

    @contextmanager
    def making(self, keys: Sequence[bytes | None], check: Callable[[], None]) -> Iterator[None]:
        """Wait while another process computes the same rows, so that they are computed only once.

        Args:
            keys: Keys of the rows, as in `open_rows`.
            check: Called repeatedly while waiting; may raise to stop.
        """
        # 256 lock files for all sets of rows, instead of one each: two sets that share a lock only wait needlessly.
        name = hashlib.sha256(b"".join(key or b"-" for key in keys)).hexdigest()[:2]
        lock = FileLock(self._folder / f".making-{name}")
        try:
            while not _try_lock(lock):
                check()
            yield
        finally:
            lock.release()

    def close(self) -> None:
        """Close the files."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find_cache_root() -> Path:
    """Return the folder of all tables: ``$IMAGETUNE_CACHE``, or ``imagetune`` in the user's cache folder."""
    given = os.environ.get(_ROOT_VARIABLE)
    return Path(given) if given else user_cache_path("imagetune")


def measure_free_disk(root: Path) -> int:
    """Return the free bytes on the disk of ``root``, which need not exist yet."""
    # Not Path.is_dir, which raises for a name that is too long or a folder that may not be looked into.
    place = next(folder for folder in (root.absolute(), *root.absolute().parents) if os.path.isdir(folder))  # noqa: PTH112
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return 0


def compute_row_key(*parts: object) -> bytes:
    """Return the key of a row (a SHA-256) from all that its content depends on: any values that JSON can write."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).digest()


def compute_row_bytes(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    """Return the size of a row in bytes."""
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


def open_rows(
    about: Mapping[str, Any],
    keys: Sequence[bytes],
    shape: tuple[int, ...],
    dtype: str,
    *,
    budget_bytes: int,
    root: Path | None = None,
) -> StoredRows | None:
    """Return the rows of the table that ``about`` describes, creating it or making room for new keys.

    Args:
        about: All that a row's content depends on besides its key, including ``kind``; JSON values.
        keys: 32 bytes each, from `compute_row_key`; equal keys share a row.
        shape: Shape of a row.
        dtype: Dtype of a row, as a NumPy string.
        budget_bytes: Maximum size of all tables together. The least recently used tables are removed; of a single
            table that is larger, only the first rows are kept.
        root: Folder of all tables; `find_cache_root` by default.

    Returns:
        The rows, by position among the keys; None where the folder can't be used.
    """
    root = root or find_cache_root()
    whole = {**about, "shape": list(shape), "dtype": dtype}
    folder = root / str(about["kind"]) / compute_row_key(whole).hex()[:32]
    size = compute_row_bytes(shape, dtype)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One lock for all tables, because making room for one of them removes others.
        with FileLock(root / ".lock", timeout=_LOCK_SECONDS):
            places = _place_keys(folder, list(keys), size, budget_bytes)
            write_json(folder / _ABOUT, whole)  # its modification time is the table's last use
            _make_room(root, folder, budget_bytes)
            # Opened under the lock, before another process may fill the table in another order.
            return StoredRows(folder, places, shape, dtype)
    # A full disk is an error of ours by now.
    except (OSError, ResourceError, Timeout, ValueError):
        return None


def _reopen(
    folder: Path, places: npt.NDArray[np.int64], shape: tuple[int, ...], dtype: str, identity: tuple[int, int]
) -> Rows:
    try:
        rows = StoredRows(folder, places, shape, dtype)
        if rows.identity == identity:
            return rows
    except (OSError, ValueError):
        pass
    # The table was removed or rebuilt meanwhile, so its rows may be in other places.
    return MemoryRows(len(places), shape, dtype)


def _place_keys(folder: Path, keys: list[bytes], size: int, budget: int) -> npt.NDArray[np.int64]:
    """Return the row of each key, -1 without one; the table grows up to the budget."""
    known = _read_keys(folder, size)
    fresh = list(dict.fromkeys(key for key in keys if key not in known))
    # Only whole tables know when they were last used, so one that outgrows the budget begins anew with these keys.
    if (len(known) + len(fresh)) * size > budget:
        _empty(folder)
        known, fresh = {}, list(dict.fromkeys(keys))[: budget // max(size, 1)]
    first = len(known)
    count = first + len(fresh)
    if fresh:
        with (folder / _ROWS).open("ab") as file:
            file.truncate(count * size)
        with (folder / _SUMS).open("ab") as file:
            # Zeros are written: on a full disk a sparse file would fail later, when sums are written through the map.
            # Sums that a crash left without keys would shift those that are appended now.
            file.truncate(first * _SUM.itemsize)
            file.write(bytes(len(fresh) * _SUM.itemsize))
        # Keys are written last, so that after a crash each key has its row.
        with (folder / _KEYS).open("ab") as file:
            file.write(b"".join(fresh))
    known.update({key: place for place, key in enumerate(fresh, start=first)})
    return np.array([known.get(key, -1) for key in keys], np.int64)


def _read_keys(folder: Path, size: int) -> dict[bytes, int]:
    """Return the rows by key; the files of an inconsistent table are removed."""
    try:
        keys = (folder / _KEYS).read_bytes()
        count = len(keys) // KEY_BYTES
        whole = len(keys) == count * KEY_BYTES
        whole = whole and (folder / _ROWS).stat().st_size >= count * size
        whole = whole and (folder / _SUMS).stat().st_size >= count * _SUM.itemsize
    except FileNotFoundError:
        keys, whole, count = b"", False, 0
    if whole:
        return {keys[at * KEY_BYTES : (at + 1) * KEY_BYTES]: at for at in range(count)}
    _empty(folder)
    return {}


def _empty(folder: Path) -> None:
    """Remove a table's files; a process that has them open can still read them."""
    for name in (_KEYS, _SUMS, _ROWS):
        (folder / name).unlink(missing_ok=True)


def _make_room(root: Path, mine: Path, budget: int) -> None:
    """Remove the least recently used tables until all together are within the budget."""
    tables = sorted((about for about in root.glob(f"*/*/{_ABOUT}")), key=lambda about: about.stat().st_mtime)
    sizes = {about.parent: _measure_size(about.parent) for about in tables}
    total = sum(sizes.values())
    for folder, size in sizes.items():
        if total <= budget:
            return
        # `_place_keys` has already kept the caller's own table within the budget.
        if folder != mine:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size


def _measure_size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def _try_lock(lock: FileLock) -> bool:
    """Return whether a lock could be acquired within a moment; True also where the file system has no locks."""
    try:
        lock.acquire(timeout=_POLL_SECONDS)
    except Timeout:
        return False
    except OSError:
        return True
    return True


def _compute_checksum(row: npt.NDArray[Any]) -> int:
    """Return the CRC-32 of a row, with 1 instead of 0, because 0 marks a missing row."""
    return zlib.crc32(row.data.cast("B")) or 1
