"""The disk freed of what ended runs no longer need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imagetune.run_folder.prune import Removal, compute_freed_bytes, find_removals, remove


@dataclass(frozen=True)
class Pruned:
    """One thing that was, or would be, removed.

    Attributes:
        removal: What it is.
        freed_bytes: How much of the disk it frees.
    """

    removal: Removal
    freed_bytes: int


def prune_runs(
    places: Sequence[Path], *, models: bool = False, unfinished: bool = False, dry: bool = True
) -> list[Pruned]:
    """Return what ended runs no longer need, and remove it unless this is a dry run.

    Args:
        places: Run folders, folders of searches, or folders with such folders.
        models: Also the models of finished runs.
        unfinished: Also runs that failed or were stopped and have no model, as a whole.
        dry: Whether nothing is removed.

    Raises:
        ModelFileError: A folder doesn't exist.
        ResourceError: A folder can't be written.
    """
    # Each once, although two places may hold it.
    found = list(
        dict.fromkeys(
            removal for place in places for removal in find_removals(place, models=models, unfinished=unfinished)
        )
    )
    pruned = [Pruned(removal, freed) for removal, freed in zip(found, compute_freed_bytes(found), strict=True)]
    if not dry:
        remove(found)
    return pruned
