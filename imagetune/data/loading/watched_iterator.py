"""An iterator of Grain's that ends with an error when one of its worker processes has died.

Grain notices a dead worker only between two batches. One that is killed while it writes a batch leaves a part of it in
its pipe, and Grain waits for the rest for ever; with batches of some megabytes that is where a worker mostly is.
"""

from __future__ import annotations

import multiprocessing
import queue
import threading
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from multiprocessing.process import BaseProcess
from typing import Any

from imagetune.core.processes import hide_main_module
from imagetune.errors import ResourceError

# Grain itself looks once a second; this is for what it doesn't see.
_LOOK_SECONDS = 1.0
_PATIENCE_LOOKS = 3
_WORKER_NAME = "grain-process"
_END = object()


class WatchedIterator:
    """Iterator over the elements of Grain's, which are fetched by a thread, one ahead; fetching starts at once.

    Args:
        iterator: The iterator of a dataset of Grain's.
        workers: Number of its worker processes.
    """

    def __init__(self, iterator: Any, *, workers: int) -> None:
        self._iterator = iterator
        self._workers = workers
        self._others = {process.pid for process in multiprocessing.active_children()} if workers else set()
        self._processes: list[BaseProcess] = []
        self._fetched: queue.Queue[Any] = queue.Queue(1)
        self._closing = threading.Event()
        # A daemon, because nothing wakes it where Grain waits for ever.
        self._thread = threading.Thread(target=self._fetch, name="imagetune-batches", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """Return the next element.

        Raises:
            ResourceError: A worker process died.
        """
        if self._closing.is_set():
            raise StopIteration
        fetched = self._wait()
        if fetched is _END:
            self.close()
            raise StopIteration
        if isinstance(fetched, BaseException):
            # Grain reports a worker that was killed as a plain RuntimeError, recognizable by its text alone.
            if isinstance(fetched, RuntimeError) and "terminated unexpectedly" in str(fetched):
                raise _build_dead_worker_error(self._find_dead()) from fetched
            raise fetched
        return fetched

    def close(self) -> None:
        """Stop the workers; a second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._find_dead():
            # Grain would wait for the rest of what it didn't get. Its other workers end with this process, or now.
            for process in self._processes:
                process.kill()
            return
        # Closing an iterator while it starts its workers, or fetches, would leave them running.
        while self._thread.is_alive():
            with suppress(queue.Empty):
                self._fetched.get_nowait()
            self._thread.join(0.01)
        self._iterator.close()

    def _fetch(self) -> None:
        try:
            # The first request starts the workers.
            with hide_main_module() if self._workers else nullcontext():
                element = next(self._iterator, _END)
            while element is not _END and not self._closing.is_set():
                self._fetched.put(element)
                element = next(self._iterator, _END)
            self._fetched.put(_END)
        except BaseException as error:  # noqa: BLE001 - it is raised where the element is asked for
            self._fetched.put(error)

    def _wait(self) -> Any:
        if not self._workers:
            return self._fetched.get()
        looks = 0
        while True:
            if len(self._processes) < self._workers:
                self._note_processes()
            try:
                return self._fetched.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                looks = looks + 1 if self._find_dead() else 0
            # What the worker had sent before it died may still be on its way.
            if looks >= _PATIENCE_LOOKS:
                raise _build_dead_worker_error(self._find_dead())

    def _note_processes(self) -> None:
        # Dead children are no longer among the active ones: those that are known stay.
        known = self._others | {process.pid for process in self._processes}
        children = (child for child in multiprocessing.active_children() if child.name.startswith(_WORKER_NAME))
        self._processes += [child for child in children if child.pid not in known]

    def _find_dead(self) -> list[BaseProcess]:
        """Return the workers that didn't end by themselves."""
        return [process for process in self._processes if process.exitcode not in (None, 0)]


def _build_dead_worker_error(dead: list[BaseProcess]) -> ResourceError:
    """Return the error for worker processes that died."""
    names = ", ".join(f"process {process.pid}, exit code {process.exitcode}" for process in dead)
    hint = "too little memory is the most common cause: lower data.workers or train.batch_size"
    return ResourceError("a worker process that loads images died" + (f" ({names})" if names else ""), hint=hint)
