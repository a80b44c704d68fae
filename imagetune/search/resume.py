"""Resuming a search: checks that recipe, journal and images are still the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imagetune.core import run_files
from imagetune.core.files import write_json
from imagetune.data.splits.splits import write_splits_csv
from imagetune.errors import CheckpointError
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.schema import Recipe
from imagetune.recipe.used_plugins import find_used_plugins
from imagetune.run_folder.folder import RunFolder
from imagetune.run_folder.lock import build_lock_document
from imagetune.runs.prepare import Data
from imagetune.runs.same_inputs import (
    SAME_TRAINING,
    check_same_images,
    check_same_recipe,
    is_below,
    list_present_images,
    read_recorded_images,
)
from imagetune.search.records.journal import Event, Proposed

# These don't change what a trial learns either: trials aren't tested.
_FREE = (*SAME_TRAINING, "evaluate", "train.jit_compile")


def may_change(key: str) -> bool:
    """Return whether a recipe key, such as ``data.workers``, may change without making it another training."""
    return is_below(key, _FREE)


def check_same_training(folder: RunFolder, recipe: Recipe) -> None:
    """Check that further trials are trained as the earlier ones: nothing outside the spaces has changed.

    Args:
        folder: Run folder of the search.
        recipe: The recipe as it is now, spaces at their defaults.

    Raises:
        CheckpointError: A value that is the same for all trials has changed.
        RecipeError: The recipe of the earlier sessions can't be read.
    """
    then = load_recipe(folder.recipe).recipe
    hint = "undo the change, or search in another folder with --run-dir"
    check_same_recipe(then, recipe, where=folder.recipe, may_change=may_change, hint=hint)


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
        hint = "put the images back, or search in another folder with --run-dir, with search.warm_start for this one"
        check_same_images(read_recorded_images(folder), list_present_images(data), where=folder.splits, hint=hint)
    # Written again though they are the same: they may lie elsewhere now.
    write_splits_csv(data.splits, folder.splits)
    write_json(
        lock,
        build_lock_document(seed=recipe.seed, weights={}, images=data.audit.hashes, plugins=find_used_plugins(recipe)),
    )


def _has_ended(trial: Path) -> bool:
    return RunFolder(trial).read_status().get("state") in ("finished", "failed")
