"""Connection to MLflow's tracking store: MLflow's import, settings, errors and first start."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from imagetune.core.leftovers import list_leftovers, name_temporary
from imagetune.core.secrets import redact_text, redact_uri
from imagetune.errors import ImagetuneError, TrackingError
from imagetune.tracking.address import is_http, locate_database, sqlite_path
from imagetune.tracking.bounded_http import bound_requests, request_headers
from imagetune.tracking.state import hold_file_lock

if TYPE_CHECKING:
    from mlflow import MlflowClient

_Found = TypeVar("_Found")
logger = logging.getLogger(__name__)

# MLflow retries for 246 seconds by default. Training never waits for it, and what fails is tried again at the next
# epoch, at the end and by `imagetune sync`: one retry is enough. The user's own values win.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_NOISY_LOGGERS = ("mlflow", "alembic")
# To connect and to answer: together below the 14 seconds after which required tracking gives up.
_PROBE_SECONDS = (4.0, 8.0)
_FIRST_START_SECONDS = 300.0
_MAX_READ_TEXT = 10_000
_ID = re.compile(r"[\w-]{1,128}")
# A run or experiment that is not there, as MLflow's error codes call it.
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


# What sqlite says to a migration that was cut off before; that an experiment already exists is no such error.
_HALF_MADE = re.compile(r"OperationalError\) .*(duplicate column name|already exists)")


class _ToOurLog(logging.Handler):
    """Log handler that passes MLflow's records to our own logger, at debug level and without secrets."""

    def __init__(self, uri: str) -> None:
        super().__init__()
        self.uri = uri

    def emit(self, record: logging.LogRecord) -> None:
        logger.debug("%s: %s", record.name, redact_text(self.format(record), self.uri))


def prepare_environment() -> None:
    """Set MLflow's settings that the user has not set; call it before mlflow is imported."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def open_client(uri: str, *, tick: Callable[[], None] = lambda: None) -> MlflowClient:
    """Return MLflow's client for a store; a sqlite store that is not there yet is created.

    Args:
        uri: Complete address, secrets included.
        tick: Called while another process creates the store.

    Raises:
        TrackingError: The store can't be reached or is of a kind that MLflow doesn't have.
    """
    prepare_environment()
    if is_http(uri):
        _probe(uri)
    elif database := locate_database(uri):
        _probe_database(uri, database)
    with store_errors(uri):
        from mlflow import MlflowClient

        _catch_logs(uri)
        path = sqlite_path(uri)
        if path is None:
            return _checked(MlflowClient(uri))
        # Two processes in MLflow's first migration at once break each other: 3 of 4 failed.
        busy = "another process has been creating this store for minutes"
        with hold_file_lock(
            path.with_name(f"{path.name}.lock"), wait_seconds=_FIRST_START_SECONDS, busy=busy, tick=tick
        ):
            if not path.exists():
                _make_database(path)
            return _checked(MlflowClient(uri))


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Bound MLflow's requests in the block, and turn whatever it raises into a TrackingError that shows no secrets."""
    try:
        with bound_requests():
            yield
    except ImagetuneError:
        raise
    except ModuleNotFoundError as error:
        hint = "install it; for PostgreSQL: pip install 'imagetune-keras[postgresql]', and postgresql+pg8000://..."
        what = f"the driver of this store is not installed: {error.name}"
        raise TrackingError(what, where=redact_uri(uri), hint=hint) from None
    # Stores and artifact plugins raise the errors of their own libraries: SQL, HTTP, S3, Azure and others.
    except Exception as error:  # noqa: BLE001
        # A server's words may hold whatever a terminal obeys.
        printable = "".join(letter if letter.isprintable() else " " for letter in str(error)[:_MAX_READ_TEXT])
        text = redact_text(" ".join(printable.split()), uri)
        logger.debug("MLflow failed: %s: %s", type(error).__name__, text)
        half_made = sqlite_path(uri) is not None and _HALF_MADE.search(text) is not None
        hint = "a process was killed while it made it: move the file away, and imagetune sync RUN sends the run again"
        raise TrackingError(
            _shortened(text) or type(error).__name__, where=redact_uri(uri), hint=hint if half_made else ""
        ) from None


def is_absent(error: Exception) -> bool:
    """Return whether an MLflow error says that a run, model or experiment doesn't exist."""
    return getattr(error, "error_code", None) in _ABSENT


def check_id(value: object, uri: str) -> str:
    """Return an id from a store, which names folders and parts of addresses.

    Raises:
        TrackingError: It has other letters than MLflow's ids.
    """
    text = str(value)
    if not _ID.fullmatch(text):
        raise TrackingError(
            f"the store answers with the id {text[:100]!r}", where=redact_uri(uri), hint="check the server"
        )
    return text


def create_once(find: Callable[[], _Found | None], create: Callable[[], _Found]) -> _Found:
    """Return what ``find`` finds, or else what ``create`` creates, also where only the answer to that was lost."""
    found = find()
    if found is not None:
        return found
    try:
        return create()
    except Exception:
        # The server may have done it and died, or the network: a second attempt would make a second one.
        if (found := find()) is None:
            raise
        return found


def locate_artifact_root(uri: str) -> str | None:
    """Return the artifact location of new experiments: ``mlruns`` beside a sqlite database; None for a server's own."""
    path = sqlite_path(uri)
    return None if path is None else (path.parent / "mlruns").as_uri()


def _make_database(path: Path) -> None:
    """Make a sqlite store, complete or not at all: MLflow can't go on with tables that a killed process half made."""
    from mlflow import MlflowClient

    for leftover in list_leftovers(path.parent):
        if leftover.name.endswith(path.name):
            leftover.unlink()
    temporary = path.with_name(f"{name_temporary()}{path.name}")
    _checked(MlflowClient(f"sqlite:///{temporary}"))
    temporary.rename(path)


def _checked(client: Any) -> MlflowClient:
    # The store is opened by its first use.
    client.search_experiments(max_results=1)
    return client


def _probe(uri: str) -> None:
    """Check that a server answers at all: a refused or silent one is found in seconds, without MLflow's own retries."""
    import requests

    try:
        request_headers(f"{uri.rstrip('/')}/health", _PROBE_SECONDS)
    except requests.exceptions.SSLError:
        # MLflow has certificate settings of its own; the server is there.
        return
    except requests.exceptions.Timeout:
        raise TrackingError(
            "the MLflow server does not answer", where=redact_uri(uri), hint="check the address and the server"
        ) from None
    # An address that is no host's name, such as one with an empty part, is a mistake of another kind to urllib3.
    except (requests.exceptions.RequestException, ValueError) as error:
        reason = "refused the connection" if "refused" in str(error).lower() else "can't be reached"
        raise TrackingError(
            f"the MLflow server {reason}", where=redact_uri(uri), hint="check the address and that it runs"
        ) from None


def _probe_database(uri: str, place: tuple[str, int]) -> None:
    """Check that a database accepts connections: MLflow would try one that is down for 100 seconds."""
    try:
        socket.create_connection(place, timeout=_PROBE_SECONDS[0]).close()
    except OSError as error:
        what = f"the database can't be reached: {error.strerror or error}"
        raise TrackingError(what, where=redact_uri(uri), hint="check the address and that it runs") from None


def _catch_logs(uri: str) -> None:
    for name in _NOISY_LOGGERS:
        noisy = logging.getLogger(name)
        # MLflow logs to the screen, where its lines would tear the progress display and may show the store's password.
        noisy.handlers[:] = [_ToOurLog(uri)]
        noisy.propagate = False


def _shortened(text: str, limit: int = 400) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."
