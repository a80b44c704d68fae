"""A table of the images that can be trusted, made from what the audit found; the images are never touched.

Left out: what can't be used; an image under two labels, every copy of it; further copies of an image. Moved:
images of a family or a group that lies in several given splits, to the split that holds most of it, so that nothing
is lost. And a group column keeps each family on one side, whoever splits the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from imagetune.core.files import write_csv
from imagetune.core.text import format_count
from imagetune.data.duplicates.groups import components, equal_pairs, members
from imagetune.errors import DataError

if TYPE_CHECKING:
    from imagetune.data.audit.audit import Audit
    from imagetune.data.sources.catalog import Catalog
    from imagetune.data.sources.records import Record
    from imagetune.recipe.data import ColumnsConfig, DataConfig

CLEANED = "cleaned.csv"
CHANGES = "changes.csv"
LEFT_OUT = "left out"
_CHANGES_HEADER = ("path", "label", "split", "change", "why")
# Where as many images of a family are on one side as on the other, it goes to the first of these: a class then never
# vanishes from training. Of exact copies, the one in the test stays, so that it can be compared with earlier tests.
_TIES = ("train", "val", "test")
_KEPT_COPY = ("test", "val", "train")


@dataclass(frozen=True, slots=True)
class Change:
    """What was done about one row of the source, and why.

    Attributes:
        record: The row as it was.
        change: ``left out``, or ``moved to`` and a split.
        why: In words.
    """

    record: Record
    change: str
    why: str


@dataclass(frozen=True)
class Cleaning:
    """The rows that stay, and what became of the others.

    Attributes:
        records: In the order of the source; splits and groups are as they should be.
        changes: In the order of the source.
    """

    records: tuple[Record, ...]
    changes: tuple[Change, ...]

    def lines(self) -> Iterator[str]:
        """Yield what was done, for a screen."""
        counts = Counter(change.change for change in self.changes)
        yield f"{format_count(len(self.records), 'row')} kept"
        for change, count in sorted(counts.items()):
            yield f"{format_count(count, 'row')} {change}"
        groups = Counter(record.group for record in self.records if record.group)
        if together := sum(1 for count in groups.values() if count > 1):
            yield f"{format_count(together, 'group')} of two or more images stay on one side of a split"


def clean(catalog: Catalog, audit: Audit) -> Cleaning:
    """Say what a clean table of the source holds.

    Args:
        catalog: All images of the source.
        audit: What the check of them found; its families are used, whatever the recipe allows.

    Raises:
        DataError: Nothing would be left.
    """
    changes: dict[int, Change] = {}
    for reasons in (_unusable(catalog.records, audit), _contradictions(catalog, audit), _copies(catalog, audit)):
        for index, why in reasons:
            changes.setdefault(index, Change(catalog.records[index], LEFT_OUT, why))
    kept = [index for index in range(len(catalog.records)) if index not in changes]
    if not kept:
        raise DataError("nothing would be left of it", where=str(catalog.root))
    units = _units(kept, catalog.records, audit)
    for index, split in _moves(units, catalog.records):
        why = "its family or group lies in several splits, and most of it there"
        changes[index] = Change(catalog.records[index], f"moved to {split}", why)
    groups = dict(_groups(units, catalog.records))
    records = []
    for index in kept:
        record = replace(catalog.records[index], group=groups.get(index, catalog.records[index].group))
        if index in changes:
            record = replace(record, split=changes[index].change.removeprefix("moved to "))
        records.append(record)
    return Cleaning(tuple(records), tuple(changes[index] for index in sorted(changes)))


def write_cleaning(cleaning: Cleaning, folder: Path, config: DataConfig) -> tuple[Path, Path]:
    """Write ``cleaned.csv`` and ``changes.csv``.

    Args:
        cleaning: What `clean` returned.
        folder: Made where it is not there.
        config: The columns get the names that the recipe gives them, so that the table can be its ``data.source``.

    Returns:
        The two files; their paths are absolute.

    Raises:
        DataError: One of them is there already, or the folder is among the images.
        ResourceError: They can't be written.
    """
    folder = folder.absolute()
    require_outside(folder, config)
    cleaned, changed = folder / CLEANED, folder / CHANGES
    for path in (cleaned, changed):
        if path.exists() or path.is_symlink():
            raise DataError("is there already, and is not written over", where=str(path), hint="name another folder")
    write_csv(changed, _CHANGES_HEADER, _change_rows(cleaning.changes))
    header, *rows = _rows(cleaning.records, config.columns)
    write_csv(cleaned, header, rows)
    return cleaned, changed


def require_outside(path: Path, config: DataConfig) -> None:
    """Refuse to write into the folder of the images.

    Raises:
        DataError: The path is there.
    """
    source = Path(config.source)
    if source.is_dir() and path.resolve().is_relative_to(source.resolve()):
        what = "lies in the folder of the images, where nothing is ever written"
        raise DataError(what, where=str(path), hint="name a place beside it")


def _unusable(records: Sequence[Record], audit: Audit) -> Iterator[tuple[int, str]]:
    for index, (record, fact) in enumerate(zip(records, audit.facts, strict=True)):
        if fact.error is not None:
            yield index, f"can't be used: {fact.error}"
        elif any(text != text.strip() or "\n" in text or "\r" in text for text in (record.path, record.label)):
            yield index, "a table can't hold its name or label: a blank at the end or a line break"


def _contradictions(catalog: Catalog, audit: Audit) -> Iterator[tuple[int, str]]:
    for group in _same_content(audit):
        labels = sorted({catalog.rule.told(catalog.records[index].label) for index in group})
        if len({catalog.records[index].label for index in group}) > 1:
            for index in group:
                yield index, f"the same image has the labels {' and '.join(map(repr, labels))}"


def _copies(catalog: Catalog, audit: Audit) -> Iterator[tuple[int, str]]:
    for group in _same_content(audit):
        order = {split: place for place, split in enumerate(_KEPT_COPY)}
        first = min(group, key=lambda index: (order.get(catalog.records[index].split or "", 0), index))
        for index in group:
            if index != first:
                yield index, f"an exact copy of {catalog.records[first].path}"


def _same_content(audit: Audit) -> Iterable[list[int]]:
    good = [index for index, fact in enumerate(audit.facts) if fact.error is None]
    roots = components(len(good), equal_pairs([audit.facts[index].sha256 for index in good]))
    return ([good[at] for at in group] for group in members(roots) if len(group) > 1)


def _units(kept: Sequence[int], records: Sequence[Record], audit: Audit) -> list[list[int]]:
    """Return what must stay together: families and groups, and what they have in common."""
    families = equal_pairs([audit.families[index] for index in kept])
    groups = equal_pairs([records[index].group for index in kept])
    return [[kept[at] for at in unit] for unit in members(components(len(kept), [*families, *groups])) if len(unit) > 1]


def _moves(units: Iterable[list[int]], records: Sequence[Record]) -> Iterator[tuple[int, str]]:
    for unit in units:
        sides = Counter(split for index in unit if (split := records[index].split) is not None)
        if len(sides) > 1:
            home = max(sides, key=lambda split: (sides[split], -_TIES.index(split)))
            yield from ((index, home) for index in unit if records[index].split not in (home, None))


def _groups(units: Iterable[list[int]], records: Sequence[Record]) -> Iterator[tuple[int, str]]:
    taken = {record.group for record in records}
    number = 0
    for unit in units:
        names = sorted({group for index in unit if (group := records[index].group)})
        if not names:
            number += 1
            while f"family-{number}" in taken:
                number += 1
        name = "+".join(names) or f"family-{number}"
        yield from ((index, name) for index in unit)


def _rows(records: Sequence[Record], columns: ColumnsConfig) -> Iterator[Sequence[str]]:
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


def _change_rows(changes: Iterable[Change]) -> Iterator[Sequence[str]]:
    for change in changes:
        yield change.record.path, change.record.label, change.record.split or "", change.change, change.why
