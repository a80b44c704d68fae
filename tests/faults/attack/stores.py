"""Passwords in the address and environment of MLflow stores that are there and take everything: none may arrive."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from imagetune.tracking.ui import build_server_command, build_server_environment
from tests.faults.attack.case import Case, Outcome, Room
from tests.faults.attack.recipes import CANARY

PASSWORDS = {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": CANARY, "MLFLOW_TRACKING_TOKEN": CANARY}
# MLflow's server imports for some seconds, more on a busy machine.
START_SECONDS = 60.0
# MLflow's client is imported and a database is filled, which no other fit of the cases does.
BOUNDS: Mapping[str, float] = {"cpu_seconds": 30.0, "wall_seconds": 150.0}


def cases() -> Iterator[Case]:
    """Yield fits that are tracked by a store in a file and by a real server, within what is searched afterwards."""
    yield Case(
        "stores/file",
        partial(_fit, "sqlite:///{work}/store/mlflow.db"),
        frozenset({0}),
        secret=CANARY,
        check=_find_nothing_sent,
        during=_folder,
        environment=PASSWORDS,
        **BOUNDS,
    )
    # An address wins over the variables, and MLflow's server takes anyone.
    for name, environment in (("address", {}), ("environment", PASSWORDS)):
        port = find_port()
        account = f"ann:{CANARY}@" if name == "address" else ""
        yield Case(
            f"stores/server-{name}",
            partial(_fit, f"http://{account}127.0.0.1:{port}"),
            frozenset({0}),
            secret=CANARY,
            check=_find_nothing_sent,
            during=partial(_serving, port),
            environment=environment,
            **BOUNDS,
        )


def find_port() -> int:
    """Return a port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _fit(uri: str, room: Room) -> list[str | Path]:
    tracking = f"tracking={{enabled: true, uri: '{uri.format(work=room.work)}'}}"
    return ["fit", room.shared / "recipe.yaml", "--run-dir", "run", "-o", tracking]


@contextmanager
def _folder(room: Room) -> Iterator[None]:
    (room.work / "store").mkdir()
    yield


@contextmanager
def _serving(port: int, room: Room) -> Iterator[None]:
    """Run MLflow's own server beside a case, with its database, its artifacts and its log in the case's folder."""
    folder = room.work / "store"
    # Artifacts that a server keeps in a folder of this machine are only written below one that is there.
    (folder / "mlruns").mkdir(parents=True)
    environment = build_server_environment(f"sqlite:///{folder / 'mlflow.db'}")
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            build_server_command("127.0.0.1", port),
            env=environment,
            cwd=folder,
            start_new_session=True,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_for(port, server)
            yield
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("MLflow's server did not start")


def _find_nothing_sent(room: Room, outcome: Outcome) -> str:
    """Complain where the store has no metrics, as nothing is found in an empty one."""
    del outcome
    with closing(sqlite3.connect(room.work / "store" / "mlflow.db")) as store:
        ((count,),) = store.execute("select count(*) from metrics").fetchall()
    copies = [path for path in room.work.rglob("evaluation.json") if not path.is_relative_to(room.work / "run")]
    return "" if count and copies else f"the store has {count} metrics and {len(copies)} copies of evaluation.json"
