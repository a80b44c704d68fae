"""The question whether to stop, asked at every boundary of the work: an image, a batch, an analysis, a run's end.

A handler that raised would do so in the middle of anything; inside a destructor Python prints such an exception and
goes on. So handlers only note the signal (`imagetune.training.setup.stopping`), and the work asks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from imagetune.errors import StoppedError

_Item = TypeVar("_Item")


def _never() -> None:
    """Let the work go on: nobody listens for signals."""


_ask: Callable[[], None] = _never


def check_stop() -> None:
    """Return if the work may go on; only the main thread is ever stopped.

    Raises:
        StoppedError: A signal was received.
    """
    if threading.current_thread() is threading.main_thread():
        _ask()


@contextmanager
def answer_stop_checks(ask: Callable[[], None]) -> Iterator[None]:
    """Let ``check_stop`` call ``ask`` during the block, which raises StoppedError where the work must stop."""
    global _ask  # noqa: PLW0603 - signals belong to the whole process, too
    before, _ask = _ask, ask
    try:
        yield
    finally:
        _ask = before


@contextmanager
def hold_stops() -> Iterator[None]:
    """Let ``check_stop`` return during the block: what is written at a run's end is written to its end."""
    with answer_stop_checks(_never):
        yield


def prefer_stop(error: BaseException) -> BaseException:
    """Return the stop that was asked for before ``error`` came, with ``error`` as its cause; without one ``error``.

    A signal to a group of processes ends the workers, too, whose absence is then reported as an error.
    """
    try:
        check_stop()
    except StoppedError as stop:
        if not isinstance(error, StoppedError):
            stop.__cause__ = error
            return stop
    return error


def ask_before_each(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the items, with ``check_stop`` called before each.

    Raises:
        StoppedError: A signal was received.
    """
    for item in items:
        check_stop()
        yield item
