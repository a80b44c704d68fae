"""Checks that recipe and images are still those of an earlier session, before a run or a search goes on with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from imagetune.core.documents import read_document
from imagetune.core.path_names import format_relative_path
from imagetune.core.run_documents import LOCK
from imagetune.data.splits.holdout import open_holdout
from imagetune.data.splits.splits import read_split_rows
from imagetune.errors import CheckpointError, DataError
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.printing import ABSENT, compare_recipes
from imagetune.recipe.schema import Recipe
from imagetune.run_folder.folder import RunFolder
from imagetune.runs.prepare import Data

SAME_TRAINING = (
    *("name", "search", "tracking", "card", "train.commit_minutes"),
    *("data.source", "data.split", "data.columns", "data.audit", "data.on_bad_image", "data.max_pixels"),
    *("data.workers", "data.cache", "data.cache_gib"),
)
"""Keys that don't change what is learned; the images and their splits are compared by their content."""
_LOST_IMAGES = "it records the images of the earlier session: put it back, or begin anew in another folder"


def check_same_recipe(then: Recipe, now: Recipe, *, where: Path, may_change: Callable[[str], bool], hint: str) -> None:
    """Check that a recipe trains what it did in an earlier session.

    Args:
        then: The recipe of the earlier session.
        now: The recipe as it is now.
        where: The file of the former, for the message.
        may_change: Whether a key, such as ``data.workers``, may change.
        hint: What to do where they differ, for the message.

    Raises:
        CheckpointError: A value has changed that makes it another training.
    """
    changed = [difference for difference in compare_recipes(then, now) if not may_change(difference[0])]
    if changed:
        key, before, after = changed[0]
        others = f" (and {', '.join(each[0] for each in changed[1:])})" if len(changed) > 1 else ""
        what = f"the recipe changed since: {key} was {_format_value(before)}, now it is {_format_value(after)}{others}"
        raise CheckpointError(what, where=str(where), hint=hint)


def is_below(key: str, sections: Iterable[str]) -> bool:
    """Return whether a recipe key is one of these, or lies below one."""
    return any(key == one or key.startswith((f"{one}.", f"{one}[")) for one in sections)


@dataclass(frozen=True)
class Image:
    """An image of a run or a search, for comparison with what it was in another session.

    Attributes:
        labelled: Its label and its group.
        split: The split that it is in.
        sha256: SHA-256 of its content; empty where that was never recorded.
    """

    labelled: tuple[str, str]
    split: str
    sha256: str


def read_recorded_images(folder: RunFolder) -> dict[str, Image]:
    """Return the images that a run or a search began with, by path below their root.

    Raises:
        CheckpointError: splits.csv or lock.json can't be read.
        RecipeError: The recipe can't be read.
    """
    source = Path(load_recipe(folder.recipe).recipe.data.source)
    try:
        hashes = read_document(folder.lock, LOCK, error=CheckpointError)["images"]
        return {
            row["path"]: Image((row["label"], row["group"]), row["split"], _hash_of(row["path"], source, hashes))
            for row in read_split_rows(folder.splits)
        }
    except KeyError as error:
        what = "has no images" if folder.lock.exists() else "No such file or directory"
        raise CheckpointError(what, where=str(folder.lock), hint=_LOST_IMAGES) from error
    except DataError as error:
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


def _format_value(value: object) -> str:
    return "absent" if value == ABSENT else json.dumps(value, ensure_ascii=False)


def check_same_images(then: Mapping[str, Image], now: Mapping[str, Image], *, where: Path, hint: str) -> None:
    """Check that images, labels, groups and splits are the same as in an earlier session.

    Args:
        then: The images of the earlier session, by path below their root.
        now: The images as they are now, likewise.
        where: The file that records the former, for the message.
        hint: What to do where they differ, for the message.

    Raises:
        CheckpointError: They differ; it names each kind of change once.
    """
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
        raise CheckpointError(f"the images changed since: {', '.join(changes)}", where=str(where), hint=hint)
