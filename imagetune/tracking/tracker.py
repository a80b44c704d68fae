"""Experiment tracking beside the training: one background thread does all that concerns MLflow."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from imagetune.core.secrets import redact_uri
from imagetune.errors import ImagetuneError, TrackingError
from imagetune.recipe.sections.tracking import TrackingConfig
from imagetune.tracking.address import is_http, resolve_uri
from imagetune.tracking.bounded_http import BYTES_PER_SECOND, get_traffic
from imagetune.tracking.patience import (
    BUSY_CPU_SECONDS,
    REQUIRED_WITHIN_SECONDS,
    build_required_error,
    measure_cpu_seconds,
)
from imagetune.tracking.plugin_trackers import PluginTrackers
from imagetune.tracking.state import read_state, write_state
from imagetune.tracking.sync import Children, Syncer, build_first_state, run_lock
from imagetune.tracking.system import SystemSampler

logger = logging.getLogger("imagetune.tracking")

PATIENCE_SECONDS = 8.0
"""How long the end of a run waits for a store that doesn't move, and for a server in all."""
# Between attempts: a server that restarts is found soon, one that is down isn't asked every few seconds.
_RETRY_SECONDS = (5.0, 10.0, 20.0, 40.0, 60.0)
_LOOK_SECONDS = 0.1


def start_tracking(
    run_dir: Path,
    config: TrackingConfig,
    *,
    recipe_name: str,
    parent_run_id: str | None = None,
    children: Children | None = None,
    warn: Callable[[str], None] = logger.warning,
) -> Tracker:
    """Start to track a run in MLflow and in plug-in trackers, in the background.

    Returns at once, unless tracking is required.

    Args:
        run_dir: The run folder.
        config: Where to; with ``enabled: false`` the tracker does nothing.
        recipe_name: Name of the experiment when nothing else says it.
        parent_run_id: MLflow run of the search that this run is a trial of.
        children: Runs that are copied with this one, by the same thread.
        warn: Gets a line when the store stops or begins to answer; called from the background thread.

    Raises:
        TrackingError: ``required: true`` and no run could be made within 15 seconds.
    """
    plugins = PluginTrackers(run_dir, config.plugin_trackers, warn)
    syncer = _start_copying(run_dir, config, recipe_name, parent_run_id, children, warn) if config.to_mlflow else None
    sampler = SystemSampler(run_dir) if syncer is not None else None
    tracker = Tracker(syncer, warn, plugins, sampler)
    if syncer is not None and config.required:
        tracker.wait_until_connected(REQUIRED_WITHIN_SECONDS)
    # After the required server has answered: a run that doesn't begin has nothing to tell them.
    plugins.start()
    if sampler is not None:
        sampler.start()
    return tracker


def _start_copying(
    run_dir: Path,
    config: TrackingConfig,
    recipe_name: str,
    parent_run_id: str | None,
    children: Children | None,
    warn: Callable[[str], None],
) -> Syncer | None:
    """Return the run's syncer; None where the store's address is wrong and tracking isn't required."""
    try:
        state = read_state(run_dir) or build_first_state(config, recipe_name=recipe_name, parent_run_id=parent_run_id)
        uri = resolve_uri(config.uri or state.uri)
    except TrackingError as error:
        if config.required:
            raise
        warn(f"MLflow: {error}; training goes on without it")
        return None
    write_state(run_dir, state)
    return Syncer(run_dir, uri, state, children=children)


class _Progress(NamedTuple):
    """What the copying thread has done: steps, processor seconds, bytes sent, and whether it waits for a server."""

    steps: int
    cpu: float
    sent: int
    waiting: bool


class Tracker:
    """Copies a run folder to MLflow beside the training; it can't fail and hardly takes time.

    Args:
        syncer: What copies; None does nothing.
        warn: Gets a line when the store stops or begins to answer.
        plugins: Plug-in trackers of the same run.
        sampler: What samples processor and memory meanwhile.
    """

    def __init__(
        self,
        syncer: Syncer | None,
        warn: Callable[[str], None],
        plugins: PluginTrackers | None = None,
        sampler: SystemSampler | None = None,
    ) -> None:
        self._sampler = sampler
        self._plugins = plugins
        self._syncer = syncer
        self._warn = warn
        self._poked = threading.Event()
        self._closing = threading.Event()
        self._done = threading.Event()
        self._connected = threading.Event()
        self._failure: TrackingError | None = None
        self._steps = 0
        self._thread: threading.Thread | None = None
        if syncer is not None:
            syncer.tick = self._step
            # A daemon: a server that hangs must not keep the process from ending.
            self._thread = threading.Thread(target=self._work, args=(syncer,), name="imagetune-tracking", daemon=True)
            self._poked.set()
            self._thread.start()

    @property
    def run_id(self) -> str | None:
        """Id of the MLflow run, once there is one."""
        return self._syncer.state.run_id if self._syncer else None

    @property
    def sent(self) -> Mapping[str, str]:
        """Fingerprints of what is in MLflow already, by name; see `TrackingState.sent`."""
        return self._syncer.state.sent if self._syncer else {}

    @property
    def failure(self) -> TrackingError | None:
        """The error of the last attempt to synchronise; None where it succeeded."""
        return self._failure

    def poke(self) -> None:
        """Have the run folder synchronised soon, as after each epoch; returns at once."""
        self._poked.set()
        if self._plugins is not None:
            self._plugins.poke()

    def wait_for_run(self, timeout_seconds: float = REQUIRED_WITHIN_SECONDS) -> str | None:
        """Return the id of the MLflow run, which child runs need; None where it isn't there within this time."""
        try:
            self._await_connection(timeout_seconds)
        except TrackingError:
            return None
        return self.run_id

    def wait_until_connected(self, timeout_seconds: float) -> None:
        """Wait until the MLflow run exists, and stop tracking when it doesn't come.

        Raises:
            TrackingError: The first attempt failed, or takes longer than this.
        """
        try:
            self._await_connection(timeout_seconds)
        except TrackingError as error:
            self._closing.set()
            self._poked.set()
            raise build_required_error(error) from None

    def _await_connection(self, timeout_seconds: float) -> None:
        if self._syncer is None:
            return
        deadline = time.monotonic() + timeout_seconds
        while not self._connected.wait(_LOOK_SECONDS):
            if self._failure is not None:
                raise self._failure
            if time.monotonic() > deadline:
                what = f"there was no answer within {timeout_seconds:.0f} s"
                raise TrackingError(what, where=redact_uri(self._syncer.uri))

    def stop_sampling(self) -> None:
        """Take the last sample of processor and memory; a run whose files are recorded gets no more."""
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler = None

    def finish(self, timeout_seconds: float = PATIENCE_SECONDS) -> str | None:
        """Send the remaining records and stop; return what could not be sent.

        Args:
            timeout_seconds: How long to wait without any progress; as long as there is some, it waits on. Of a server
                only what is sent to it is progress.

        Returns:
            What was not sent and how to send it later; None when everything was.
        """
        # Before the last copy, which takes the last sample along.
        self.stop_sampling()
        plugins = self._plugins.finish(timeout_seconds) if self._plugins is not None else None
        left = [message for message in (self._finish_copying(timeout_seconds), plugins) if message]
        return "; ".join(left) or None

    def _finish_copying(self, timeout_seconds: float) -> str | None:
        if self._syncer is None or self._thread is None:
            return None
        self._closing.set()
        self._poked.set()
        self._wait_while_moving(self._thread, timeout_seconds)
        if self._done.is_set() and self._failure is None:
            return None
        why = self._failure or TrackingError("there was no answer", where=redact_uri(self._syncer.uri))
        folder = self._syncer.run_dir
        return f"MLflow: {self._describe_pending()} were not sent ({why}); to send them later: imagetune sync {folder}"

    def _describe_pending(self) -> str:
        try:
            return f"{self._syncer.pending()} records" if self._syncer else "no records"
        # What keeps the records from being counted may be what kept them from being sent.
        except (ImagetuneError, OSError, ValueError):
            return "records"

    def _wait_while_moving(self, thread: threading.Thread, patience_seconds: float) -> None:
        """Wait for the last copy, as long as it moves.

        A store on this machine is given time again with everything that came through. The waits for a server count
        together, so that one that answers slowly, or for ever, holds up the end for no longer than a dead one.
        """
        waited, last = 0.0, self._progress(thread)
        remote = self._syncer is not None and is_http(self._syncer.uri)
        while waited <= patience_seconds and not self._done.wait(_LOOK_SECONDS) and thread.is_alive():
            now = self._progress(thread)
            if not remote and now.steps != last.steps:
                waited = 0.0
            # Reading an endless answer takes processor time, too.
            elif now.cpu - last.cpu <= BUSY_CPU_SECONDS or now.waiting:
                waited = max(0.0, waited + _LOOK_SECONDS - (now.sent - last.sent) / BYTES_PER_SECOND)
            last = now

    def _progress(self, thread: threading.Thread) -> _Progress:
        traffic = get_traffic(thread)
        return _Progress(self._steps, measure_cpu_seconds(thread), traffic.sent, traffic.waiting)

    def _step(self) -> None:
        self._steps += 1
        if self._syncer is not None and self._syncer.ready:
            self._connected.set()

    def _work(self, syncer: Syncer) -> None:
        failures = 0
        try:
            # Held for the whole run: `imagetune sync` of a running run would send its records a second time.
            with run_lock(syncer.run_dir, wait_seconds=0.0):
                while True:
                    wait = None if not failures else _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS)) - 1]
                    self._poked.wait(wait)
                    # Cleared before the copy: what is poked while it runs causes another one.
                    self._poked.clear()
                    # Read before the copy, so that the last one begins after the run has written everything.
                    closing = self._closing.is_set()
                    failures = 0 if self._attempt(syncer) else failures + 1
                    if closing:
                        return
        except ImagetuneError as error:
            self._fail(error)
        finally:
            self._done.set()

    def _attempt(self, syncer: Syncer) -> bool:
        try:
            syncer.sync()
        # Tracking never stops a training: an error of the copy is reported, and tried again later.
        except (ImagetuneError, OSError, ValueError) as error:
            # The next attempt probes the server first, instead of waiting for a dead connection's retries.
            syncer.disconnect()
            self._fail(error)
            return False
        if self._failure is not None:
            self._failure = None
            self._warn(f"MLflow answers again at {syncer.state.uri}")
        return True

    def _fail(self, error: Exception) -> None:
        failure = error if isinstance(error, TrackingError) else TrackingError(str(error))
        # Once for each kind of failure: a server that stays down would fill the screen.
        if self._failure is None or self._failure.what != failure.what:
            self._warn(f"MLflow: {failure}; training goes on, the records wait in the run folder")
        self._failure = failure
