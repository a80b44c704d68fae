"""How long a store is waited for that may never answer: work on it in a thread of its own, and required tracking."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import psutil

from imagetune.core.secrets import redact_uri
from imagetune.errors import TrackingError
from imagetune.recipe.sections.tracking import TrackingConfig
from imagetune.tracking.address import is_http, resolve_uri
from imagetune.tracking.store import open_client

_Result = TypeVar("_Result")

# Importing, migrating, hashing and uploading all take processor time; waiting for an answer takes none.
BUSY_CPU_SECONDS = 0.02
PATIENCE_SECONDS = 30.0
"""How long `call_patiently` waits for a store that doesn't move."""
# The 15 seconds that a required server is given, less the time to report that it didn't answer.
REQUIRED_WITHIN_SECONDS = 14.0
"""How long a recipe that requires tracking waits for its server."""
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class _Call(Generic[_Result]):
    """A call in a thread of its own, with what came of it."""

    thread: threading.Thread
    results: list[_Result]
    failures: list[BaseException]


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
    call = _begin(work)
    _wait_while_moving(call.thread, count_steps, patience_seconds)
    if call.failures:
        raise call.failures[0]
    if not call.results:
        hint = "check the server, then run the same command again: what was sent is remembered"
        raise TrackingError(f"no answer within {patience_seconds:.0f} s", where=redact_uri(uri), hint=hint)
    return call.results[0]


def require_store(config: TrackingConfig, *, timeout_seconds: float = REQUIRED_WITHIN_SECONDS) -> None:
    """Wait until a store that the recipe requires answers; return at once where it requires none.

    Raises:
        TrackingError: It can't be reached, or doesn't answer within this time.
    """
    if not (config.required and config.to_mlflow):
        return
    uri = resolve_uri(config.uri)
    call = _begin(lambda: open_client(uri))
    call.thread.join(timeout_seconds)
    if call.thread.is_alive():
        late = TrackingError(f"there was no answer within {timeout_seconds:.0f} s", where=redact_uri(uri))
        raise build_required_error(late)
    for failure in call.failures:
        raise build_required_error(failure) if isinstance(failure, TrackingError) else failure


def build_required_error(error: TrackingError) -> TrackingError:
    """Return the error of a store as that of a run which requires it."""
    hint = "start the server, or set tracking.required to false to keep the records in the run folder"
    return TrackingError(f"tracking is required, but: {error.what}", where=error.where, hint=hint)


def measure_cpu_seconds(thread: threading.Thread) -> float:
    """Return the processor time that a thread has used; 0 where the system doesn't say, or after its end."""
    times = [row.user_time + row.system_time for row in psutil.Process().threads() if row.id == thread.native_id]
    return times[0] if times else 0.0


def _begin(work: Callable[[], _Result]) -> _Call[_Result]:
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
    return _Call(thread, results, failures)


def _wait_while_moving(thread: threading.Thread, count_steps: Callable[[], int], patience_seconds: float) -> None:
    waited, steps, cpu = 0.0, count_steps(), measure_cpu_seconds(thread)
    while waited < patience_seconds and thread.is_alive():
        thread.join(_LOOK_SECONDS)
        waited += _LOOK_SECONDS
        now = measure_cpu_seconds(thread)
        if count_steps() != steps or now - cpu > BUSY_CPU_SECONDS:
            waited, steps, cpu = 0.0, count_steps(), now
