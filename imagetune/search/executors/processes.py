"""Executor of trials in processes of this machine, one each: memory is freed, and a crash ends only that trial.

On Linux they are forked from a forkserver that has imported everything and computed nothing, so that a trial begins at
once; elsewhere each process starts anew.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from imagetune.core import run_files
from imagetune.core.processes import end_with_parent, hide_main_module
from imagetune.search.executors.deaths import describe_death, memory_kills
from imagetune.search.executors.protocol import Outcome, Task, Work
from imagetune.search.executors.slots import Slot

# A search that gets SIGTERM has to end within 30 seconds, its trials before it.
_STOP_SECONDS = 20.0
# From its result to its end: a process that hangs then is killed.
_END_SECONDS = 5.0
_RESTART_SECONDS, _RESTART_PAUSE_SECONDS = 5.0, 0.1
# A line of search.csv and of the screen; the whole message is in the trial's log.
_LONGEST_REASON = 300


@dataclass(frozen=True)
class _Running:
    """A running trial: its process, the pipe for its result, and the out-of-memory kills counted at its start."""

    task: Task
    slot: Slot
    process: BaseProcess
    seen: psutil.Process | None
    results: Connection
    began: float
    memory_kills: int | None


@dataclass(frozen=True)
class _Start:
    """Work, task, environment and log of a trial's process; it is pickled."""

    work: bytes
    task: Task
    environment: dict[str, str]
    log: Path


def get_start_context() -> Any:
    """Return the multiprocessing context of trials: forkserver on Linux, else spawn."""
    # Not fork: threads and CUDA don't survive it, and the main process may have both.
    return multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")


def start_forkserver(preload: Sequence[str]) -> None:
    """Start the forkserver, so that it imports while this process does other things.

    Args:
        preload: Names of the modules that it imports; without effect where it runs already.
    """
    if sys.platform == "linux":
        multiprocessing.set_forkserver_preload(list(preload))
        with _output_hidden():
            multiprocessing.forkserver.ensure_running()


class Processes:
    """An executor that starts a process for each trial, several at a time.

    Everything that such a process and its libraries print goes to ``trial.log`` in the trial's folder.

    Args:
        work: Runs a trial.
        slots: Slots for trials, one trial at a time in each.
        preload: Names of the modules that the forkserver imports.
        stop_seconds: How long a trial that is asked to stop may take before it is killed.
    """

    def __init__(
        self,
        work: Work,
        slots: Sequence[Slot],
        *,
        preload: Sequence[str] = (),
        stop_seconds: float = _STOP_SECONDS,
    ) -> None:
        self.slots = len(slots)
        # Packed once, since it holds the list of all images, and not again for each trial.
        self._work = pickle.dumps(work)
        self._free = list(slots)
        self._preload = preload
        self._stop_seconds = stop_seconds
        self._running: list[_Running] = []
        self._never_began: list[tuple[Task, Outcome]] = []
        self._context = get_start_context()
        start_forkserver(preload)

    def start(self, task: Task) -> None:
        """Start the process of a task in a free slot."""
        # It is taken from the list only when its process runs, so that a start that fails leaves it free.
        slot = self._free[0]
        ours, theirs = self._context.Pipe(duplex=False)
        # The environment is sent along: the forkserver's own may be older.
        start = _Start(self._work, task, {**os.environ, **slot.environment}, locate_log(task))
        # The log lies beside the trial's folder, which isn't there yet.
        task.folder.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        try:
            process = self._start_process(start, theirs)
        except (OSError, EOFError) as error:
            reason = f"resources: no process could be started: {error or 'the forkserver has died'}"
            # `start` returns nothing: the next `wait` reports the failure.
            self._never_began.append((task, Outcome("failed", place=slot.place, error=reason)))
            return
        finally:
            # As long as this process holds the writing end as well, the pipe of a dead trial would never read as
            # closed.
            theirs.close()
        seen = _identify(process.pid)
        self._running.append(_Running(task, self._free.pop(0), process, seen, ours, began, memory_kills()))

    def _start_process(self, start: _Start, results: Connection) -> BaseProcess:
        """Start the process of a trial and return it; a forkserver that has died is started again."""
        deadline = time.monotonic() + _RESTART_SECONDS
        while True:
            process: BaseProcess = self._context.Process(
                target=_run, args=(start, results), name=run_files.trial_folder_name(start.task.trial_id)
            )
            try:
                # Each time: it does nothing while the server runs, and brings back one that was killed.
                start_forkserver(self._preload)
                with hide_main_module():
                    process.start()
            except (OSError, EOFError):
                # For a moment a forkserver that was killed neither answers nor counts as dead.
                if time.monotonic() > deadline:
                    raise
                time.sleep(_RESTART_PAUSE_SECONDS)
            else:
                return process

    def wait(self, timeout_seconds: float) -> Sequence[tuple[Task, Outcome]]:
        """Return the tasks that ended since the last call with their outcomes."""
        never_began, self._never_began = self._never_began, []
        if never_began or not self._running:
            return never_began
        # Both: a process may hang after its result, and one that is killed sends none.
        handles = [handle for one in self._running for handle in (one.results, one.process.sentinel)]
        ready = set(wait(handles, timeout_seconds))
        ended = [one for one in self._running if one.results in ready or one.process.sentinel in ready]
        self._running = [one for one in self._running if one not in ended]
        return [(one.task, self._collect(one)) for one in ended]

    def close(self) -> None:
        """Stop the running trials, and kill those that take longer than ``stop_seconds``."""
        for one in self._running:
            one.process.terminate()
        deadline = time.monotonic() + self._stop_seconds
        for one in self._running:
            one.process.join(max(0.0, deadline - time.monotonic()))
        for one in self._running:
            self._collect(one)
        self._running = []

    def _collect(self, ended: _Running) -> Outcome:
        """Return the outcome of a process that has sent its result or died, and free its slot."""
        outcome = _receive_outcome(ended.results)
        ended.process.join(_END_SECONDS if outcome else 0.0)
        if ended.seen is not None:
            _kill_tree(ended.seen)
        ended.process.join()
        log = settle_log(ended.task)
        if outcome is None:
            kills = memory_kills()
            # Where the kernel doesn't count, a SIGKILL is taken for its doing, and the message says "probably".
            for_memory = kills is None or ended.memory_kills is None or kills > ended.memory_kills
            outcome = Outcome("failed", error=describe_death(ended.process.exitcode, log, for_memory=for_memory))
        ended.process.close()
        ended.results.close()
        self._free.append(ended.slot)
        return replace(outcome, seconds=time.monotonic() - ended.began, place=ended.slot.place)


def _run(start: _Start, results: Connection) -> None:
    """Run a trial in its own process, send its outcome, and end this process."""
    # A terminal sends Ctrl-C to every process; the main one decides whether trials stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    redirect_output(start.log)
    # A main process that is killed can't stop its trials: each notices by itself.
    end_with_parent()
    # A variable that was unset since the forkserver began must be unset here as well.
    os.environ.clear()
    os.environ.update(start.environment)
    try:
        outcome = pickle.loads(start.work)(start.task)  # noqa: S301 - what this process's parent has packed
    except Exception as error:  # noqa: BLE001 - a bug in one trial is that trial's
        traceback.print_exc()
        outcome = Outcome("failed", error=describe_bug(error))
    results.send(outcome)
    results.close()
    sys.stdout.flush()
    sys.stderr.flush()
    # A normal exit frees memory piece by piece and runs handlers of libraries that may hang; the system frees at once.
    os._exit(0)


def redirect_output(log: Path) -> None:
    """Redirect this process's output to a file: Python's, that of libraries, and the stack of a crash."""
    # By descriptor and not by `sys.stdout`: TensorFlow and CUDA print from C++.
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)
    # A crash inside a library leaves no traceback otherwise.
    faulthandler.enable(file=2)


def limit_threads(count: int) -> None:
    """Limit the threads of libraries that are imported already; those imported later read the environment."""
    import cv2
    from threadpoolctl import threadpool_limits

    cv2.setNumThreads(count)
    threadpool_limits(limits=count)


def describe_bug(error: Exception) -> str:
    """Return an unexpected error of a trial in one line, which names its log."""
    text = " ".join(str(error).split())
    return f"internal: {type(error).__name__}: {text}"[:_LONGEST_REASON] + f"; see {run_files.TRIAL_LOG} in its folder"


def _receive_outcome(results: Connection) -> Outcome | None:
    """Return the outcome that a trial's process has sent; None where it died before."""
    try:
        if results.poll():
            outcome: Outcome = results.recv()
            return outcome
    except (EOFError, OSError, pickle.UnpicklingError):  # it died meanwhile
        pass
    return None


def _identify(pid: int | None) -> psutil.Process | None:
    """Return a process by number and start time, so that a later one with its number isn't it; None if it has ended."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid)
    return None


def _kill_tree(process: psutil.Process) -> None:
    """Kill a process that still runs, with the processes that it has started.

    Multiprocessing isn't asked whether it runs: it no longer knows once the forkserver has died.
    """
    with suppress(psutil.NoSuchProcess):
        # Listed before their parent is killed: afterwards nothing tells whose children they were.
        for one in [*process.children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                one.kill()


def locate_log(task: Task) -> Path:
    """Return the path of a trial's log while its process runs: beside the trial's folder."""
    # The trial makes its folder itself, and refuses one with files in it.
    return task.folder.with_name(f"{task.folder.name}.log")


def settle_log(task: Task) -> Path:
    """Move the log of an ended process into the trial's folder, and return its path; an empty log is removed."""
    log, place = locate_log(task), task.folder / run_files.TRIAL_LOG
    if log.exists() and log.stat().st_size:
        # A process that died early has made no folder, and its log alone says why.
        task.folder.mkdir(exist_ok=True)
        # Only now, as the trial refuses a folder with files in it, and a cluster's machine moves one aside.
        log.replace(place)
    log.unlink(missing_ok=True)
    return place


@contextmanager
def _output_hidden() -> Iterator[None]:
    """Keep processes that are started in the block from printing to the user's screen.

    They inherit this process's output, and Python offers no way to start the forkserver with another one.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(stream) for stream in (1, 2)]
    with Path(os.devnull).open("w", encoding="utf-8") as hidden:
        try:
            for stream in (1, 2):
                os.dup2(hidden.fileno(), stream)
            yield
        finally:
            for stream, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, stream)
                os.close(copy)
