"""What a search leaves on disk: ``search.json`` says what is searched, ``search.csv`` has a line a finished trial."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from imagetune.errors import CheckpointError
from imagetune.files import disk_errors, write_json
from imagetune.recipe.document import NodePath
from imagetune.recipe.problems import dotted
from imagetune.recipe.search import Scalar, SearchConfig
from imagetune.search.space import Spaces

STATE_NAME = "search.json"
TABLE_NAME = "search.csv"
_BEFORE = ("trial", "status", "objective", "seconds", "epochs")
_AFTER = ("error",)

Status = Literal["completed", "repeated", "failed"]


@dataclass(frozen=True)
class Trial:
    """One point of the search space.

    Attributes:
        trial_id: ``001``, ``002``, ... in the order of the search.
        values: The value of each space, by recipe path.
        epochs: Epochs in all that hyperband grants this trial; None leaves them to the recipe.
        continues: Hyperband: the shorter trial with the same values that this one is worth more than.
    """

    trial_id: str
    values: Mapping[NodePath, Scalar]
    epochs: int | None = None
    continues: str | None = None

    def same_point(self, other: Trial) -> bool:
        """Whether both try the same; 1, 1.0 and true are different values."""
        cells = [[cell_of(value) for value in trial.values.values()] for trial in (self, other)]
        return cells[0] == cells[1] and self.epochs == other.epochs


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        trial: What was tried.
        status: ``repeated`` is a point proposed again, which takes over the objective known already.
        objective: The figure reached, finite; None when failed.
        seconds: Wall time of the trial.
        error: Why it failed, one line.
    """

    trial: Trial
    status: Status
    objective: float | None
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Table:
    """The file of finished trials.

    Attributes:
        path: ``search.csv``.
        spaces: One column each, headed by the dotted path.
    """

    path: Path
    spaces: Spaces

    @property
    def columns(self) -> tuple[str, ...]:
        """The header."""
        return (*_BEFORE, *(dotted(path) for path in self.spaces), *_AFTER)


def describe_search(config: SearchConfig, spaces: Spaces, *, seed: int) -> dict[str, Any]:
    """Return what must not change between the sessions of a search; the number of trials may."""
    description: dict[str, Any] = {"algorithm": config.algorithm, "objective": config.objective, "seed": seed}
    if config.algorithm == "hyperband":
        description |= {"max_epochs": config.max_epochs, "factor": config.factor}
    return description | {dotted(path): space.model_dump(mode="json") for path, space in spaces.items()}


def open_table(folder: Path, description: Mapping[str, Any], spaces: Spaces, *, resume: bool) -> Table:
    """Start the files of a search, or check that those in ``folder`` belong to this search.

    Raises:
        CheckpointError: A search is there and ``resume`` is false, or its spaces or settings differ.
    """
    state, table = folder / STATE_NAME, Table(folder / TABLE_NAME, spaces)
    if state.exists():
        if not resume:
            hint = "go on with --resume, or choose another folder with --run-dir"
            raise CheckpointError("a search is there already", where=str(folder), hint=hint)
        _check_unchanged(state, json.loads(json.dumps(description)))
    else:
        write_json(state, description)
    if not table.path.exists():
        _append(table.path, table.columns)
    return table


def append_result(table: Table, result: TrialResult) -> None:
    """Add a finished trial to the table and flush it to the disk."""
    trial = result.trial
    values = [cell_of(trial.values[path]) for path in table.spaces]
    objective = "" if result.objective is None else repr(result.objective)
    before = (trial.trial_id, result.status, objective, f"{result.seconds:.3f}", trial.epochs or "")
    _append(table.path, (*before, *values, result.error))


def read_results(table: Table) -> list[TrialResult]:
    """Return the finished trials in order; a last line cut short by a crash is removed from the file.

    Raises:
        CheckpointError: A line can't be read.
    """
    data = table.path.read_bytes()
    complete = data[: data.rfind(b"\n") + 1]
    if len(complete) < len(data):
        with disk_errors(table.path):
            os.truncate(table.path, len(complete))
    try:
        rows = list(csv.reader(io.StringIO(complete.decode("utf-8")), strict=True))
        if tuple(rows[0]) != table.columns:
            raise ValueError(f"the columns are {rows[0]}, expected {list(table.columns)}")
        return [_read_row(table, row) for row in rows[1:]]
    except (ValueError, IndexError, csv.Error) as error:
        hint = "repair it, or search again in another folder"
        raise CheckpointError(f"can't be read: {error}", where=str(table.path), hint=hint) from error


def cell_of(value: Scalar) -> str:
    """Return a value as a cell: text as it is, unless it would read back as something else."""
    if isinstance(value, str) and value_of(value) == value and "\n" not in value and "\r" not in value:
        return value
    return json.dumps(value)


def value_of(cell: str) -> Scalar:
    """Return the value that ``cell_of`` wrote."""
    try:
        value = json.loads(cell)
    except ValueError:
        return cell
    return value if value is None or isinstance(value, (str, bool, int, float)) else cell


def _read_row(table: Table, row: list[str]) -> TrialResult:
    cells = dict(zip(table.columns, row, strict=True))
    status = next((name for name in get_args(Status) if name == cells["status"]), None)
    if status is None:
        raise ValueError(f"trial {cells['trial']} has the status {cells['status']!r}")
    values = {path: value_of(cells[dotted(path)]) for path in table.spaces}
    epochs = int(cells["epochs"]) if cells["epochs"] else None
    objective = float(cells["objective"]) if cells["objective"] else None
    trial = Trial(cells["trial"], values, epochs)
    return TrialResult(trial, status, objective, float(cells["seconds"]), cells["error"])


def _check_unchanged(path: Path, now: Mapping[str, Any]) -> None:
    try:
        then = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        hint = "search again in another folder"
        raise CheckpointError(f"can't be read: {error}", where=str(path), hint=hint) from error
    names = [*then, *(name for name in now if name not in then)]
    changed = [name for name in names if then.get(name) != now.get(name)]
    if changed:
        name = changed[0]
        others = f" (and {', '.join(changed[1:])})" if len(changed) > 1 else ""
        what = f"the search changed since: {name} was {then.get(name)}, now it is {now.get(name)}{others}"
        hint = "undo the change, or search in another folder with --run-dir"
        raise CheckpointError(what, where=str(path), hint=hint)


def _append(path: Path, row: tuple[object, ...]) -> None:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)
            file.flush()
            os.fsync(file.fileno())
