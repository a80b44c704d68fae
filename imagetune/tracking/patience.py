"""Patience with stores that may never answer: work on them in a thread of its own, waited for as long as it moves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import psutil

from imagetune.core.secrets import redact_uri
from imagetune.errors import TrackingError
from imagetune.tracking.address import is_http

_Result = TypeVar("_Result")

# Importing, migrating, hashing and uploading all take processor time; waiting for an answer takes none.
BUSY_CPU_SECONDS = 0.02
PATIENCE_SECONDS = 30.0
"""How long `call_patiently` waits for a store that doesn't move."""
_LOOK_SECONDS = 0.5


def call_patiently(
    work: Callable[[], _Result],
    *,
    uri: str,
    count_steps: Callable[[], int] = lambda: 0,
    patience_seconds: float = PATIENCE_SECONDS,
) -> _Result:
    """Return what ``work`` returns, which is given up when it neither moves nor computes any more.

    The drivers of databases wait for an answer without end, and not each of them can be told otherwise. Requests over
    HTTP have bounds of their own (`imagetune.tracking.bounded_http`): there it is simply called.

    Args:
        work: Talks to the store; called in a thread of its own, which may outlive this call.
        uri: Address of the store.
        count_steps: Returns how much of the work has come through.
        patience_seconds: How long it may stand still.

    Raises:
        TrackingError: The store doesn't answer. What ``work`` raises is raised as well.
    """
    if is_http(uri):
        return work()
    results: list[_Result] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            failures.append(error)

    # A daemon: a store that hangs must not keep the process from ending.
    thread = threading.Thread(target=run, name="imagetune-store", daemon=True)
    thread.start()
    _wait_while_moving(thread, count_steps, patience_seconds)
    if failures:
        raise failures[0]
    if not results:
        hint = "check the server, then run the same command again: what was sent is remembered"
        raise TrackingError(f"no answer within {patience_seconds:.0f} s", where=redact_uri(uri), hint=hint)
    return results[0]


def measure_cpu_seconds(thread: threading.Thread) -> float:
    """Return the processor time that a thread has used; 0 where the system doesn't say, or after its end."""
    times = [row.user_time + row.system_time for row in psutil.Process().threads() if row.id == thread.native_id]
    return times[0] if times else 0.0


def _wait_while_moving(thread: threading.Thread, count_steps: Callable[[], int], patience_seconds: float) -> None:
    waited, steps, cpu = 0.0, count_steps(), measure_cpu_seconds(thread)
    while waited < patience_seconds and thread.is_alive():
        thread.join(_LOOK_SECONDS)
        waited += _LOOK_SECONDS
        now = measure_cpu_seconds(thread)
        if count_steps() != steps or now - cpu > BUSY_CPU_SECONDS:
            waited, steps, cpu = 0.0, count_steps(), now
