"""Command lines that run in a process of their own while a test injects faults from outside."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tracking_helpers import wait_until

from tests.faults.attack.keeper import PROJECT, Watcher

LONGEST_SECONDS = 300.0
# Options of a fit: an evaluation of a moment, and no copy in MLflow.
_LIGHT = ("explain=0", "baselines=false", "label_errors=false", "slices=false")
QUICK_TEST = tuple(word for name in _LIGHT for word in ("-o", f"evaluate.{name}"))
OFFLINE = ("-o", "tracking.enabled=false")


@dataclass(frozen=True)
class Ended:
    """How a command line ended: its exit code (negative for a signal), its streams, and the seconds it took."""

    code: int
    out: str
    err: str
    seconds: float


class Begun:
    """A command line that runs."""

    def __init__(self, answer: Future[dict[str, Any]], watcher: Watcher, folder: Path) -> None:
        self._answer, self._watcher, self._folder = answer, watcher, folder

    @property
    def running(self) -> bool:
        return not self._answer.done()

    def signal(self, number: int) -> None:
        """Send a signal to its process."""
        children = psutil.Process(self._watcher.process.pid).children
        wait_until(lambda: children() or not self.running)
        children()[0].send_signal(number)

    def await_file(self, path: Path, lines: int = 1) -> None:
        """Wait until a file has so many lines.

        Raises:
            AssertionError: The command has ended before.
        """
        wait_until(lambda: count_lines(path) >= lines or not self.running)
        assert count_lines(path) >= lines, self.wait()

    def wait(self) -> Ended:
        """Wait for its end."""
        answer = self._answer.result(LONGEST_SECONDS + 30)
        out, err = ((self._folder / name).read_text("utf-8", "replace") for name in ("stdout", "stderr"))
        return Ended(answer["code"], out, err, answer["wall_seconds"])


class Commands:
    """Begins command lines in the watcher's forks, one at a time: Keras is imported there already.

    Args:
        watcher: What runs them.
        folder: Their working folder; the caches and the streams of the last one lie there, too.
    """

    def __init__(self, watcher: Watcher, folder: Path) -> None:
        self._watcher, self._folder = watcher, folder
        self._thread = ThreadPoolExecutor(1)

    def begin(
        self,
        *arguments: object,
        environment: Mapping[str, str] | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> Begun:
        """Begin ``imagetune ARGUMENTS``."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTEST_"))}
        own = {"IMAGETUNE_CACHE": str(self._folder / "cache"), "PYTHONPATH": str(PROJECT)}
        fixed = {"MLFLOW_DISABLE_TELEMETRY": "true", "CUDA_VISIBLE_DEVICES": "-1"}
        for name in ("stdout", "stderr"):
            (self._folder / name).unlink(missing_ok=True)
        request = {
            "arguments": [str(argument) for argument in arguments],
            "environment": kept | own | fixed | dict(environment or {}),
            "folder": str(self._folder),
            "stdout": str(self._folder / "stdout"),
            "stderr": str(self._folder / "stderr"),
            "limits": dict(limits or {}),
            "signals": [],
            "closed": [],
            "fresh": False,
            "megabytes": math.inf,
            "wall_seconds": LONGEST_SECONDS,
        }
        return Begun(self._thread.submit(self._watcher.ask, request), self._watcher, self._folder)

    def run(self, *arguments: object, **settings: Any) -> Ended:
        """Run ``imagetune ARGUMENTS`` to its end; the keywords are those of `begin`."""
        return self.begin(*arguments, **settings).wait()


def count_lines(path: Path) -> int:
    """Return the number of complete lines of a file; 0 where there is none yet."""
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0
