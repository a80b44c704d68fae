"""Cleaned table of a data set, made from the findings of its audit; the images themselves are never changed.

Left out: unusable images; every copy of an image with conflicting labels; further exact copies. Moved: images of a
near-duplicate group, or of a group of the source, that lies in several given splits, to the split that holds most of
it, so that nothing is lost. A group column keeps each near-duplicate group in one split, whoever splits the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from imagetune.core.csv_tables import write_csv
from imagetune.core.text import format_count
from imagetune.data.duplicates.groups import find_components, find_equal_pairs, list_group_members
from imagetune.errors import DataError

if TYPE_CHECKING:
    from imagetune.data.audit.audit import Audit
    from imagetune.data.sources.catalog import Catalog
    from imagetune.data.sources.records import Record
    from imagetune.recipe.sections.data import ColumnsConfig, DataConfig

CLEANED = "cleaned.csv"
CHANGES = "changes.csv"
LEFT_OUT = "left out"
_CHANGES_HEADER = ("path", "label", "split", "change", "why")
# Where two splits hold equally many images of a group, it goes to the first of these: a class then never vanishes from
# training. Of exact copies, the one in the test stays, so that results can be compared with earlier tests.
_TIES = ("train", "val", "test")
_KEPT_COPY = ("test", "val", "train")


@dataclass(frozen=True, slots=True)
class Change:
    """A row of the source that was left out or moved, and why.

    Attributes:
        record: The row as it was.
        change: ``left out``, or ``moved to`` and a split.
        why: The reason, as a clause.
    """

    record: Record
    change: str
    why: str


@dataclass(frozen=True)
class Cleaning:
    """Rows of the cleaned table, and the changes against the source.

    Attributes:
        records: The rows that stay, in the order of the source, with corrected splits and groups.
        changes: The changed rows, in the order of the source.
    """

    records: tuple[Record, ...]
    changes: tuple[Change, ...]

    def lines(self) -> Iterator[str]:
        """Yield a summary of the changes, a line each."""
        counts = Counter(change.change for change in self.changes)
        yield f"{format_count(len(self.records), 'row')} kept"
        for change, count in sorted(counts.items()):
            yield f"{format_count(count, 'row')} {change}"
        groups = Counter(record.group for record in self.records if record.group)
        if together := sum(1 for count in groups.values() if count > 1):
            yield f"{format_count(together, 'group')} of two or more images stay on one side of a split"


def build_cleaned_table(catalog: Catalog, audit: Audit) -> Cleaning:
    """Return the cleaned table of a source, and what was changed for it.

    Args:
        catalog: All images of the source.
        audit: The audit of the catalog; its near-duplicate groups count even where the recipe allows such findings.

    Raises:
        DataError: No row would be left.
    """
    changes: dict[int, Change] = {}
    for reasons in (
        _find_unusable(catalog.records, audit),
        _find_conflicts(catalog, audit),
        _find_copies(catalog, audit),
    ):
        for index, why in reasons:
            # The first reason counts: a copy with a conflicting label is left out for the conflict.
            changes.setdefault(index, Change(catalog.records[index], LEFT_OUT, why))
    kept = [index for index in range(len(catalog.records)) if index not in changes]
    if not kept:
        raise DataError("the cleaned table would have no rows", where=str(catalog.root))
    units = _build_units(kept, catalog.records, audit)
    for index, split in _plan_moves(units, catalog.records):
        why = "its group of near-duplicates or of the source lies in several splits, and most of it in this one"
        changes[index] = Change(catalog.records[index], f"moved to {split}", why)
    groups = dict(_name_groups(units, catalog.records))
    records = []
    for index in kept:
        record = replace(catalog.records[index], group=groups.get(index, catalog.records[index].group))
        if index in changes:
            record = replace(record, split=changes[index].change.removeprefix("moved to "))
        records.append(record)
    return Cleaning(tuple(records), tuple(changes[index] for index in sorted(changes)))


def write_cleaning(cleaning: Cleaning, folder: Path, config: DataConfig) -> tuple[Path, Path]:
    """Write ``cleaned.csv`` and ``changes.csv``, and return their absolute paths.

    Args:
        cleaning: What `build_cleaned_table` returned.
        folder: The folder of both files; created if it doesn't exist.
        config: The columns get the names that the recipe gives them, so that the table can be its ``data.source``.

    Raises:
        DataError: One of the files exists already, or the folder is inside the folder of the images.
        ResourceError: A file can't be written.
    """
    folder = folder.absolute()
    require_outside_source(folder, config)
    cleaned, changed = folder / CLEANED, folder / CHANGES
    for path in (cleaned, changed):
        if path.exists() or path.is_symlink():
            raise DataError("already exists and is not overwritten", where=str(path), hint="name another folder")
    write_csv(changed, _CHANGES_HEADER, _build_change_rows(cleaning.changes))
    header, *rows = _build_rows(cleaning.records, config.columns)
    write_csv(cleaned, header, rows)
    return cleaned, changed


def require_outside_source(path: Path, config: DataConfig) -> None:
    """Raise an error for an output path inside the folder of the images.

    Raises:
        DataError: The path lies in ``config.source``.
    """
    source = Path(config.source)
    if source.is_dir() and path.resolve().is_relative_to(source.resolve()):
        what = "lies in the folder of the images, where imagetune never writes"
        raise DataError(what, where=str(path), hint="name a path outside of it")


def _find_unusable(records: Sequence[Record], audit: Audit) -> Iterator[tuple[int, str]]:
    for index, (record, image) in enumerate(zip(records, audit.statistics, strict=True)):
        if image.error is not None:
            yield index, f"can't be used: {image.error}"
        elif any(text != text.strip() or "\n" in text or "\r" in text for text in (record.path, record.label)):
            yield index, "a table can't hold its name or label, which has a blank at an end or a line break"


def _find_conflicts(catalog: Catalog, audit: Audit) -> Iterator[tuple[int, str]]:
    for group in _group_by_content(audit):
        labels = sorted({catalog.rule.describe(catalog.records[index].label) for index in group})
        if len({catalog.records[index].label for index in group}) > 1:
            for index in group:
                yield index, f"the same image has the labels {' and '.join(map(repr, labels))}"


def _find_copies(catalog: Catalog, audit: Audit) -> Iterator[tuple[int, str]]:
    for group in _group_by_content(audit):
        order = {split: place for place, split in enumerate(_KEPT_COPY)}
        first = min(group, key=lambda index: (order.get(catalog.records[index].split or "", 0), index))
        for index in group:
            if index != first:
                yield index, f"an exact copy of {catalog.records[first].path}"


def _group_by_content(audit: Audit) -> Iterable[list[int]]:
    good = [index for index, image in enumerate(audit.statistics) if image.error is None]
    roots = find_components(len(good), find_equal_pairs([audit.statistics[index].sha256 for index in good]))
    return ([good[at] for at in group] for group in list_group_members(roots) if len(group) > 1)


def _build_units(kept: Sequence[int], records: Sequence[Record], audit: Audit) -> list[list[int]]:
    """Return the positions that must stay together: near-duplicate groups and groups of the source, joined."""
    duplicate_groups = find_equal_pairs([audit.duplicate_groups[index] for index in kept])
    groups = find_equal_pairs([records[index].group for index in kept])
    return [
        [kept[at] for at in unit]
        for unit in list_group_members(find_components(len(kept), [*duplicate_groups, *groups]))
        if len(unit) > 1
    ]


def _plan_moves(units: Iterable[list[int]], records: Sequence[Record]) -> Iterator[tuple[int, str]]:
    for unit in units:
        sides = Counter(split for index in unit if (split := records[index].split) is not None)
        if len(sides) > 1:
            home = max(sides, key=lambda split: (sides[split], -_TIES.index(split)))
            yield from ((index, home) for index in unit if records[index].split not in (home, None))


def _name_groups(units: Iterable[list[int]], records: Sequence[Record]) -> Iterator[tuple[int, str]]:
    taken = {record.group for record in records}
    number = 0
    for unit in units:
        names = sorted({group for index in unit if (group := records[index].group)})
        if not names:
            number += 1
            # A group column of the source may contain such a name already.
            while f"duplicate-group-{number}" in taken:
                number += 1
        name = "+".join(names) or f"duplicate-group-{number}"
        yield from ((index, name) for index in unit)


def _build_rows(records: Sequence[Record], columns: ColumnsConfig) -> Iterator[Sequence[str]]:
    optional = {
        columns.split: [record.split or "" for record in records],
        columns.group: [record.group or "" for record in records],
    }
    optional = {name: cells for name, cells in optional.items() if any(cells)}
    header = {columns.path, columns.label, *optional}
    slices = [name for name, _ in records[0].slices if name not in header]
    yield (columns.path, columns.label, *optional, *slices)
    for place, record in enumerate(records):
        values = dict(record.slices)
        given = (cells[place] for cells in optional.values())
        yield (record.path, record.label, *given, *(values[name] for name in slices))


def _build_change_rows(changes: Iterable[Change]) -> Iterator[Sequence[str]]:
    for change in changes:
        yield change.record.path, change.record.label, change.record.split or "", change.change, change.why
