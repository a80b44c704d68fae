"""System metrics of a run: processor and memory every few seconds, in ``RUN/system.jsonl``, as psutil has them.

MLflow's own monitor sends each sample to the server at once, which a training must not wait for. These go into the run
folder, and to MLflow with everything else.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import psutil

from imagetune.core import run_files
from imagetune.core.files import append_json_line, read_json_lines
from imagetune.errors import ImagetuneError

SECONDS = 10.0
"""Between two samples, as in MLflow's own monitor."""
_MB = 1e6


class SystemSampler:
    """Writes samples from a thread of its own, from `start` to `stop`; it never raises an error.

    Args:
        run_dir: The run folder.
        seconds: Between two samples.
    """

    def __init__(self, run_dir: Path, seconds: float = SECONDS) -> None:
        self._file = run_dir / run_files.SYSTEM
        self._seconds = seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="imagetune-system", daemon=True)

    def start(self) -> None:
        """Begin to sample, unless MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING says false."""
        if os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() not in ("false", "0"):
            self._thread.start()

    def stop(self) -> None:
        """Take the last sample, so that a short run has one, and end."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(self._seconds)

    def _work(self) -> None:
        # A full disk, or a folder that is gone, is found by those who write what matters.
        with contextlib.suppress(OSError, ImagetuneError, psutil.Error):
            # The first answer of psutil covers no time.
            psutil.cpu_percent()
            ended = False
            while not ended:
                ended = self._stopped.wait(self._seconds)
                append_json_line(self._file, read_sample())


def read_sample() -> dict[str, float]:
    """Return a sample: seconds since 1970, and metrics by the names that MLflow charts."""
    memory = psutil.virtual_memory()
    own = [psutil.Process(), *psutil.Process().children(recursive=True)]
    used = 0.0
    for process in own:
        # A data worker may have ended since.
        with contextlib.suppress(psutil.Error):
            used += process.memory_info().rss
    return {
        "time": time.time(),
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_percentage": memory.percent,
        "system_memory_usage_megabytes": memory.used / _MB,
        "process_memory_usage_megabytes": used / _MB,
    }


def list_samples(run_dir: Path, first: int) -> list[tuple[int, dict[str, float], int]]:
    """Return the samples from number ``first`` on, as metrics for MLflow: step, values by name, and milliseconds."""
    found: list[tuple[int, dict[str, float], int]] = []
    for step, line in enumerate(read_json_lines(run_dir / run_files.SYSTEM)[first:], start=first):
        values = {f"system/{name}": float(value) for name, value in line.items() if name != "time"}
        found.append((step, values, int(1000 * float(line["time"]))))
    return found
