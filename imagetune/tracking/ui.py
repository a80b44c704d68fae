"""MLflow's UI on the store of the runs: `imagetune ui` starts MLflow's own server."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import IO, Any

from imagetune.core.secrets import redact_text, redact_uri
from imagetune.errors import RecipeError, TrackingError
from imagetune.tracking.address import is_http, resolve_uri, sqlite_path
from imagetune.tracking.runs import VIEW_TAG, build_view_page
from imagetune.tracking.store import locate_artifact_root, prepare_environment

PAGE = "#/experiments?workflowType=machine_learning"
"""Where the runs are: MLflow's first page is about language models."""
STOP_SECONDS = 8.0
_LOOK_SECONDS = 0.1
_ANSWER_SECONDS = 10.0
# The last line of a Python traceback.
_ERROR_LINE = re.compile(r"^[\w.]+(?:Error|Exception): (.*)$", re.MULTILINE)


def run_ui(uri: str | None, *, host: str = "127.0.0.1", port: int = 5000, open_browser: bool = False) -> int:
    """Show a store in MLflow's UI until SIGINT or SIGTERM.

    Args:
        uri: The store; None means $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the working folder.
        host: Address to listen on.
        port: Port to listen on.
        open_browser: Also open the page in a browser.

    Returns:
        0 after it was stopped, or when the store is a server that has its own UI.

    Raises:
        TrackingError: There is no store yet, or MLflow's server doesn't start.
        RecipeError: The port is taken.
    """
    store = resolve_uri(uri)
    if is_http(store):
        _announce(redact_uri(store), "The tracking server has its own UI:", open_browser)
        return 0
    path = sqlite_path(store)
    if path is not None and not path.exists():
        hint = "`imagetune fit RECIPE` creates it; --uri or $MLFLOW_TRACKING_URI names another store"
        raise TrackingError("there is no MLflow store here yet", where=str(path), hint=hint)
    # Before the server starts: it would take seconds to fail, with a traceback for a message.
    _check_port(host, port)
    # A file and not a pipe, which would fill up and stop the server while nobody reads it.
    with tempfile.TemporaryFile() as log, _stop_signals() as stopped:
        server = _start(store, host, port, log)
        try:
            if _wait_until_up(server, host, port, stopped):
                address = f"http://{_reachable(host)}:{port}"
                _announce(f"{address}/{_find_page(address)}", "MLflow's UI:", open_browser)
            while not stopped and server.poll() is None:
                time.sleep(_LOOK_SECONDS)
        finally:
            _stop(server)
        if not stopped:
            raise _died(server, store, log)
    return 0


def has_browser() -> bool:
    """Return whether there is a browser with windows; one that runs in the terminal would take it away."""
    try:
        return type(webbrowser.get()) is not webbrowser.GenericBrowser
    except webbrowser.Error:
        return False


def build_server_command(host: str, port: int) -> list[str]:
    """Return the command line of MLflow's server, with one worker: that is ready in 6 s, the default four in 20 s."""
    return [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]


def build_server_environment(uri: str) -> Mapping[str, str]:
    """Return the environment of MLflow's server, which holds the store's address.

    A command line, and a password in it, would be visible to every user of the machine.
    """
    prepare_environment()
    settings = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    if root := locate_artifact_root(uri):
        settings["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = root
    return {**os.environ, **settings}


def _start(uri: str, host: str, port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches us alone, and we end the server with all its workers.
    return subprocess.Popen(  # noqa: S603
        build_server_command(host, port),
        env=build_server_environment(uri),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=log,
    )


def _check_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As servers do: a port whose last connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            hint = "choose another one with --port"
            raise RecipeError(f"can't listen on {host}:{port}: {error.strerror}", where="--port", hint=hint) from error


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying from them."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_until_up(server: subprocess.Popen[bytes], host: str, port: int, stopped: list[int]) -> bool:
    while not stopped and server.poll() is None:
        try:
            with socket.create_connection((_reachable(host), port), timeout=1.0):
                return True
        except OSError:
            time.sleep(_LOOK_SECONDS)
    return False


def _find_page(address: str) -> str:
    """Return the run list of the experiment with the newest run, with the columns of imagetune's view.

    A run that goes on or has finished comes before one that failed. MLflow's own list opens without a single metric.
    Where no experiment is ours: the list of experiments.
    """
    import requests

    with contextlib.suppress(requests.RequestException, ValueError):
        found = _ask(address, "experiments/search", max_results=1000).get("experiments", ())
        # The time of an experiment's last change is that of its tags: a new run doesn't move it.
        ours = [one["experiment_id"] for one in found if VIEW_TAG in [tag["key"] for tag in one.get("tags", ())]]
        newest = {"experiment_ids": ours, "max_results": 50, "order_by": ["attributes.start_time DESC"]}
        runs = [run["info"] for run in _ask(address, "runs/search", **newest).get("runs", ())] if ours else []
        for run in sorted(runs, key=lambda run: run["status"] in ("FAILED", "KILLED")):
            return build_view_page(run["experiment_id"])
        if ours:
            return build_view_page(ours[0])
    return PAGE


def _ask(address: str, what: str, **query: Any) -> Any:
    import requests

    return requests.post(f"{address}/api/2.0/mlflow/{what}", json=query, timeout=_ANSWER_SECONDS).json()


def _died(server: subprocess.Popen[bytes], store: str, log: IO[bytes]) -> TrackingError:
    log.seek(0)
    lines = _ERROR_LINE.findall(log.read().decode(errors="replace"))
    reason = redact_text(lines[-1], store) if lines else f"exit code {server.returncode}"
    return TrackingError(f"MLflow's server ended: {reason}", where=redact_uri(store))


def _stop(server: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            # The whole group: the server's workers are processes of their own.
            os.killpg(server.pid, number)
            server.wait(STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _reachable(host: str) -> str:
    # Those mean all addresses to a listener, and are none that a browser can open.
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


def _announce(address: str, what: str, open_browser: bool) -> None:
    print(f"{what} {address}", flush=True)
    if open_browser:
        webbrowser.open(address)
