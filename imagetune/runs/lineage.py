"""Finished runs that work together: what they must have in common, and what they must not have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from imagetune.core.files import read_json_or_empty, sha256_file
from imagetune.core.text import format_count, format_set_difference
from imagetune.data.sources.records import Record
from imagetune.data.splits.holdout import open_holdout
from imagetune.data.splits.splits import Splits
from imagetune.errors import DataError, ModelFileError
from imagetune.model.manifest import Manifest, read_manifest
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.schema import Recipe
from imagetune.run_folder.folder import RunFolder
from imagetune.runs.open import find_run, run_splits


@dataclass(frozen=True)
class Member:
    """A finished run.

    Attributes:
        name: As the user gave it.
        folder: Its folder.
        manifest: What its model is.
    """

    name: str
    folder: RunFolder
    manifest: Manifest

    @cached_property
    def recipe(self) -> Recipe:
        """Its resolved recipe."""
        return load_recipe(self.folder.recipe).recipe

    @cached_property
    def lock(self) -> dict[str, Any]:
        """Content of lock.json; empty without one."""
        return read_json_or_empty(self.folder.lock)

    @property
    def hashes(self) -> Mapping[str, str]:
        """SHA-256 of its images by path, as far as they are known."""
        hashes: Mapping[str, str] = self.lock.get("images", {})
        return hashes

    @cached_property
    def splits(self) -> Splits:
        """Its images as they were split.

        Raises:
            DataError: splits.csv is missing or corrupted.
        """
        return run_splits(self.folder, self.recipe.data, self.manifest.class_names)


def open_members(runs: Sequence[str]) -> list[Member]:
    """Return the runs, all with the same class names, though perhaps in another order.

    Args:
        runs: Run folders, or runs:/ or models:/ addresses.

    Raises:
        ModelFileError: One is no finished run, or its classes are others than those of the first.
    """
    folders = [(run, find_run(run)) for run in runs]
    members = [Member(run, folder, read_manifest(folder.model)) for run, folder in folders]
    for other in members[1:]:
        _require_same_classes(members[0], other)
    return members


def refuse_seen(member: Member, records: Sequence[Record], hashes: Mapping[str, str]) -> None:
    """Make sure that a run was neither trained nor selected with images that it is to be tested on.

    Args:
        member: The run.
        records: The test images.
        hashes: Their SHA-256 by path, as far as known: a copy elsewhere is the same image.

    Raises:
        DataError: It has seen some, and how many; or it doesn't say which it has seen.
    """
    if not member.folder.splits.is_file():
        what = "has no splits.csv, so it can't be told whether it learned from the test images"
        raise DataError(what, where=member.name, hint="give a run folder, or an address whose run still exists")
    if seen := seen_images(member, records, hashes):
        what = f"{seen} of {format_count(len(records), 'test image')} are among its training or validation images"
        hint = "use runs that share their splits, or images that none of them has seen"
        raise DataError(what, where=member.name, hint=hint)


def seen_images(member: Member, records: Sequence[Record], hashes: Mapping[str, str]) -> int:
    """Return how many of the images a run was trained or selected with.

    Args:
        member: The run; it has a splits.csv.
        records: Images.
        hashes: Their SHA-256 by path, as far as known.
    """
    learned = (*member.splits.train, *member.splits.val)
    paths = {_resolved(record.path) for record in learned}
    contents = {member.hashes.get(record.path) for record in learned} - {None, ""}
    return sum(_resolved(record.path) in paths or hashes.get(record.path) in contents for record in records)


def hash_images(records: Sequence[Record]) -> dict[str, str]:
    """Return the SHA-256 of each image by path; one that can't be read is left out, for whoever decodes it."""
    hashes = {}
    for record in records:
        try:
            hashes[record.path] = sha256_file(Path(record.path))
        except OSError:
            continue
    return hashes


def _resolved(path: str) -> str:
    return str(Path(path).resolve())


def _require_same_classes(first: Member, other: Member) -> None:
    if first.manifest.task != other.manifest.task:
        what = f"it is a model for {other.manifest.task}, {first.name} is one for {first.manifest.task}"
        raise ModelFileError(what, where=other.name, hint="take runs of the same task")
    differing = format_set_difference(first.manifest.class_names, other.manifest.class_names)
    if differing:
        what = f"its classes are not those of {first.name}: it {differing}"
        raise ModelFileError(what, where=other.name, hint="take runs with the same classes")


def different_images(first: Member, other: Member, split: Literal["val", "test"]) -> int:
    """Return how many images, with their labels, only one of two runs has in a split."""
    return len(_identities(first, split) ^ _identities(other, split))


def _identities(member: Member, split: Literal["val", "test"]) -> set[tuple[str, str]]:
    records = member.splits.val if split == "val" else open_holdout(member.splits)
    return {(member.hashes.get(record.path) or record.path, record.label) for record in records}
