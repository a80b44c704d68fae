"""Synchronisation of a run folder with MLflow: sends what isn't there yet, and remembers what is."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from imagetune.core import run_files
from imagetune.core.secrets import redact_uri
from imagetune.errors import TrackingError
from imagetune.recipe.sections.tracking import TrackingConfig
from imagetune.tracking.address import is_http, resolve_experiment, resolve_uri
from imagetune.tracking.content import read_metric_lines, read_recipe
from imagetune.tracking.one_copy import Copy
from imagetune.tracking.patience import call_patiently
from imagetune.tracking.runs import ensure_run
from imagetune.tracking.state import TrackingState, hold_file_lock, read_state, write_state
from imagetune.tracking.steps import STEPS, count_pending
from imagetune.tracking.store import open_client, store_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BUSY_SECONDS = 30.0


@dataclass(frozen=True)
class SyncResult:
    """Result of one synchronisation of a run folder with MLflow.

    Attributes:
        run_id: The MLflow run.
        experiment: Its experiment.
        uri: Address of the store without secrets.
        page: Address of the run's page when the store is a server.
        sent: How many records were sent; 0 when everything was there.
    """

    run_id: str
    experiment: str
    uri: str
    page: str | None
    sent: int

    def message(self) -> str:
        """Return the run, its experiment and the number of records sent, in one line for the screen."""
        what = f"sent {self.sent} records" if self.sent else "everything was there already"
        return f"MLflow run {self.run_id} in experiment {self.experiment} at {self.page or self.uri}: {what}"


def sync_run(
    run_dir: Path, *, uri: str | None = None, experiment: str | None = None, children: Children | None = None
) -> SyncResult:
    """Synchronise a run folder with MLflow; repeating it changes nothing.

    Args:
        run_dir: The run folder, finished or not.
        uri: Another store than the recipe's.
        experiment: Another experiment than the recipe's.
        children: Runs that are copied with it.

    Raises:
        TrackingError: The store can't be reached, or refuses; what was sent is remembered.
    """
    if not (run_dir / run_files.RECIPE).exists():
        raise TrackingError("is not a run folder: it has no recipe.yaml", where=str(run_dir))
    # Before the state is read: another process may be about to write what it has sent.
    with run_lock(run_dir, wait_seconds=_BUSY_SECONDS):
        state = plan_state(run_dir, uri=uri, experiment=experiment)
        syncer = Syncer(run_dir, resolve_uri(uri or state.uri), state, children=children)
        sent = _sync_patiently(syncer)
    return syncer.result(sent)


def _sync_patiently(syncer: Syncer) -> int:
    """Return what `Syncer.sync` returns; a database that has stopped answering is given up."""
    steps: list[None] = []
    syncer.tick = lambda: steps.append(None)
    return call_patiently(syncer.sync, uri=syncer.uri, count_steps=lambda: len(steps))


def is_tracked(run_dir: Path) -> bool:
    """Return whether a run folder has been copied to MLflow before, in whole or in part."""
    return (run_dir / run_files.TRACKING).is_file()


def plan_state(run_dir: Path, *, uri: str | None = None, experiment: str | None = None) -> TrackingState:
    """Return a run's tracking state: from tracking.json, else from its recipe.

    Args:
        run_dir: The run folder.
        uri: Address of another store; then nothing of the run counts as sent.
        experiment: Name of another experiment; likewise.

    Raises:
        TrackingError: tracking.json is corrupted, or the store's address lacks its password.
    """
    state = read_state(run_dir)
    if state is None:
        recipe = read_recipe(run_dir)
        config = TrackingConfig.model_validate(recipe.get("tracking") or {})
        config = config.model_copy(update={"uri": uri or config.uri, "experiment": experiment or config.experiment})
        return build_first_state(config, recipe_name=str(recipe.get("name") or run_dir.name))
    other_uri = redact_uri(resolve_uri(uri)) if uri else state.uri
    if (other_uri, experiment or state.experiment) != (state.uri, state.experiment):
        state.uri, state.experiment = other_uri, experiment or state.experiment
        # What was sent is in the other store; here nothing is.
        state.forget_run()
    return state


def build_first_state(config: TrackingConfig, *, recipe_name: str, parent_run_id: str | None = None) -> TrackingState:
    """Return the tracking state of a run of which nothing is in MLflow yet."""
    return TrackingState(
        uri=redact_uri(resolve_uri(config.uri)),
        experiment=resolve_experiment(config.experiment, recipe_name),
        parent_run_id=parent_run_id,
        tags=dict(config.tags),
        log_model=config.log_model,
    )


def run_lock(run_dir: Path, *, wait_seconds: float) -> AbstractContextManager[None]:
    """Return a lock that keeps two processes from copying one run folder at once.

    Args:
        run_dir: The run folder.
        wait_seconds: How long to wait for another process; entering then raises a TrackingError.
    """
    busy = "another process is copying this run to MLflow"
    return hold_file_lock(run_dir / run_files.TRACKING_LOCK, wait_seconds=wait_seconds, busy=busy)


class Children(Protocol):
    """Child runs that are synchronised together with a parent: the trials of a search, the folds of a run."""

    def sync(self, parent: Syncer) -> int:
        """Send what isn't in MLflow yet of each, and return how many records those were.

        Args:
            parent: Has a run in MLflow; its state may be added to, its connection be used.

        Raises:
            TrackingError: The store can't be reached, or refuses.
        """

    def pending(self) -> int:
        """Return how many records wait in their folders; nothing is asked of the store."""


class Syncer:
    """Copies one run folder to one store; `sync` may be called again and again, and after any failure.

    Args:
        run_dir: The run folder.
        uri: Complete address of the store, secrets included; it is never written anywhere.
        state: What is in MLflow already; written to tracking.json as it changes.
        tick: Called after everything that came through.
        children: Runs that are copied with this one, before its own end is recorded.
        client: A connection to the store that is open already.

    Attributes:
        ready: Whether the MLflow run is known to exist.
    """

    def __init__(
        self,
        run_dir: Path,
        uri: str,
        state: TrackingState,
        tick: Callable[[], None] = lambda: None,
        *,
        children: Children | None = None,
        client: MlflowClient | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.uri = uri
        self.state = state
        self.tick = tick
        self.children = children
        self.ready = False
        self._client = client

    def connect(self) -> MlflowClient:
        """Return the client of the store, which is opened at the first call.

        Raises:
            TrackingError: The store can't be reached.
        """
        if self._client is None:
            self._client = open_client(self.uri, tick=self.tick)
            self.tick()
        return self._client

    def disconnect(self) -> None:
        """Forget the connection, so that the next call first checks that the server answers."""
        self._client = None

    def sync(self) -> int:
        """Send every record of the run and its children that isn't in MLflow yet.

        Returns:
            How many records were sent.

        Raises:
            TrackingError: The store can't be reached, or refuses.
        """
        self._note_lines()
        copy = Copy(self.run_dir, self.uri, self.state, self.connect(), self.tick)
        with store_errors(self.uri):
            ensure_run(copy.client, self.run_dir, self.uri, self.state)
            self.ready = True
            copy.save()
            # The children first: the last step records the run's end, and what MLflow calls finished should be there
            # completely.
            sent = self.children.sync(self) if self.children is not None else 0
            return sent + sum(step(copy) for step in STEPS)

    def pending(self) -> int:
        """Return how many records wait in the run folder and its children's; the store isn't asked."""
        of_children = self.children.pending() if self.children is not None else 0
        return count_pending(self.run_dir, self.state) + of_children

    def result(self, sent: int) -> SyncResult:
        """Return the run's place in MLflow together with the number of records that `sync` sent."""
        state, page = self.state, None
        if is_http(self.uri):
            run = f"{state.uri.rstrip('/')}/#/experiments/{state.experiment_id}/runs/{state.run_id}"
            page = f"{run}?workflowType=machine_learning"
        return SyncResult(state.run_id or "", state.experiment, state.uri, page, sent)

    def _note_lines(self) -> None:
        """Note when each new line of metrics.jsonl was first seen, before any of them is sent."""
        missing = len(read_metric_lines(self.run_dir)) - len(self.state.line_times)
        if missing > 0:
            # A clock that is set back must not turn the order of epochs around.
            now = max([int(time.time() * 1000), *self.state.line_times[-1:]])
            self.state.line_times += [now] * missing
        write_state(self.run_dir, self.state)
