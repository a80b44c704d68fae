"""Processes: set-up of workers, usable cores, starting without the main module, and telling a lack of memory."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType

from imagetune.errors import ResourceError

# Parameters of glibc's mallopt, and the largest threshold that it accepts.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_MAX_THRESHOLD = 32 * 2**20
# Rows x features x outputs below which one thread is faster than several; see `limit_blas_threads`.
_SMALL_CELLS = 40_000_000
# What the loader of libraries, threads and processes say for want of memory, instead of a MemoryError.
_MEMORY_SIGNS = ("Cannot allocate memory", "failed to map segment", "can't start new thread", "bad_alloc")
# Measured on two cores: with 2.0 GB the import hangs, with 2.5 GB OpenBLAS ends the process, 3.5 GB are enough for a
# small training.
_START_BYTES = 3 << 30
# The main module is swapped for the whole process, so one thread at a time may do it.
_starting = threading.Lock()


@contextmanager
def hide_main_module() -> Iterator[None]:
    """Keep processes started in the block from running the program's main module again.

    A spawned process runs the script of its parent once more, to find functions that are defined there. Ours are not,
    and a script without ``if __name__ == "__main__"`` would start its training again in every process.
    """
    with _starting:
        main = sys.modules["__main__"]
        # An empty module has neither file nor spec, by which multiprocessing would find the script.
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


@contextmanager
def limit_blas_threads(cells: int) -> Iterator[None]:
    """Limit BLAS to one thread inside the block where there is little to compute.

    The threads of a small matrix product wait for each other longer than they compute: on two busy cores a logistic
    regression of 400 images took 100 times as long with several threads.

    Args:
        cells: Size of the computation: rows x features x outputs.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas") if cells < _SMALL_CELLS else nullcontext():
        yield


def count_usable_cores() -> int:
    """Return the number of CPU cores that this process may use, which containers and taskset limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_short_of_memory(error: BaseException) -> bool:
    """Return whether an error was caused by a lack of memory, under whatever name."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return any(sign in str(error) for sign in _MEMORY_SIGNS)


def require_address_space() -> None:
    """Make sure that a limit on memory leaves what TensorFlow needs to start: with less it dies without a word.

    Raises:
        ResourceError: The limit (``ulimit -v``) is lower.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _START_BYTES:
        what = (
            f"the limit on memory (ulimit -v) is {limit / 2**30:.1f} GB, and TensorFlow needs {_START_BYTES >> 30} GB"
        )
        raise ResourceError(f"{what} to start", hint="raise it, or limit resident memory by a container or a cgroup")


def prepare_worker(*_: int) -> None:
    """Initialize a worker process: ignore Ctrl-C, end with the main process, and reuse freed memory."""
    keep_freed_memory()
    # A terminal sends Ctrl-C to all processes of the group; only the main process decides how they stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """End this process as soon as its parent has ended; a parent that is killed can't stop its workers."""
    threading.Thread(target=_wait_for_parent, daemon=True, name="imagetune-parent-watch").start()


def keep_freed_memory() -> None:
    """Make malloc reuse freed memory instead of returning it to the system.

    An image is just large enough for malloc to request new pages from the system each time and to return them, which
    costs a fifth of the speed of processes that load images. Without glibc this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for parameter in (_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD):
        mallopt(parameter, _MAX_THRESHOLD)


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # sys.exit would end this thread alone.
        os._exit(1)
