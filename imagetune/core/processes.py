"""What every worker process does first."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

# Parameters of glibc's mallopt, and the largest size that it keeps out of its heaps when asked to.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGEST = 32 * 2**20


_starting = threading.Lock()


@contextmanager
def without_main_module() -> Iterator[None]:
    """Let processes that are started in the block leave the program's own script alone.

    A new process runs the script of the program that started it once more, to find functions that are defined there.
    Ours never are, and a script without ``if __name__ == "__main__"`` would begin its training anew in each of them.
    """
    with _starting:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prepare_worker(*_: int) -> None:
    """Leave Ctrl-C to the main process, end when that is gone, and keep freed memory for the next image."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """End this process at once when its parent is gone: one that is killed can't tell its workers."""
    threading.Thread(target=_outlive_nobody, daemon=True, name="imagetune-parent-watch").start()


def keep_freed_memory() -> None:
    """Let malloc use freed memory again instead of returning each image's to the system.

    An image is just large enough for malloc to get fresh pages from the system each time, and to give them back: a
    fifth of the speed of processes that load images. Elsewhere than with glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for parameter in (_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD):
        mallopt(parameter, _LARGEST)


def _outlive_nobody() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
