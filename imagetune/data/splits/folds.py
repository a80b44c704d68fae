"""Cross-validation: the images of training and validation, left out part by part.

Each fold is a `Splits` of its own. To test a run on more images, its test split is the part that is left out, and a
part of the rest is for validation, as in the run itself. To choose between trials, its validation split is the part
that is left out, and it has no test. The run's own test split is in none of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from imagetune.core.text import format_count
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.records import Record
from imagetune.data.splits.assignment import Unit, assign, compute_draw
from imagetune.data.splits.splits import Splits, build_split_units
from imagetune.errors import DataError

if TYPE_CHECKING:
    from imagetune.data.audit.audit import Audit


def fold_splits(
    catalog: Catalog, audit: Audit, splits: Splits, *, folds: int, seed: int, key: str = "evaluate.folds"
) -> tuple[Splits, ...]:
    """Return the folds, stratified by label; groups and families of near-copies stay together.

    Args:
        catalog: All images.
        audit: For the families.
        splits: Of the run; training and validation are put together again, as large a share of each fold's rest is for
            validation as of theirs.
        folds: How many.
        seed: The same seed gives the same folds.
        key: Of the recipe, that asks for them.

    Raises:
        DataError: There are fewer groups of images than folds, or a class has images in one fold only.
    """
    units, made = _parted(catalog, audit, splits, folds=folds, seed=seed, key=key)
    share = len(splits.val) / (len(splits.train) + len(splits.val))
    return tuple(_fold(catalog, splits, units, made, fold, share, seed) for fold in range(folds))


def selection_folds(catalog: Catalog, audit: Audit, splits: Splits, *, folds: int, seed: int) -> tuple[Splits, ...]:
    """Return the folds that trials are judged by: each validates on the part that it leaves out and has no test.

    Args:
        catalog: All images.
        audit: For the families.
        splits: Of the search; training and validation are put together again, the test split is in no fold.
        folds: How many.
        seed: The same seed gives the same folds.

    Raises:
        DataError: As `fold_splits`.
    """
    units, made = _parted(catalog, audit, splits, folds=folds, seed=seed, key="search.folds")
    found = []
    for fold in range(folds):
        train = _records(catalog, [unit for unit, own in zip(units, made, strict=True) if own != fold], "train")
        val = _records(catalog, [unit for unit, own in zip(units, made, strict=True) if own == fold], "val")
        note = f"fold {fold + 1} of {folds}: its validation images are left out of training in turn"
        found.append(Splits(splits.root, splits.class_names, train, val, (), (note,), splits.rule))
    return tuple(found)


def _parted(
    catalog: Catalog, audit: Audit, splits: Splits, *, folds: int, seed: int, key: str
) -> tuple[list[Unit], list[int]]:
    """Return what stays together among the images of training and validation, and the fold of each."""
    pool = _pool(catalog, audit, splits)
    rule, binned = catalog.rule, catalog.rule.task == "regression"
    units = build_split_units(pool, catalog, audit, rule, seed=seed, binned=binned)
    if len(units) < folds:
        what = f"{key} is {folds}, but only {format_count(len(units), 'group')} of images may be parted"
        raise DataError(what, where=str(catalog.root), hint="groups and near-copies stay together; use fewer folds")
    made = assign_folds(units, folds)
    if rule.task not in ("multi_label", "regression"):
        _require_spread(units, made, str(catalog.root), key)
    return units, made


def assign_folds(units: Sequence[Unit], folds: int) -> list[int]:
    """Return the fold of each unit, so that the folds have about as many images of each class as each other.

    The largest units come first, those of one size in the order of their draws; each goes where there are fewest of
    its classes, the rare ones weighing more, and of such folds into the smallest. (The greedy rule of scikit-learn's
    StratifiedGroupKFold, for images with any number of labels.)
    """
    totals: Counter[str] = Counter()
    for unit in units:
        totals.update(unit.labels)
    counts: list[Counter[str]] = [Counter() for _ in range(folds)]
    sizes = [0] * folds
    made = [0] * len(units)
    for index in sorted(range(len(units)), key=lambda at: (-len(units[at].members), units[at].draw)):
        labels = units[index].labels

        def crowd(fold: int, labels: Iterable[tuple[str, int]] = tuple(labels.items())) -> tuple[float, int]:
            return sum(count * counts[fold][label] / totals[label] for label, count in labels), sizes[fold]

        best = min(range(folds), key=crowd)
        made[index] = best
        counts[best].update(labels)
        sizes[best] += len(units[index].members)
    return made


def _pool(catalog: Catalog, audit: Audit, splits: Splits) -> list[int]:
    """Return the positions of the images that the run learns from or is selected by."""
    learned = {(record.path, record.label) for record in (*splits.train, *splits.val)}
    return [
        index
        for index, record in enumerate(catalog.records)
        if record.split != "test" and (record.path, record.label) in learned and audit.facts[index].error is None
    ]


def _require_spread(units: Sequence[Unit], made: Sequence[int], where: str, key: str) -> None:
    """Make sure that every fold leaves some images of every class to learn from."""
    found: dict[str, set[int]] = {}
    for unit, fold in zip(units, made, strict=True):
        for label in unit.labels:
            found.setdefault(label, set()).add(fold)
    for label, folds in sorted(found.items()):
        if len(folds) < 2:
            what = f"the class {label!r} can't be cross-validated: all its images are in one group"
            raise DataError(what, where=where, hint=f"add some, or leave {key} out")


def _fold(
    catalog: Catalog, splits: Splits, units: Sequence[Unit], made: Sequence[int], fold: int, share: float, seed: int
) -> Splits:
    rest = [
        # A place of its own in every fold, and another one than in the run's own split.
        Unit(unit.members, unit.labels, compute_draw(seed, f"fold {fold} {unit.draw}"))
        for unit, own in zip(units, made, strict=True)
        if own != fold
    ]
    sides = (
        assign(rest, {"val": share}, "stratified", where=str(catalog.root), sparse=True)
        if share
        else ["train"] * len(rest)
    )
    out = [unit for unit, own in zip(units, made, strict=True) if own == fold]
    return Splits(
        splits.root,
        splits.class_names,
        _records(catalog, [unit for unit, side in zip(rest, sides, strict=True) if side == "train"], "train"),
        _records(catalog, [unit for unit, side in zip(rest, sides, strict=True) if side == "val"], "val"),
        _records(catalog, out, "test"),
        (f"fold {fold + 1} of cross-validation: its test images are left out of training in turn",),
        splits.rule,
    )


def _records(catalog: Catalog, units: Iterable[Unit], side: str) -> tuple[Record, ...]:
    """Return the images of some units in the catalog's order."""
    found = [catalog.records[index] for index in sorted(index for unit in units for index in unit.members)]
    return tuple(Record(record.path, record.label, side, record.group, record.slices) for record in found)
