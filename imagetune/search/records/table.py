"""What a search leaves on disk for people: ``search.json`` says what is searched, ``search.csv`` has a line a trial."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagetune.core import run_files
from imagetune.core.files import disk_errors, write_csv, write_json
from imagetune.errors import CheckpointError
from imagetune.recipe.document import NodePath
from imagetune.recipe.problems import dotted
from imagetune.recipe.search import SearchConfig, Value
from imagetune.search.proposers.space import Spaces
from imagetune.search.records.journal import Journal
from imagetune.search.records.trial import Trial, TrialResult

STATE_NAME = run_files.SEARCH
_BEFORE = (
    "trial",
    "phase",
    "status",
    "objective",
    "seconds",
    "epochs",
    "best_epoch",
    "repeats",
    "seed",
    "began",
    "place",
)
_AFTER = ("error",)


@dataclass(frozen=True)
class Table:
    """The file of ended trials.

    Attributes:
        path: ``search.csv``.
        paths: What is searched: one column each, headed by the dotted path.
    """

    path: Path
    paths: tuple[NodePath, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The header."""
        return (*_BEFORE, *(dotted(path) for path in self.paths), *_AFTER)


def describe_search(config: SearchConfig, spaces: Spaces, *, seed: int) -> dict[str, Any]:
    """Return what must not change between the sessions of a search; the number of trials may, and where they run."""
    kept = {"algorithm", "objective", "folds", "early_stop"}
    if config.algorithm == "hyperband":
        kept |= {"max_epochs", "factor"}
    description = {"seed": seed, **config.model_dump(mode="json", include=kept)}
    return {**description, "spaces": {dotted(path): space.model_dump(mode="json") for path, space in spaces.items()}}


def open_records(folder: Path, description: Mapping[str, Any], paths: Sequence[NodePath]) -> tuple[Journal, Table]:
    """Start the files of a search, or check that those in ``folder`` belong to this search.

    Raises:
        CheckpointError: The search that is there is another one, or its files can't be read.
    """
    state, journal = folder / run_files.SEARCH, Journal(folder / run_files.JOURNAL)
    if state.exists():
        _check_unchanged(state, json.loads(json.dumps(description)))
    else:
        write_json(state, description)
    return journal, Table(folder / run_files.SEARCH_TABLE, tuple(paths))


def write_table(table: Table, results: Sequence[TrialResult]) -> None:
    """Write the table anew."""
    write_csv(table.path, table.columns, (_row(table, result) for result in results))


def append_result(table: Table, result: TrialResult) -> None:
    """Add an ended trial to the table and flush it to the disk."""
    with disk_errors(table.path), table.path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(_row(table, result))
        file.flush()
        os.fsync(file.fileno())


def same_point(first: Trial, second: Trial) -> bool:
    """Tell whether two trials are the same training; 1, 1.0 and true are different values."""
    return _identity(first) == _identity(second)


def values_key(values: Mapping[NodePath, Value]) -> str:
    """Return values as text that is equal for equal settings."""
    return json.dumps(sorted((dotted(path), json.dumps(value, sort_keys=True)) for path, value in values.items()))


def cell_of(value: Value) -> str:
    """Return a value as a cell: text as it is, unless it would read back as something else."""
    if isinstance(value, str) and value_of(value) == value and "\n" not in value and "\r" not in value:
        return value
    return json.dumps(value)


def value_of(cell: str) -> Value:
    """Return the value that ``cell_of`` wrote."""
    try:
        value: Value = json.loads(cell)
    except ValueError:
        return cell
    return value


def _identity(trial: Trial) -> tuple[object, ...]:
    return trial.phase, trial.seed, trial.epochs, values_key(trial.values)


def _row(table: Table, result: TrialResult) -> tuple[object, ...]:
    trial = result.trial
    values = [cell_of(trial.values[path]) if path in trial.values else "" for path in table.paths]
    before = (
        trial.trial_id,
        trial.phase,
        result.status,
        "" if result.objective is None else repr(result.objective),
        f"{result.seconds:.3f}",
        result.epochs,
        _blank(result.best_epoch),
        _blank(trial.repeats),
        _blank(trial.seed),
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(result.began)),
        result.place,
    )
    return (*before, *values, result.error)


def _blank(value: object) -> object:
    return "" if value is None else value


def _check_unchanged(path: Path, now: Mapping[str, Any]) -> None:
    try:
        then = json.loads(path.read_text(encoding="utf-8"))
        before, after = ({**about, **about["spaces"]} for about in (then, now))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"can't be read: {error}", where=str(path), hint="search again in another folder"
        ) from error
    names = [*before, *(name for name in after if name not in before)]
    changed = [name for name in names if name != "spaces" and before.get(name) != after.get(name)]
    if changed:
        name = changed[0]
        others = f" (and {', '.join(changed[1:])})" if len(changed) > 1 else ""
        what = f"the search changed since: {name} was {before.get(name)}, now it is {after.get(name)}{others}"
        hint = "undo the change, or search in another folder with --run-dir"
        raise CheckpointError(what, where=str(path), hint=hint)
