"""Training, validation and test splits: given by the source, or made without parting groups or near-duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imagetune.core.csv_tables import read_csv_rows, write_csv
from imagetune.core.path_names import find_spelling, format_relative_path
from imagetune.core.text import format_count, format_list, suggest_name
from imagetune.data.duplicates.groups import find_components, find_equal_pairs, list_group_members
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.labels import SINGLE_LABEL, LabelRule, build_label_rule, order_classes, parse_number
from imagetune.data.sources.records import Record
from imagetune.data.splits.assignment import Unit, assign_splits, compute_draw, describe_unevenness
from imagetune.data.splits.groups import add_duplicate_groups
from imagetune.errors import DataError

if TYPE_CHECKING:
    from imagetune.data.audit.audit import Audit
    from imagetune.recipe.sections.data import DataConfig

_COLUMNS = ("path", "label", "split", "group")
# More than ImageNet has; as text of so many columns they take half a gigabyte.
MAX_IMAGES = 1_500_000
MAX_COLUMNS = 64
_DAMAGE_HINT = "copy the run folder again, or pass labelled images with imagetune evaluate RUN --data"
# Regression is stratified by quantile bins: at most this many bins, of at least so many images.
_MAX_BINS = 10
_IMAGES_A_BIN = 10


@dataclass(frozen=True)
class Splits:
    """Training, validation and test splits of the usable images, with the split and the group of each.

    Near-duplicates are a group, too: see `imagetune.data.splits.groups.group_records`.

    Attributes:
        root: The folder that displayed paths are relative to.
        class_names: The classes in the order of the model's outputs.
        train: The records for fitting weights.
        val: The records for model selection; empty when the share of validation is 0.
        notes: How the splits were made, as lines for a screen.
        rule: How labels are parsed.
    """

    root: Path
    class_names: tuple[str, ...]
    train: tuple[Record, ...]
    val: tuple[Record, ...]
    _sealed_test: tuple[Record, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    rule: LabelRule = SINGLE_LABEL

    @property
    def test_count(self) -> int:
        """The number of test images; the records themselves come only from `holdout.open_holdout`."""
        return len(self._sealed_test)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of images by split and class, in the order of the classes."""
        found = {}
        for split, records in (("train", self.train), ("val", self.val), ("test", self._sealed_test)):
            labels = self.rule.counts(record.label for record in records)
            found[split] = {name: labels[name] for name in self.class_names}
        return found

    def describe_targets(self) -> str:
        """Return a description of the targets: ``3 classes: cat, dog, owl`` or ``age from 1 to 99``."""
        if self.rule.task == "regression":
            numbers = [number for record in self.train if (number := parse_number(record.label)) is not None]
            return f"{self.class_names[0]} from {min(numbers):g} to {max(numbers):g}"
        kind = {"multi_label": "labels", "ordinal": "ordered classes"}.get(self.rule.task, "classes")
        return f"{len(self.class_names)} {kind}: {', '.join(self.class_names)}"


def split_catalog(catalog: Catalog, audit: Audit, config: DataConfig, *, seed: int) -> Splits:
    """Return the splits of the usable images.

    A split that the source gives is kept. Otherwise the split of an image depends only on the seed and on its group,
    its near-duplicate group or its own content, so it doesn't change when other images are added; near-duplicates, and
    images of one group, stay together. There are two exceptions: a class that would be missing from a split gets its
    nearest unit from another, and a new near-duplicate may move its group, whose key is the smallest SHA-256.

    Args:
        catalog: What `read_catalog` returned.
        audit: What `audit_catalog` returned for it; unusable images are left out.
        config: ``split``, ``classes`` and the settings of the label rule are used.
        seed: Any whole number.

    Raises:
        DataError: A class is too small to split, has no usable image, or is in val or test but not in training.
    """
    rule = build_label_rule(config)
    good = [index for index, image in enumerate(audit.statistics) if image.error is None]
    _require_usable(catalog, good, audit, rule)
    splits: list[str | None] = [record.split for record in catalog.records]
    notes = _fill_in_splits(splits, good, catalog, audit, config, seed)
    # After the units of the split: these are drawn by content, whatever their near-duplicates are called.
    grouped = add_duplicate_groups(catalog, audit)
    sides = {side: tuple(_select_side(side, splits, good, grouped)) for side in ("train", "val", "test")}
    class_names = _order_class_names(sides["train"], config, catalog.root)
    for side in ("val", "test"):
        _require_known(rule.counts(record.label for record in sides[side]), class_names, side, catalog.root)
    return Splits(catalog.root, class_names, sides["train"], sides["val"], sides["test"], notes, rule)


def write_splits_csv(splits: Splits, path: Path) -> None:
    """Write a CSV table with ``path,label,split,group`` and the slice columns; paths below the root are relative."""
    records = (*splits.train, *splits.val, *splits._sealed_test)
    # A slice column may be the label or the group column, which the table has already.
    slices = [name for name, _ in (records[0].slices if records else ()) if name not in _COLUMNS]
    write_csv(path, (*_COLUMNS, *slices), (_build_cells(record, slices, splits.root) for record in records))


def read_splits_csv(path: Path, *, root: Path, class_names: Sequence[str]) -> Splits:
    """Return the splits that `write_splits_csv` wrote.

    Args:
        path: The ``splits.csv`` of a run.
        root: The folder that relative paths start from.
        class_names: The classes in the order of the model's outputs.

    Raises:
        DataError: The file is missing or corrupted.
    """
    sides: dict[str, list[Record]] = {"train": [], "val": [], "test": []}
    for row in read_split_rows(path):
        absolute, split = find_spelling(str(root / row["path"])), row["split"]
        slices = tuple((name, value) for name, value in row.items() if name not in _COLUMNS)
        sides[split].append(Record(absolute, row["label"], split, row["group"] or None, slices))
    return Splits(root, tuple(class_names), tuple(sides["train"]), tuple(sides["val"]), tuple(sides["test"]))


def read_split_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a splits.csv by column: path, label, split (train, val or test), group and the slice columns.

    Raises:
        DataError: The file is missing, or isn't what `write_splits_csv` writes.
    """
    try:
        table = read_csv_rows(path, max_rows=MAX_IMAGES)
        heading = next(table, [])
        if not set(_COLUMNS) <= set(heading) or not len(set(heading)) == len(heading) <= MAX_COLUMNS:
            raise ValueError(f"expected the columns {', '.join(_COLUMNS)}, each once")
        for number, cells in enumerate(table, start=1):
            if len(cells) != len(heading):
                raise ValueError(f"row {number} has {len(cells)} cells, the heading {len(heading)}")
            row = dict(zip(heading, cells, strict=True))
            if row["split"] not in ("train", "val", "test") or "\0" in row["path"]:
                raise ValueError(f"row {number} has the split {row['split'][:40]!r} of the path {row['path'][:80]!r}")
            yield row
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror}", where=str(path), hint=_DAMAGE_HINT) from error
    except ValueError as error:
        raise DataError(f"is not a table of splits: {error}", where=str(path), hint=_DAMAGE_HINT) from error


def _select_side(side: str, splits: Sequence[str | None], good: Iterable[int], catalog: Catalog) -> Iterator[Record]:
    for index in good:
        if splits[index] == side:
            record = catalog.records[index]
            yield Record(record.path, record.label, side, record.group, record.slices)


def _require_usable(catalog: Catalog, good: Sequence[int], audit: Audit, rule: LabelRule) -> None:
    usable = rule.counts(catalog.records[index].label for index in good)
    lost = sorted(set(rule.counts(record.label for record in catalog.records)) - set(usable))
    if lost:
        images = zip(catalog.records, audit.statistics, strict=True)
        path, why = next((one.path, one.error) for record, one in images if lost[0] in rule.names(record.label))
        what = f"no image of {format_list(map(repr, lost))} can be used: {path} {why}"
        raise DataError(what, where=str(catalog.root), hint="`imagetune data check` gives the reason for each image")


def _fill_in_splits(
    splits: list[str | None], good: Sequence[int], catalog: Catalog, audit: Audit, config: DataConfig, seed: int
) -> tuple[str, ...]:
    """Fill in the splits that the source doesn't give, and return notes on how they were made."""
    given = {splits[index] for index in good} - {None}
    shares = {"test": config.split.test, "val": config.split.val}
    if not given:
        notes = _make_splits(splits, good, shares, catalog, audit, config, seed)
        return (f"splits made by {config.split.method} with seed {seed}", *notes)
    if "train" not in given:
        what = f"has no training images, only {' and '.join(sorted(map(str, given)))}"
        raise DataError(what, where=str(catalog.root))
    missing = {side: share for side, share in shares.items() if side not in given and share > 0}
    if not missing:
        return ("splits given by the source",)
    pool = [index for index in good if splits[index] == "train"]
    notes = _make_splits(splits, pool, missing, catalog, audit, config, seed)
    words = " and ".join(sorted(missing))
    return (f"splits given by the source; {words} taken from its training images by {config.split.method}", *notes)


def _make_splits(
    splits: list[str | None],
    pool: Sequence[int],
    shares: dict[str, float],
    catalog: Catalog,
    audit: Audit,
    config: DataConfig,
    seed: int,
) -> tuple[str, ...]:
    """Fill in the splits of some images, and return a note where a class got another share than was asked for."""
    rule, method = build_label_rule(config), config.split.method
    binned = rule.task == "regression" and method == "stratified"
    units = build_split_units(pool, catalog, audit, rule, seed=seed, binned=binned)
    sparse = binned or rule.task == "multi_label"
    made = assign_splits(units, shares, method, where=str(catalog.root), sparse=sparse)
    for unit, side in zip(units, made, strict=True):
        for index in unit.members:
            splits[index] = side
    # Numbers have bins and no classes, and hashing doesn't know even these.
    uneven = "" if rule.task == "regression" else describe_unevenness(units, made, shares, method)
    return (uneven,) if uneven else ()


def build_split_units(
    pool: Sequence[int], catalog: Catalog, audit: Audit, rule: LabelRule, *, seed: int, binned: bool
) -> list[Unit]:
    """Return the units that must stay together: groups, near-duplicate groups and single images.

    Args:
        pool: Positions of the images in the catalog.
        catalog: The records of all images.
        audit: The audit of the catalog, for near-duplicate groups and hashes.
        rule: How labels are parsed.
        seed: Seed of the units' draws.
        binned: Whether labels are numbers, to be stratified by quantile bins.
    """
    texts = [catalog.records[index].label for index in pool]
    return list(
        _generate_units(
            pool, catalog, audit, seed, _compute_value_bins(texts) if binned else _list_label_names(texts, rule)
        )
    )


def _list_label_names(texts: Sequence[str], rule: LabelRule) -> list[tuple[str, ...]]:
    # Images without any label are spread over the splits like a class of their own.
    names = {text: rule.names(text) or ("",) for text in set(texts)}
    return [names[text] for text in texts]


def _compute_value_bins(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the quantile bin of each number; all bins have about the same number of images."""
    values = np.array([parse_number(text) or 0.0 for text in texts])
    bins = max(1, min(_MAX_BINS, len(values) // _IMAGES_A_BIN))
    edges = np.quantile(values, np.arange(1, bins) / bins)
    return [(f"bin {place}",) for place in np.searchsorted(edges, values, side="right").tolist()]


def _generate_units(
    pool: Sequence[int], catalog: Catalog, audit: Audit, seed: int, strata: Sequence[tuple[str, ...]]
) -> Iterable[Unit]:
    groups = [catalog.records[index].group for index in pool]
    duplicate_groups = [audit.duplicate_groups[index] for index in pool]
    grouped = any(group is not None for group in groups)
    roots = (
        find_components(len(pool), [*find_equal_pairs(groups), *find_equal_pairs(duplicate_groups)])
        if grouped
        else duplicate_groups
    )
    # Most units are single images with few different labels: sharing the counters saves memory with a million of them.
    alone = {names: Counter(names) for names in set(strata)}
    for unit in list_group_members(roots):
        named = [f"group {groups[at]}" for at in unit if groups[at] is not None]
        key = min(named) if named else min(audit.statistics[pool[at]].sha256 for at in unit)
        labels = alone[strata[unit[0]]] if len(unit) == 1 else Counter(name for at in unit for name in strata[at])
        yield Unit(tuple(pool[at] for at in unit), labels, compute_draw(seed, key))


def _order_class_names(train: Iterable[Record], config: DataConfig, root: Path) -> tuple[str, ...]:
    rule = build_label_rule(config)
    seen = set(rule.counts(record.label for record in train))
    if not seen:
        raise DataError("no training image has a label", where=str(root))
    if config.classes is None or rule.task == "regression":
        if len(seen) < 2 and rule.task not in ("multi_label", "regression"):
            what = f"the training split has only the class {min(seen)!r}; a classifier needs at least 2"
            raise DataError(what, where=str(root))
        return order_classes(seen, config)
    for name in config.classes:
        if name not in seen:
            raise DataError(f"the class {name!r} of data.classes has no training images", where=str(root))
    return tuple(config.classes)


def _require_known(counts: Counter[str], class_names: Sequence[str], side: str, root: Path) -> None:
    known = frozenset(class_names)
    unknown = Counter({label: count for label, count in counts.items() if label not in known})
    if not unknown:
        return
    label = min(unknown)
    what = f"the label {label!r} is in {side} ({format_count(unknown[label], 'image')}) but never in training"
    others = f"; so are {format_list(map(repr, sorted(set(unknown) - {label})))}" if len(unknown) > 1 else ""
    hint = suggest_name(label, class_names) or f"the training labels are {format_list(class_names, most=12)}"
    raise DataError(what + others, where=str(root), hint=hint)


def _build_cells(record: Record, slices: Sequence[str], root: Path) -> tuple[str | None, ...]:
    values = dict(record.slices)
    shown = format_relative_path(record.path, root)
    return (shown, record.label, record.split, record.group or "", *(values.get(name, "") for name in slices))
