"""The results file: a line of JSON a run, only ever appended to, one writer at a time."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import imagetune
from imagetune.core.files import append_json_line, read_json_lines


@dataclass(frozen=True, order=True)
class Task:
    """One run. ``order`` sorts by seed first, so that the table is whole as early as possible."""

    seed: int
    set_name: str
    row: str


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run; metrics are those of the test images, but for ``val_accuracy``.

    Attributes:
        set_name: Name of the image set.
        row: Name of the row.
        seed: Of the training, the drawing of the images and their splits.
        accuracy: None, like all metrics, where the run failed.
        balanced_accuracy: Mean recall of the classes.
        log_loss: In nats.
        val_accuracy: Of the validation images that chose the epoch.
        seconds: Of the clock, from building the model to the last prediction.
        cpu_seconds: Of the processor, the same stretch.
        error: Why it failed, empty where it didn't.
        code: Digest of imagetune's source files.
        versions: Of Keras and its backend.
        machine: Where it ran.
        when: Date.
    """

    set_name: str
    row: str
    seed: int
    accuracy: float | None = None
    balanced_accuracy: float | None = None
    log_loss: float | None = None
    val_accuracy: float | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    error: str = ""
    code: str = ""
    versions: str = ""
    machine: str = ""
    when: str = ""

    @property
    def task(self) -> Task:
        """Which run this is."""
        return Task(self.seed, self.set_name, self.row)


def read_results(path: Path) -> dict[Task, Outcome]:
    """Return the last outcome of each run."""
    if not path.exists():
        return {}
    known = {field.name for field in fields(Outcome)}
    lines = (Outcome(**{key: line[key] for key in line if key in known}) for line in read_json_lines(path))
    return {outcome.task: outcome for outcome in lines}


def append_result(path: Path, outcome: Outcome) -> None:
    """Write a line."""
    append_json_line(path, asdict(outcome))


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Hold the results file for this process.

    Raises:
        SystemExit: Another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"{path}: another run of this script is writing it") from None
        yield


def code_digest() -> str:
    """Return eight digits that change with any source file of imagetune."""
    root = Path(imagetune.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def pending(wanted: Sequence[Task], done: dict[Task, Outcome], *, retry_failed: bool) -> list[Task]:
    """Return the runs that are still to be made, in the order given."""
    return [task for task in wanted if task not in done or (retry_failed and done[task].error)]
