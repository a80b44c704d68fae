"""A real PostgreSQL on this machine, which can be stopped, stalled and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from tracking_helpers import find_port, wait_until

# Debian keeps the programs of each version apart, and only some of them on PATH.
_DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
PROGRAMS = next((folder for folder in reversed(_DEBIAN) if (folder / "initdb").is_file()), None)
if PROGRAMS is None and (found := shutil.which("initdb")):
    PROGRAMS = Path(found).resolve().parent

# Where these tests must not be skipped, as in .ci/run, they run and fail for want of a database.
REQUIRED = os.environ.get("IMAGETUNE_REQUIRE_POSTGRES", "") not in ("", "0")

needs_postgres = pytest.mark.skipif(
    (PROGRAMS is None or find_spec("pg8000") is None) and not REQUIRED,
    reason="there is no PostgreSQL here (apt-get install postgresql), or pg8000, its driver, is missing",
)

_SETTINGS = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "shared_buffers=16MB")


class Postgres:
    """A database server on the loopback interface, with an empty database; its folder is removed by ``remove``."""

    def __init__(self) -> None:
        assert PROGRAMS is not None, "IMAGETUNE_REQUIRE_POSTGRES is set, and there is no PostgreSQL"
        # Not one of pytest's own folders, which only their owner may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="imagetune-postgres-"))
        # PostgreSQL refuses to be run by root.
        self._as: dict[str, object] = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        if os.geteuid() != 0:
            self._as = {}
        else:
            shutil.chown(self.folder, "nobody", "nogroup")
        self.port = find_port()
        self.process: subprocess.Popen[bytes] | None = None
        make = ("initdb", "-D", self.folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        self._run(*make)

    @property
    def uri(self) -> str:
        return f"postgresql+pg8000://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        command = [str(PROGRAMS / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), *settings]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **self._as)  # type: ignore[call-overload]
        wait_until(lambda: self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port), check=False) == 0)

    def stop(self) -> None:
        """Stop it at once, as a machine that loses its power would."""
        if self.process is not None:
            self.wake()
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)
            self.process = None

    def stall(self) -> None:
        """Let it keep every connection and answer none."""
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def query(self, text: str) -> list[list[object]]:
        import pg8000.native

        with pg8000.native.Connection("postgres", host="127.0.0.1", port=self.port, database="postgres") as connection:
            return connection.run(text)

    def count_rows(self) -> dict[str, int]:
        """Return the number of rows of every table: nothing can be added unseen."""
        names = [name for (name,) in self.query("select tablename from pg_tables where schemaname = 'public'")]
        return {name: self.query(f'select count(*) from "{name}"')[0][0] for name in names}

    def _signal(self, number: int) -> None:
        # Its processes leave the group of the first one.
        if self.process is not None:
            first = psutil.Process(self.process.pid)
            for process in (first, *first.children(recursive=True)):
                process.send_signal(number)

    def _run(self, program: str, *arguments: object, check: bool = True) -> int:
        command = [str(PROGRAMS / program), *map(str, arguments)]
        return subprocess.run(command, check=check, capture_output=True, cwd="/", **self._as).returncode  # type: ignore[call-overload]
