"""Finished runs used together: the classes and images they must share, and the test images they must not have seen.

An image that a run was trained or selected with tells nothing about images that are new to it. Three ways find it
again: its file, its content in a copy, and its looks in a near-duplicate, such as another size or compression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from imagetune.core.documents import read_document
from imagetune.core.files import compute_file_sha256
from imagetune.core.run_documents import LOCK
from imagetune.core.text import format_count, format_list, format_set_difference
from imagetune.data.audit.near_duplicates import find_near_duplicates
from imagetune.data.sources.records import Record
from imagetune.data.splits.holdout import open_holdout
from imagetune.data.splits.splits import Splits
from imagetune.errors import DataError, ImagetuneError, ModelFileError
from imagetune.model.load_weights import is_run_folder
from imagetune.model.manifest import Manifest, read_manifest
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.schema import Recipe
from imagetune.run_folder.folder import RunFolder
from imagetune.runs.open import find_run, read_run_splits
from imagetune.tracking.resolve import is_mlflow_uri

_NO_SPLITS = "has no splits.csv, so nobody knows whether it was trained on the test images"


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
        """The content of lock.json; empty without one.

        Raises:
            ModelFileError: It isn't what imagetune writes.
        """
        return read_document(self.folder.lock, LOCK)

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


@dataclass(frozen=True)
class SeenImages:
    """The images among some to be tested on that runs were trained or selected with.

    Attributes:
        copies: Their paths, where it is the same file or the same content.
        near_duplicates: Paths of the others, which only look like an image of the training.
        notes: What could not be checked.
        unknown: Whether some run doesn't say which images it was trained on.
    """

    copies: frozenset[str] = frozenset()
    near_duplicates: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    unknown: bool = False

    @property
    def paths(self) -> frozenset[str]:
        """The paths of all of them."""
        return self.copies | self.near_duplicates

    def join(self, other: SeenImages) -> SeenImages:
        """Return what either has found."""
        copies = self.copies | other.copies
        near = (self.near_duplicates | other.near_duplicates) - copies
        notes = tuple(dict.fromkeys((*self.notes, *other.notes)))
        return SeenImages(copies, near, notes, self.unknown or other.unknown)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: ``images`` (None where it is unknown), ``near_duplicates``, ``paths`` and ``notes``."""
        return {
            "images": None if self.unknown else len(self.paths),
            "near_duplicates": len(self.near_duplicates),
            "paths": sorted(self.paths),
            "notes": list(self.notes),
        }


def check_seen_images(
    members: Sequence[Member], records: Sequence[Record], hashes: Mapping[str, str], *, allow: bool = False
) -> SeenImages:
    """Return which of some test images runs were trained or selected with; unless that is allowed, there are none.

    Args:
        members: The runs that are tested.
        records: The test images.
        hashes: Their SHA-256 by path, as far as known: a copy elsewhere is the same image.
        allow: Whether such images are returned instead of refused.

    Raises:
        DataError: A run has seen some of them, or has no splits.csv, so that nobody knows.
    """
    found = SeenImages()
    for member in members:
        known = member.folder.splits.is_file()
        if not known and not allow:
            hint = "give a run folder, or an address whose run still exists; --allow-seen tests all the same"
            raise DataError(_NO_SPLITS, where=member.name, hint=hint)
        seen = find_seen_images(member, records, hashes) if known else SeenImages(notes=(_NO_SPLITS,), unknown=True)
        if seen.paths and not allow:
            raise _build_seen_error(member, seen, len(records))
        found = found.join(seen)
    return found


def _build_seen_error(member: Member, seen: SeenImages, tested: int) -> DataError:
    near = f", {len(seen.near_duplicates)} of them as near-duplicates" if seen.near_duplicates else ""
    shown = format_list(sorted(seen.paths), most=2)
    what = (
        f"{len(seen.paths)} of {format_count(tested, 'test image')} {'is' if len(seen.paths) == 1 else 'are'} among its"
        f" training or validation images{near}"
        f" ({shown})"
    )
    hint = (
        "leave them out (without --data, the run's own test images are tested); --allow-seen shows"
        " the metrics all the same, which then prove nothing"
    )
    return DataError(what, where=member.name, hint=hint)


def find_seen_images(member: Member, records: Sequence[Record], hashes: Mapping[str, str]) -> SeenImages:
    """Return which of some images a run, or a run that it builds on, was trained or selected with.

    Near-duplicates are found among files that can still be read, where the run's recipe looks for them
    (``data.audit.near_duplicates``).

    Args:
        member: The run; it has a splits.csv.
        records: The images to look for.
        hashes: Their SHA-256 by path, as far as known.
    """
    learned = (*member.splits.train, *member.splits.val)
    paths = {_resolved(record.path) for record in learned}
    # An image without a hash must not equal another one without a hash.
    contents = {member.hashes.get(record.path) for record in learned} - {None, ""}
    copies = frozenset(
        record.path for record in records if _resolved(record.path) in paths or hashes.get(record.path) in contents
    )
    others = [record.path for record in records if record.path not in copies]
    near = find_near_duplicates(others, [record.path for record in learned], member.recipe.data)
    found = SeenImages(copies, near.paths, near.notes)
    for name in list_ancestors(member.recipe).values():
        found = found.join(_find_seen_by_ancestor(name, member.recipe, records, hashes))
    return found


def count_seen_images(member: Member, records: Sequence[Record], hashes: Mapping[str, str]) -> int:
    """Return how many of some images a run was trained or selected with; see `find_seen_images`."""
    return len(find_seen_images(member, records, hashes).paths)


def list_ancestors(recipe: Recipe) -> dict[str, str]:
    """Return the runs that a run builds on, teacher and source of the weights, by the recipe key that names them."""
    teacher, weights = recipe.train.teacher, recipe.model.weights
    found = {"train.teacher": teacher.run} if teacher is not None else {}
    if is_mlflow_uri(weights) or is_run_folder(Path(weights)):
        found["model.weights"] = weights
    return found


def _find_seen_by_ancestor(
    name: str, recipe: Recipe, records: Sequence[Record], hashes: Mapping[str, str]
) -> SeenImages:
    try:
        (ancestor,) = open_members([str(find_run(name, uri=recipe.tracking.uri).path)])
        return find_seen_images(ancestor, records, hashes)
    except ImagetuneError:
        # It may be gone by now, which must not keep its descendants from being tested.
        return SeenImages(notes=(f"what {name} was trained on, which this run builds on, can't be read",))


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
