"""Plug-in trackers: experiment trackers of other packages, called with a run's metrics beside the training."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from imagetune.core import run_files
from imagetune.core.files import read_json_object
from imagetune.core.plugins import TRACKERS, convert_plugin_errors, load_plugin
from imagetune.errors import ImagetuneError
from imagetune.tracking.content import read_metric_lines

logger = logging.getLogger("imagetune.tracking")

PATIENCE_SECONDS = 8.0
"""How long the end of a run waits for trackers that haven't taken everything yet."""


class RunTracker(Protocol):
    """What an entry point of `imagetune.trackers` makes when it is called with the run folder as training starts."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Receive the metrics of an epoch: a line of metrics.jsonl (stage, step, train, val, ...)."""

    def end(self, state: str) -> None:
        """Receive the final state of the run: `finished`, `failed` or `killed`; its folder is complete now."""


class PluginTrackers:
    """Calls plug-in trackers from one background thread: training neither waits for them nor fails by them.

    They are given what the run folder says, not what the training holds, so that a slow tracker lags and loses nothing.

    Args:
        run_dir: The run folder.
        names: Names of the plug-ins.
        warn: Gets a line for each tracker that fails; a tracker that failed isn't called again for this run.
    """

    def __init__(self, run_dir: Path, names: Sequence[str], warn: Callable[[str], None] = logger.warning) -> None:
        self._run_dir = run_dir
        self._names = names
        self._warn = warn
        self._trackers: dict[str, RunTracker] = {}
        self._passed_on = 0
        self._news = threading.Event()
        self._ending = threading.Event()
        # A daemon: a tracker that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="imagetune-plugin-trackers", daemon=True)

    def start(self) -> None:
        """Create the trackers in the background thread; returns at once."""
        if self._names:
            self._thread.start()

    def poke(self) -> None:
        """Have the trackers called for new epochs soon; returns at once."""
        self._news.set()

    def finish(self, timeout_seconds: float = PATIENCE_SECONDS) -> str | None:
        """Pass on the remaining records and how the run ended.

        Returns:
            A line for the user where the trackers don't finish in time; None otherwise.
        """
        # There are no trackers, or the run ended before they were started.
        if self._thread.ident is None:
            return None
        self._ending.set()
        self._news.set()
        self._thread.join(timeout_seconds)
        if not self._thread.is_alive():
            return None
        names = ", ".join(self._names)
        return f"the trackers ({names}) did not finish within {timeout_seconds:.0f} s; the run folder is complete"

    def _work(self) -> None:
        for name in self._names:
            self._guarded(name, partial(self._make, name))
        ending = False
        while not ending:
            self._news.wait()
            # Cleared before the records are read: an epoch that is written meanwhile sets it again.
            self._news.clear()
            ending = self._ending.is_set()
            for record in self._new_records():
                for name, tracker in list(self._trackers.items()):
                    self._guarded(name, partial(tracker.epoch, record))
        # The run's status is written before its trackers are finished; without one the run never got that far.
        state = str(read_json_object(self._run_dir / run_files.STATUS).get("state", "failed"))
        for name, tracker in list(self._trackers.items()):
            self._guarded(name, partial(tracker.end, state))

    def _make(self, name: str) -> None:
        self._trackers[name] = load_plugin(TRACKERS, name)(self._run_dir)

    def _new_records(self) -> Sequence[Mapping[str, Any]]:
        records = read_metric_lines(self._run_dir)[self._passed_on :]
        self._passed_on += len(records)
        return records

    def _guarded(self, name: str, call: Callable[[], object]) -> None:
        try:
            with convert_plugin_errors(TRACKERS, name):
                call()
        except (ImagetuneError, MemoryError) as error:
            self._trackers.pop(name, None)
            self._warn(f"tracking: {error}; training goes on without it")
