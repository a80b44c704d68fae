"""Stop requests by signals and time: finish the step, commit a checkpoint, end; a second signal ends at once.

Handlers note the signal and raise nothing; the work asks for it at its boundaries, and `listen_for_stop` at its end.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType

import psutil

from imagetune.core.stopping import answer_stop_checks
from imagetune.errors import StoppedError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# SLURM's `--signal=USR1@60` announces the end of a job's time.
REQUEUE_SIGNALS = (signal.SIGUSR1,)
# Signals within this time after the first belong to it.
SAME_SECONDS = 0.3


class StopRequest:
    """A request to stop, made by a signal or because a time is over.

    Args:
        requeue_on: Signals after which the same command shall be run again.
        max_seconds: Time from now on after which the work stops, to be requeued.

    Attributes:
        signal_number: The first signal received; None before.
    """

    def __init__(self, *, requeue_on: Collection[int] = (), max_seconds: float = math.inf) -> None:
        self.signal_number: int | None = None
        self._requeue_on = frozenset(requeue_on)
        self._deadline = time.monotonic() + max_seconds
        self._received = 0.0
        self._deferred = False

    def check(self) -> None:
        """Return if training may go on.

        Raises:
            StoppedError: A signal was received, or the time is over.
        """
        if self.signal_number is not None:
            raise StoppedError(self.signal_number, requeue=self.signal_number in self._requeue_on)
        if time.monotonic() >= self._deadline:
            raise StoppedError(None, requeue=True)

    def ask(self) -> None:
        """Return if the work may go on; within ``deferred`` it always may.

        Raises:
            StoppedError: A signal was received.
        """
        if not self._deferred:
            self.check()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let signals wait for the next ``check`` during the block, which no other boundary interrupts."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def receive(self, signal_number: int, _frame: FrameType | None = None) -> None:
        """Note a signal; a second one ends the process."""
        now = time.monotonic()
        if self.signal_number is not None:
            # `timeout` and job schedulers send one to the process and another to its group: they mean the same.
            if now - self._received < SAME_SECONDS:
                return
            _exit_now(StoppedError(signal_number, requeue=signal_number in self._requeue_on).exit_code)
        self.signal_number, self._received = signal_number, now


class StopWhen(StopRequest):
    """A request to stop made by a function, without signals.

    Args:
        asked: Called after every step; true stops the run there.
    """

    def __init__(self, asked: Callable[[], bool]) -> None:
        super().__init__()
        self._asked = asked

    def check(self) -> None:
        """Return if training may go on.

        Raises:
            StoppedError: The function returned true.
        """
        if self._asked():
            raise StoppedError(None)


@contextmanager
def listen_for_stop(
    signals: Collection[signal.Signals] = SIGNALS,
    *,
    requeue_on: Collection[signal.Signals] = (),
    max_seconds: float = math.inf,
) -> Iterator[StopRequest]:
    """Yield a stop request that receives signals during the block, and answers `check_stop`.

    Outside the main thread, where Python can't set handlers, signals stay as they are.

    Args:
        signals: Signals to receive; a trial leaves Ctrl-C, which a terminal sends to all processes, to the search.
        requeue_on: Signals after which the same command shall be run again; they are received as well.
        max_seconds: Time after which the work stops, to be requeued.

    Raises:
        StoppedError: A signal was received that nothing in the block has asked for.
    """
    request = StopRequest(requeue_on=requeue_on, max_seconds=max_seconds)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.receive) for number in {*signals, *requeue_on}}
    try:
        with answer_stop_checks(request.ask):
            yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    # After the last boundary: the work is done, and still the process was asked to stop; there is nothing to requeue.
    if request.signal_number is not None and request.signal_number not in requeue_on:
        request.check()


def listen_for_requeue(*, resume: bool, max_seconds: float | None) -> AbstractContextManager[StopRequest]:
    """Return `listen_for_stop` for work that the same command can go on with, as a scheduler runs it again.

    Args:
        resume: Whether the command goes on with what it finds: then SIGTERM, too, says that it shall be run again.
        max_seconds: Time after which the work stops; None for no limit.
    """
    again = {*REQUEUE_SIGNALS, *((signal.SIGTERM,) if resume else ())}
    return listen_for_stop(requeue_on=again, max_seconds=math.inf if max_seconds is None else max_seconds)


def _exit_now(exit_code: int) -> None:
    """End the process without unwinding: checkpoints are complete or absent at any moment."""
    # Workers ignore Ctrl-C, and os._exit runs nothing that would stop them.
    with suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            # One may end meanwhile; an exception would leave this handler and keep the process alive.
            with suppress(psutil.Error):
                child.kill()
    os._exit(exit_code)
