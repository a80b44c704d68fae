"""Description and table of a search: ``search.json`` has its settings and spaces, ``search.csv`` a line per trial."""

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
from imagetune.core.csv_cells import quote_row
from imagetune.core.csv_tables import write_csv
from imagetune.core.documents import CURRENT_FORMAT, FORMAT_VERSION, SURPRISES, check_format_version
from imagetune.core.files import convert_disk_errors, read_json, write_json
from imagetune.errors import CheckpointError
from imagetune.recipe.document import NodePath
from imagetune.recipe.problems import format_path
from imagetune.recipe.sections.search import SearchConfig, Space, Value
from imagetune.search.records.journal import Journal
from imagetune.search.records.trial import Trial, TrialResult

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
    """The table of ended trials.

    Attributes:
        path: Path of ``search.csv``.
        paths: Recipe paths of the search spaces: one column each, headed by the dotted path.
    """

    path: Path
    paths: tuple[NodePath, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return (*_BEFORE, *(format_path(path) for path in self.paths), *_AFTER)


def describe_search(config: SearchConfig, spaces: Mapping[NodePath, Space], *, seed: int) -> dict[str, Any]:
    """Return the content of search.json: everything that must not change between the sessions of a search.

    The number of trials may change, and so may where they run.
    """
    kept = {"algorithm", "objective", "folds", "early_stop"}
    # The rungs follow from these; for other algorithms they mean nothing, and may change.
    if config.algorithm == "hyperband":
        kept |= {"max_epochs", "factor"}
    description = {FORMAT_VERSION: CURRENT_FORMAT, "seed": seed, **config.model_dump(mode="json", include=kept)}
    return {
        **description,
        "spaces": {format_path(path): space.model_dump(mode="json") for path, space in spaces.items()},
    }


def open_records(folder: Path, description: Mapping[str, Any], paths: Sequence[NodePath]) -> tuple[Journal, Table]:
    """Return journal and table of a search, after writing search.json or checking that it describes this search.

    Args:
        folder: Run folder of the search.
        description: From `describe_search`.
        paths: Recipe paths of the search spaces.

    Raises:
        CheckpointError: The folder has another search, or search.json can't be read.
    """
    state, journal = folder / run_files.SEARCH, Journal(folder / run_files.JOURNAL)
    if state.exists():
        # As it would read back: JSON turns tuples into lists.
        _check_unchanged(state, json.loads(json.dumps(description)))
    else:
        write_json(state, description)
    return journal, Table(folder / run_files.SEARCH_TABLE, tuple(paths))


def write_table(table: Table, results: Sequence[TrialResult]) -> None:
    """Write the table with these results, replacing what was there."""
    write_csv(table.path, table.columns, (_row(table, result) for result in results))


def append_result(table: Table, result: TrialResult) -> None:
    """Append an ended trial to the table, and flush it to the disk."""
    with convert_disk_errors(table.path), table.path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(quote_row(table.columns, _row(table, result)))
        file.flush()
        os.fsync(file.fileno())


def is_same_training(first: Trial, second: Trial) -> bool:
    """Return whether two trials are the same training: values, seed, epochs and phase; 1, 1.0 and true differ."""
    return _identity(first) == _identity(second)


def build_values_key(values: Mapping[NodePath, Value]) -> str:
    """Return a key for a setting, equal for equal values whatever their order."""
    return json.dumps(sorted((format_path(path), json.dumps(value, sort_keys=True)) for path, value in values.items()))


def format_cell(value: Value) -> str:
    """Return a value as a CSV cell: JSON, but plain text as it is where it reads back as the same text."""
    if isinstance(value, str) and parse_cell(value) == value and "\n" not in value and "\r" not in value:
        return value
    return json.dumps(value)


def parse_cell(cell: str) -> Value:
    """Return the value in a CSV cell that ``cell_of`` wrote."""
    try:
        value: Value = json.loads(cell)
    except ValueError:
        return cell
    return value


def _identity(trial: Trial) -> tuple[object, ...]:
    return trial.phase, trial.seed, trial.epochs, build_values_key(trial.values)


def _row(table: Table, result: TrialResult) -> tuple[object, ...]:
    trial = result.trial
    values = [format_cell(trial.values[path]) if path in trial.values else "" for path in table.paths]
    before = (
        trial.trial_id,
        trial.phase,
        result.status,
        # All digits, the same number as in the journal.
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
        then = read_json(path)
        check_format_version(then, path, error=CheckpointError)
        # Each space beside the other settings, so that the error names the one that changed.
        before, after = ({**about, **about["spaces"]} for about in (then, now))
    except (OSError, *SURPRISES) as error:
        raise CheckpointError(
            f"can't be read: {error}", where=str(path), hint="search again in another folder"
        ) from error
    names = [*before, *(name for name in after if name not in before)]
    changed = [name for name in names if name not in {"spaces", FORMAT_VERSION} and before.get(name) != after.get(name)]
    if changed:
        name = changed[0]
        others = f" (and {', '.join(changed[1:])})" if len(changed) > 1 else ""
        what = f"the search changed since: {name} was {before.get(name)}, now it is {after.get(name)}{others}"
        hint = "undo the change, or search in another folder with --run-dir"
        raise CheckpointError(what, where=str(path), hint=hint)
