"""The results file: a line of JSON a run, only ever appended to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import benchmarks
import imagetune
from imagetune.core.files import append_json_line, read_json_lines


@dataclass(frozen=True, order=True)
class Task:
    """One run.

    Attributes:
        set_name: Name of the image set.
        split: Seed of its split.
        row: Name of the row.
        repeat: Number of the training on this split, from 1: rows that aren't deterministic are trained again.
    """

    set_name: str
    split: int
    row: str
    repeat: int = 1


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run; metrics are those of the test images.

    Attributes:
        set_name: Name of the image set.
        split: Seed of its split.
        row: Name of the row.
        repeat: Number of the training on this split.
        accuracy: None, like all metrics, where the run failed.
        balanced_accuracy: Mean recall of the classes.
        log_loss: In nats; None for a row that has no probabilities.
        seconds: Of the clock, from the start of the process to its end.
        cpu_seconds: Of the processor, the same stretch; other work on the machine disturbs it less.
        baselines: Test accuracy of what a run's own report compares it with, by name.
        error: Why it failed, empty where it didn't.
        code: Digest of the source files that the row runs.
        versions: Of Keras and its backend.
        machine: Where it ran.
        when: Date.
    """

    set_name: str
    split: int
    row: str
    repeat: int = 1
    accuracy: float | None = None
    balanced_accuracy: float | None = None
    log_loss: float | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    baselines: dict[str, float] = field(default_factory=dict)
    error: str = ""
    code: str = ""
    versions: str = ""
    machine: str = ""
    when: str = ""

    @property
    def task(self) -> Task:
        """Which run this is."""
        return Task(self.set_name, self.split, self.row, self.repeat)


def read_results(*paths: Path) -> dict[Task, Outcome]:
    """Return the last outcome of each run in the files that exist."""
    known = {item.name for item in fields(Outcome)}
    lines = [line for path in paths if path.exists() for line in read_json_lines(path)]
    outcomes = (Outcome(**{key: line[key] for key in line if key in known}) for line in lines)
    return {outcome.task: outcome for outcome in outcomes}


def append_result(path: Path, outcome: Outcome) -> None:
    """Write a line."""
    append_json_line(path, asdict(outcome))


def pending(wanted: Sequence[Task], done: dict[Task, Outcome], *, retry_failed: bool, code: str = "") -> list[Task]:
    """Return the runs that are still to be made, in the order given.

    Args:
        wanted: All runs.
        done: The outcomes there are.
        retry_failed: Whether failed runs count as not made.
        code: Where not empty, runs of another state of the code count as not made, too.
    """
    return [
        task
        for task in wanted
        if task not in done or (retry_failed and done[task].error) or (code and done[task].code != code)
    ]


def imagetune_digest() -> str:
    """Return eight digits that change with any source file of imagetune."""
    return _digest(Path(imagetune.__file__).parent)


def peers_digest() -> str:
    """Return eight digits that change with any source file of the peers."""
    root = Path(benchmarks.__path__[0])
    return _digest(root / "peers", root / "quality" / "peers")


def _digest(*folders: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(file for folder in folders for file in folder.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]
