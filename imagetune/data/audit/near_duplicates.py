"""Near-duplicates between two sets of images: which images of a test look like images of the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagetune.core.text import format_count
from imagetune.data.audit.inspection import inspect_images
from imagetune.data.duplicates.groups import find_components, find_equal_pairs
from imagetune.data.duplicates.perceptual import find_near_duplicate_pairs

if TYPE_CHECKING:
    from imagetune.data.audit.image_statistics import Inspection
    from imagetune.recipe.sections.data import DataConfig


@dataclass(frozen=True)
class NearDuplicates:
    """The images that are near-duplicates of known ones.

    Attributes:
        paths: Their paths.
        notes: What could not be looked for.
    """

    paths: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def find_near_duplicates(paths: Sequence[str], known: Sequence[str], config: DataConfig) -> NearDuplicates:
    """Return which images are near-duplicates of known ones, also through an image between; of readable files.

    Args:
        paths: Files to look for.
        known: The images of the training.
        config: The data section of its recipe. Without ``audit.near_duplicates`` none are looked for, as in a set whose
            images all resemble each other.
    """
    if not paths or not known:
        return NearDuplicates()
    if not config.audit.near_duplicates:
        return NearDuplicates(notes=("near-duplicates are not looked for (data.audit.near_duplicates: false)",))
    everything = list(dict.fromkeys((*known, *paths)))
    inspected = inspect_images(
        everything,
        background=config.background,
        max_pixels=config.max_pixels,
        descriptors=True,
        keep=config.cache != "off",
    )
    roots = dict(zip(everything, find_duplicate_groups(inspected), strict=True))
    taken = {roots[path] for path in known}
    errors = {one.statistics.path for one in inspected if one.statistics.error is not None}
    gone, in_all = len(errors.intersection(known)), len(set(known))
    note = (
        f"{gone} of {format_count(in_all, 'image')} of the training can't be read any more: their near-duplicates "
        "would not be noticed"
    )
    return NearDuplicates(frozenset(path for path in paths if roots[path] in taken), (note,) if gone else ())


def find_duplicate_groups(inspected: Sequence[Inspection]) -> list[int]:
    """Return the group of each of n images, named by its first one: exact copies, and near-duplicates if described.

    Args:
        inspected: The images; one without a descriptor has no near-duplicates, one without a hash no copies.
    """
    copies = find_equal_pairs([one.statistics.sha256 or None for one in inspected])
    near = find_near_duplicate_pairs([one.thumbnail for one in inspected])
    return find_components(len(inspected), [*copies, *near])
