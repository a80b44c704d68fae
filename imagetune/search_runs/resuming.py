"""Who may write a search's folder, and whether what is there can be gone on with."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from imagetune.data.holdout import open_holdout
from imagetune.data.splits import told_path, write_splits_csv
from imagetune.errors import CheckpointError
from imagetune.files import disk_errors, write_json
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.schema import Recipe
from imagetune.run_folder import RUNS, RunFolder, lock_document
from imagetune.runs import Data
from imagetune.search.records import STATE_NAME

LOCK_NAME = ".search.lock"


def check_resumable(run_dir: Path | None) -> Path:
    """Return the folder of the search to go on with.

    Raises:
        CheckpointError: None is named, or there is no search in it.
    """
    if run_dir is None:
        raise CheckpointError("--resume needs the run folder of a search", hint=_name_it())
    if not (run_dir / STATE_NAME).is_file():
        hint = "leave out --resume to start one there" if not run_dir.exists() else "name the folder of a search"
        raise CheckpointError("there is no search to go on with", where=str(run_dir), hint=hint)
    return run_dir


@contextmanager
def only_search(folder: Path) -> Iterator[None]:
    """Keep other searches out of a folder during the block; the system lets go when the process ends, however.

    Raises:
        CheckpointError: Another process searches there.
        ResourceError: The folder can't be written.
    """
    with disk_errors(folder):
        lock = FileLock(folder / LOCK_NAME)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            pid = RunFolder(folder).read_status().get("pid")
            who = "another process" if pid is None else f"process {pid}"
            hint = "wait for it to end, or stop it and go on with --resume"
            raise CheckpointError(f"{who} is searching here", where=str(folder), hint=hint) from None
    try:
        yield
    finally:
        lock.release()


def record_pictures(folder: RunFolder, recipe: Recipe, data: Data) -> None:
    """Write which pictures the search uses and how they are split, or check that they are still the same.

    Raises:
        CheckpointError: Pictures came, went, changed, or moved to another split since.
    """
    lock = folder.path / "lock.json"
    if folder.splits.exists() and lock.exists():
        _check_same(_recorded(folder, lock), _present(data), folder.splits)
    write_splits_csv(data.splits, folder.splits)
    write_json(lock, lock_document(recipe, weights={}, pictures=data.audit.hashes))


def _name_it() -> str:
    found = sorted(Path(RUNS).glob(f"*/{STATE_NAME}"), key=lambda path: path.stat().st_mtime)
    if not found:
        return "name it, as in: imagetune search RECIPE --run-dir runs/NAME --resume"
    return f"the latest is {found[-1].parent}: imagetune search RECIPE --run-dir {found[-1].parent} --resume"


@dataclass(frozen=True)
class _Picture:
    labelled: tuple[str, str]
    split: str
    sha256: str


def _recorded(folder: RunFolder, lock: Path) -> dict[str, _Picture]:
    """Return the pictures that the search began with, by path below their root."""
    try:
        hashes = json.loads(lock.read_text(encoding="utf-8"))["pictures"]
        source = Path(load_recipe(folder.recipe).recipe.data.source)
        with folder.splits.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        # A table's pictures are told relative to its folder.
        root = source if source.is_dir() else source.parent
        return {
            row["path"]: _Picture((row["label"], row["group"]), row["split"], hashes.get(str(root / row["path"]), ""))
            for row in rows
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"can't be read: {error!r}", where=str(lock), hint="search in another folder") from error


def _present(data: Data) -> dict[str, _Picture]:
    splits = data.splits
    return {
        told_path(record.path, splits.root): _Picture(
            (record.label, record.group or ""), record.split or "", data.audit.hashes.get(record.path, "")
        )
        for record in (*splits.train, *splits.val, *open_holdout(splits))
    }


def _check_same(then: Mapping[str, _Picture], now: Mapping[str, _Picture], path: Path) -> None:
    both = sorted(then.keys() & now.keys())
    kinds = {
        "gone": sorted(then.keys() - now.keys()),
        "new": sorted(now.keys() - then.keys()),
        "with another content": [name for name in both if then[name].sha256 != now[name].sha256],
        "with another label or group": [name for name in both if then[name].labelled != now[name].labelled],
        "in another split": [name for name in both if then[name].split != now[name].split],
    }
    told = [f"{len(names)} {kind} (such as {names[0]})" for kind, names in kinds.items() if names]
    if told:
        hint = "put the pictures back, or search in another folder with --run-dir, with search.warm_start for this one"
        raise CheckpointError(f"the pictures changed since: {', '.join(told)}", where=str(path), hint=hint)
