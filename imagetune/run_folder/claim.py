"""Which process may write a run folder: a lock that ends with its process, however that ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from imagetune.core import run_files
from imagetune.core.files import convert_disk_errors
from imagetune.errors import CheckpointError
from imagetune.run_folder.folder import RunFolder


@contextmanager
def hold_run_folder(folder: RunFolder) -> Iterator[None]:
    """Keep other processes from writing the folder of a run or a search during the block.

    Raises:
        CheckpointError: Another process holds it.
        ResourceError: The folder can't be written.
    """
    lock = FileLock(folder.path / run_files.RUN_LOCK)
    with convert_disk_errors(folder.path):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            # From status.json: the lock's own file says nothing of its owner.
            pid = folder.read_status().get("pid")
            who = "another process" if pid is None else f"process {pid}"
            hint = "wait for it to end, or stop it and go on with --resume"
            raise CheckpointError(f"{who} is writing this run", where=str(folder.path), hint=hint) from None
    try:
        yield
    finally:
        # The file stays: another process may wait for it, and would then lock one that has no name any more.
        lock.release()
