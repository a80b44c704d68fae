"""Resuming a search: the lock on its folder, and checks that recipe, journal and images are still the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from imagetune.core import run_files
from imagetune.core.documents import read_document
from imagetune.core.files import convert_disk_errors, write_json
from imagetune.core.path_names import format_relative_path
from imagetune.core.run_documents import LOCK
from imagetune.data.splits.holdout import open_holdout
from imagetune.data.splits.splits import read_split_rows, write_splits_csv
from imagetune.errors import CheckpointError, DataError, ModelFileError
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.printing import ABSENT, compare_recipes
from imagetune.recipe.schema import Recipe
from imagetune.recipe.used_plugins import find_used_plugins
from imagetune.run_folder.folder import RunFolder
from imagetune.run_folder.lock import build_lock_document
from imagetune.runs.prepare import Data
from imagetune.search.records.journal import Event, Proposed

LOCK_NAME = ".search.lock"
_LOST_IMAGES = "it records the images of the search: put it back, or start a new search in another folder"
# These don't change what a trial learns; the images and their splits are compared by their content.
_FREE = (
    *("name", "search", "tracking", "card", "evaluate", "train.jit_compile"),
    *("data.source", "data.split", "data.columns", "data.audit", "data.on_bad_image", "data.max_pixels"),
    *("data.workers", "data.cache", "data.cache_gib"),
)


@contextmanager
def only_search(folder: Path) -> Iterator[None]:
    """Lock a folder against other searches during the block; the system unlocks it when the process ends, however.

    Raises:
        CheckpointError: Another process searches there.
        ResourceError: The folder can't be written.
    """
    with convert_disk_errors(folder):
        lock = FileLock(folder / LOCK_NAME)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            # From status.json: the lock's own file says nothing of its owner.
            pid = RunFolder(folder).read_status().get("pid")
            who = "another process" if pid is None else f"process {pid}"
            hint = "wait for it to end, or stop it and continue with --resume"
            raise CheckpointError(f"{who} is searching here", where=str(folder), hint=hint) from None
    try:
        yield
    finally:
        lock.release()


def may_change(key: str) -> bool:
    """Return whether a recipe key, such as ``data.workers``, may change without making it another training."""
    return any(key == free or key.startswith((f"{free}.", f"{free}[")) for free in _FREE)


def check_same_training(folder: RunFolder, recipe: Recipe) -> None:
    """Check that further trials are trained as the earlier ones: nothing outside the spaces has changed.

    Args:
        folder: Run folder of the search.
        recipe: The recipe as it is now, spaces at their defaults.

    Raises:
        CheckpointError: A value that is the same for all trials has changed.
        RecipeError: The recipe of the earlier sessions can't be read.
    """
    differences = compare_recipes(load_recipe(folder.recipe).recipe, recipe)
    changed = [(key, then, now) for key, then, now in differences if not may_change(key)]
    if changed:
        key, then, now = changed[0]
        others = f" (and {', '.join(each[0] for each in changed[1:])})" if len(changed) > 1 else ""
        what = f"the recipe changed since: {key} was {_format_value(then)}, now it is {_format_value(now)}{others}"
        hint = "undo the change, or search in another folder with --run-dir"
        raise CheckpointError(what, where=str(folder.recipe), hint=hint)


def check_journal(folder: RunFolder, past: Sequence[Event]) -> None:
    """Check that the journal has every trial that ended; one that it lost would be run again, over its own files.

    Args:
        folder: Run folder of the search.
        past: Events of the journal.

    Raises:
        CheckpointError: A trial's folder has ended, and the journal says nothing of it.
    """
    known = {run_files.trial_folder_name(event.trial.trial_id) for event in past if isinstance(event, Proposed)}
    places = sorted((folder.path / run_files.TRIALS).glob(f"{run_files.trial_folder_name('*')}/"))
    # A trial that only ran has lost nothing by being run again; one that ended has.
    lost = [place.name for place in places if place.name not in known and _has_ended(place)]
    if lost:
        what = f"says nothing of {', '.join(lost)} below {folder.path / run_files.TRIALS}, which ended"
        hint = "put the whole file back, or search in another folder with --run-dir"
        raise CheckpointError(what, where=str(folder.path / run_files.JOURNAL), hint=hint)


def record_images(folder: RunFolder, recipe: Recipe, data: Data, *, begun: bool) -> None:
    """Write the images of a search and their splits (splits.csv, lock.json), or check that they are still the same.

    Args:
        folder: Run folder of the search.
        recipe: The search's recipe, spaces at their defaults.
        data: The images of the search.
        begun: Whether there are trials of these images already.

    Raises:
        CheckpointError: Images came, went, changed, or moved to another split since, or the record of them
            can't be read.
    """
    lock = folder.path / run_files.LOCK
    # A search that was killed before its first trial, but after this record, is held to it as well.
    if begun or (folder.splits.exists() and lock.exists()):
        _check_same(read_recorded_images(folder), list_present_images(data), folder.splits)
    # Written again though they are the same: they may lie elsewhere now.
    write_splits_csv(data.splits, folder.splits)
    write_json(
        lock,
        build_lock_document(seed=recipe.seed, weights={}, images=data.audit.hashes, plugins=find_used_plugins(recipe)),
    )


@dataclass(frozen=True)
class Image:
    """An image of a search, for comparison with what it was in another session.

    Attributes:
        labelled: Its label and its group.
        split: The split that it is in.
        sha256: SHA-256 of its content; empty where that was never recorded.
    """

    labelled: tuple[str, str]
    split: str
    sha256: str


def read_recorded_images(folder: RunFolder) -> dict[str, Image]:
    """Return the images that a search began with, by path below their root.

    Raises:
        CheckpointError: splits.csv or lock.json can't be read.
        RecipeError: The search's recipe can't be read.
    """
    source = Path(load_recipe(folder.recipe).recipe.data.source)
    try:
        hashes = read_document(folder.lock, LOCK)["images"]
        return {
            row["path"]: Image((row["label"], row["group"]), row["split"], _hash_of(row["path"], source, hashes))
            for row in read_split_rows(folder.splits)
        }
    except KeyError as error:
        what = "has no images" if folder.lock.exists() else "No such file or directory"
        raise CheckpointError(what, where=str(folder.lock), hint=_LOST_IMAGES) from error
    except (DataError, ModelFileError) as error:
        raise CheckpointError(error.what, where=error.where, hint=_LOST_IMAGES) from error


def _hash_of(path: str, source: Path, hashes: Mapping[str, str]) -> str:
    """Return the SHA-256 of an image of splits.csv by its path below the source, or below the source's folder."""
    # Paths in a table of images are relative to the folder that it lies in.
    return next((found for root in (source, source.parent) if (found := hashes.get(str(root / path)))), "")


def list_present_images(data: Data) -> dict[str, Image]:
    """Return the images as they are now, by path below their root."""
    splits = data.splits
    return {
        format_relative_path(record.path, splits.root): Image(
            (record.label, record.group or ""), record.split or "", data.audit.hashes.get(record.path, "")
        )
        # The test split, too: its images are only compared, and must not have moved into training.
        for record in (*splits.train, *splits.val, *open_holdout(splits))
    }


def _has_ended(trial: Path) -> bool:
    return RunFolder(trial).read_status().get("state") in ("finished", "failed")


def _format_value(value: object) -> str:
    return "absent" if value == ABSENT else json.dumps(value, ensure_ascii=False)


def _check_same(then: Mapping[str, Image], now: Mapping[str, Image], path: Path) -> None:
    """Check that images, labels, groups and splits are the same; the error names each kind of change once."""
    both = sorted(then.keys() & now.keys())
    kinds = {
        "gone": sorted(then.keys() - now.keys()),
        "new": sorted(now.keys() - then.keys()),
        "with another content": [name for name in both if then[name].sha256 != now[name].sha256],
        "with another label or group": [name for name in both if then[name].labelled != now[name].labelled],
        "in another split": [name for name in both if then[name].split != now[name].split],
    }
    changes = [f"{len(names)} {kind} (such as {names[0]})" for kind, names in kinds.items() if names]
    if changes:
        hint = "put the images back, or search in another folder with --run-dir, with search.warm_start for this one"
        raise CheckpointError(f"the images changed since: {', '.join(changes)}", where=str(path), hint=hint)
