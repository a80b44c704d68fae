"""Tracking state of a run, ``RUN/tracking.json``: its place in MLflow, and which records are there already."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from filelock import FileLock, Timeout

from imagetune.core import run_files
from imagetune.core.documents import read_document, seal_document
from imagetune.core.files import convert_disk_errors, write_json
from imagetune.core.run_documents import TRACKING
from imagetune.errors import TrackingError

POLL_SECONDS = 0.1


@dataclass
class TrackingState:
    """What is known of a run's copy in MLflow; it is written after each record that arrives there.

    So a process that is killed between two records sends at most the last one again.

    Attributes:
        key: Unique name of this run folder, and a tag of its MLflow run: one that was created but not remembered is
            found again.
        uri: Address of the store without secrets.
        experiment: Name of the experiment.
        parent_run_id: MLflow run of the search that this trial belongs to.
        tags: The user's tags.
        log_model: Whether the model itself goes to MLflow.
        metrics: Metrics that no file of the run folder holds: the objective of a search's trial.
        note: Markdown that stands above the description made from the run folder.
        run_id: Id of the MLflow run, once there is one.
        experiment_id: Id of its experiment, likewise.
        line_times: When each line of metrics.jsonl was first seen, in milliseconds since 1970: a line that is sent
            twice has the same time, so that MLflow keeps one.
        lines_sent: How many lines of metrics.jsonl are in MLflow.
        sent: Fingerprints of what else is in MLflow, by name: parameters, tags, files, model, final metrics, state.
    """

    key: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    uri: str = ""
    experiment: str = ""
    parent_run_id: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    log_model: bool = True
    metrics: dict[str, float] = field(default_factory=dict)
    note: str = ""
    run_id: str | None = None
    experiment_id: str | None = None
    line_times: list[int] = field(default_factory=list)
    lines_sent: int = 0
    sent: dict[str, str] = field(default_factory=dict)

    def forget_run(self) -> None:
        """Reset to a run of which nothing is in MLflow; the times of its metrics stay."""
        self.run_id = None
        self.experiment_id = None
        self.lines_sent = 0
        self.sent = {}


def read_state(run_dir: Path) -> TrackingState | None:
    """Return the tracking state in ``RUN/tracking.json``; None without that file.

    Raises:
        TrackingError: The file is corrupted.
    """
    path = run_dir / run_files.TRACKING
    try:
        values = read_document(path, TRACKING, error=TrackingError)
    except TrackingError as error:
        hint = "delete it: the run is then found again in MLflow, or logged anew"
        raise TrackingError(f"is corrupted: {error.what}", where=str(path), hint=hint) from error
    # Keys of another version are left out, not an error: tracking must not fail over them.
    known = {item.name for item in fields(TrackingState)}
    return TrackingState(**{name: value for name, value in values.items() if name in known}) if values else None


def write_state(run_dir: Path, state: TrackingState) -> None:
    """Write the tracking state to ``RUN/tracking.json``, atomically."""
    write_json(run_dir / run_files.TRACKING, seal_document(asdict(state)))


@contextmanager
def hold_file_lock(
    path: Path, *, wait_seconds: float, busy: str, tick: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the lock file ``path``; the system lets it go when the process ends, however it ends.

    Args:
        path: The lock file; it is created and stays.
        wait_seconds: How long to wait for another process that holds it.
        busy: Message of the error when it still holds it after that time.
        tick: Called while waiting.

    Raises:
        TrackingError: Another process still holds it.
    """
    with convert_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    deadline = time.monotonic() + wait_seconds
    # Tried again and again rather than waited for, so that `tick` shows that this process isn't hanging.
    while not _try_lock(lock):
        if time.monotonic() > deadline:
            raise TrackingError(busy, where=str(path), hint="wait until it is done")
        tick()
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        # The file stays: another process may wait for it, and would then lock one that has no name any more.
        lock.release()


def _try_lock(lock: FileLock) -> bool:
    with convert_disk_errors(Path(lock.lock_file)):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
    return True
