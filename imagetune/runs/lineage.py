"""Finished runs used together: the classes and images they must share, and the test images they must not have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from imagetune.core.files import compute_file_sha256, read_json_or_empty
from imagetune.core.text import format_count, format_set_difference
from imagetune.data.sources.records import Record
from imagetune.data.splits.holdout import open_holdout
from imagetune.data.splits.splits import Splits
from imagetune.errors import DataError, ModelFileError
from imagetune.model.manifest import Manifest, read_manifest
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.schema import Recipe
from imagetune.run_folder.folder import RunFolder
from imagetune.runs.open import find_run, read_run_splits


@dataclass(frozen=True)
class Member:
    """A finished run, one of several that are used together.

    Attributes:
        name: The run as the user named it.
        folder: Its folder.
        manifest: The manifest of its model: architecture, labels, image settings.
    """

    name: str
    folder: RunFolder
    manifest: Manifest

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe of the run."""
        return load_recipe(self.folder.recipe).recipe

    @cached_property
    def lock(self) -> dict[str, Any]:
        """The content of lock.json; empty without one."""
        return read_json_or_empty(self.folder.lock)

    @property
    def hashes(self) -> Mapping[str, str]:
        """The SHA-256 of the run's images by path, as far as they are known."""
        hashes: Mapping[str, str] = self.lock.get("images", {})
        return hashes

    @cached_property
    def splits(self) -> Splits:
        """The images of the run in the splits it was trained with.

        Raises:
            DataError: splits.csv is missing or corrupted.
        """
        return read_run_splits(self.folder, self.recipe.data, self.manifest.class_names)


def open_members(runs: Sequence[str]) -> list[Member]:
    """Return finished runs of the same task and with the same class names, though perhaps in another order.

    Args:
        runs: Run folders, or runs:/ or models:/ addresses.

    Raises:
        ModelFileError: One is no finished run, or its task or its classes are not those of the first.
    """
    folders = [(run, find_run(run)) for run in runs]
    members = [Member(run, folder, read_manifest(folder.model)) for run, folder in folders]
    for other in members[1:]:
        _require_same_classes(members[0], other)
    return members


def refuse_seen_images(member: Member, records: Sequence[Record], hashes: Mapping[str, str]) -> None:
    """Make sure that a run was neither trained nor selected with images that it is to be tested on.

    Args:
        member: The run.
        records: The test images.
        hashes: Their SHA-256 by path, as far as known: a copy elsewhere is the same image.

    Raises:
        DataError: It has seen some of them, or it has no splits.csv, so nobody knows.
    """
    if not member.folder.splits.is_file():
        what = "has no splits.csv, so nobody knows whether it was trained on the test images"
        raise DataError(what, where=member.name, hint="give a run folder, or an address whose run still exists")
    if seen := count_seen_images(member, records, hashes):
        what = f"{seen} of {format_count(len(records), 'test image')} are among its training or validation images"
        hint = "use runs that share their splits, or images that none of them has seen"
        raise DataError(what, where=member.name, hint=hint)


def count_seen_images(member: Member, records: Sequence[Record], hashes: Mapping[str, str]) -> int:
    """Return how many of some images a run was trained or selected with, by path or by content.

    Args:
        member: The run; it has a splits.csv.
        records: The images to look for.
        hashes: Their SHA-256 by path, as far as known.
    """
    learned = (*member.splits.train, *member.splits.val)
    # Two ways find an image again: its file, also through a symbolic link, and its content, also in a copy.
    paths = {_resolved(record.path) for record in learned}
    # An image without a hash must not equal another one without a hash.
    contents = {member.hashes.get(record.path) for record in learned} - {None, ""}
    return sum(_resolved(record.path) in paths or hashes.get(record.path) in contents for record in records)


def hash_images(records: Sequence[Record]) -> dict[str, str]:
    """Return the SHA-256 of each image by path; one that can't be read is left out, as decoding it will report it."""
    hashes = {}
    for record in records:
        try:
            hashes[record.path] = compute_file_sha256(Path(record.path))
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


def count_different_images(first: Member, other: Member, split: Literal["val", "test"]) -> int:
    """Return how many labelled images of a split only one of two runs has: the size of the symmetric difference."""
    return len(_list_identities(first, split) ^ _list_identities(other, split))


def _list_identities(member: Member, split: Literal["val", "test"]) -> set[tuple[str, str]]:
    """Return hash (or path, where it is unknown) and label of each image of a split."""
    records = member.splits.val if split == "val" else open_holdout(member.splits)
    # By content where it is known, as two runs may have copies of one data set in different folders.
    return {(member.hashes.get(record.path) or record.path, record.label) for record in records}
