"""Groups of images that are not independent: those of the source, and near-duplicates, which get a name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from imagetune.core.path_names import format_relative_path
from imagetune.core.text import format_count
from imagetune.data.duplicates.groups import (
    find_components,
    find_equal_pairs,
    is_duplicate_group,
    list_group_members,
    name_duplicate_group,
)

if TYPE_CHECKING:
    from imagetune.data.audit.audit import Audit
    from imagetune.data.sources.catalog import Catalog
    from imagetune.data.sources.records import Record


def add_duplicate_groups(catalog: Catalog, audit: Audit) -> Catalog:
    """Return the catalog with a group for near-duplicates, too: see `group_records`; unusable images stay as they are.

    Args:
        catalog: The records of all images.
        audit: Its audit.
    """
    records = list(catalog.records)
    good = [index for index, image in enumerate(audit.statistics) if image.error is None]
    alike = [audit.duplicate_groups[index] for index in good]
    for index, record in zip(good, group_records([records[i] for i in good], alike, catalog.root), strict=True):
        records[index] = record
    return replace(catalog, records=tuple(records))


def group_records(records: Sequence[Record], alike: Sequence[int], root: Path) -> tuple[Record, ...]:
    """Return the records with the group of each: that of the source, or of its near-duplicates, which is named by one.

    A model gets near-duplicates right or wrong together, so they are no more independent than images of one group are.
    Groups of the source that near-duplicates connect become one, with the names of all.

    Args:
        records: The records of n usable images.
        alike: (n) near-duplicate group of each; an image without near-duplicates is its own.
        root: Folder that paths are shown relative to.
    """
    found = list(records)
    pairs = [*find_equal_pairs([record.group for record in records]), *find_equal_pairs(alike)]
    for members in list_group_members(find_components(len(records), pairs)):
        if len(members) > 1:
            names = sorted({name for at in members if (name := records[at].group) is not None})
            first = min(format_relative_path(records[at].path, root) for at in members)
            group = "+".join(names) or name_duplicate_group(first)
            for at in members:
                found[at] = replace(records[at], group=group)
    return tuple(found)


def describe_groups(groups: Sequence[str | None]) -> str:
    """Return how images are grouped, as ``8 of 85 images are in 4 near-duplicate groups``; "" where no two share one.

    Args:
        groups: The group of each image; None for one without.
    """
    counts = Counter(group for group in groups if group is not None)
    shared = {name: count for name, count in counts.items() if count > 1}
    if not shared:
        return ""
    alike = all(map(is_duplicate_group, shared))
    many = f"{sum(shared.values()):,} of {format_count(len(groups), 'image')} are in"
    return f"{many} {format_count(len(shared), 'near-duplicate group' if alike else 'group')}"
