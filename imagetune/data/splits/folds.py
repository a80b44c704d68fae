"""Cross-validation folds over the images of training and validation, stratified and grouped.

Each fold is a `Splits` of its own. To test a run on more images, the held-out part is its test split, and a share of
the rest is for validation, as in the run itself. To choose between trials, the held-out part is its validation split,
and it has no test split. The run's own test split is in no fold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from imagetune.core.text import format_count
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.records import Record
from imagetune.data.splits.assignment import Unit, assign_splits, compute_draw
from imagetune.data.splits.groups import add_duplicate_groups
from imagetune.data.splits.splits import Splits, build_split_units
from imagetune.errors import DataError

if TYPE_CHECKING:
    from imagetune.data.audit.audit import Audit


def build_cross_validation_folds(
    catalog: Catalog, audit: Audit, splits: Splits, *, folds: int, seed: int, key: str = "evaluate.folds"
) -> tuple[Splits, ...]:
    """Return the folds that test a run by cross-validation; groups and near-duplicates stay together.

    Args:
        catalog: The records of all images.
        audit: The audit of the catalog, for unusable images and near-duplicate groups.
        splits: The splits of the run; training and validation are pooled, and their ratio is kept in each fold.
        folds: The number of folds.
        seed: The same seed gives the same folds.
        key: The recipe key that asks for folds, for error messages.

    Raises:
        DataError: There are fewer groups of images than folds, or a class has images in one fold only.
    """
    units, made = _assign_units(catalog, audit, splits, folds=folds, seed=seed, key=key)
    catalog = add_duplicate_groups(catalog, audit)
    # The ratio of the run itself, so that its folds train on as large a share as it did.
    share = len(splits.val) / (len(splits.train) + len(splits.val))
    return tuple(_build_fold(catalog, splits, units, made, fold, share, seed) for fold in range(folds))


def build_selection_folds(
    catalog: Catalog, audit: Audit, splits: Splits, *, folds: int, seed: int
) -> tuple[Splits, ...]:
    """Return the folds that compare trials: each validates on its held-out part and has no test split.

    Args:
        catalog: The records of all images.
        audit: The audit of the catalog, for unusable images and near-duplicate groups.
        splits: The splits of the search; training and validation are pooled, the test split is in no fold.
        folds: The number of folds.
        seed: The same seed gives the same folds.

    Raises:
        DataError: As `build_cross_validation_folds`.
    """
    units, made = _assign_units(catalog, audit, splits, folds=folds, seed=seed, key="search.folds")
    catalog = add_duplicate_groups(catalog, audit)
    found = []
    for fold in range(folds):
        train = _build_records(catalog, [unit for unit, own in zip(units, made, strict=True) if own != fold], "train")
        val = _build_records(catalog, [unit for unit, own in zip(units, made, strict=True) if own == fold], "val")
        note = f"fold {fold + 1} of {folds} of cross-validation, with its own validation images"
        found.append(Splits(splits.root, splits.class_names, train, val, (), (note,), splits.rule))
    return tuple(found)


def _assign_units(
    catalog: Catalog, audit: Audit, splits: Splits, *, folds: int, seed: int, key: str
) -> tuple[list[Unit], list[int]]:
    """Return the units of the images of training and validation, and the fold of each."""
    pool = _select_pool(catalog, audit, splits)
    rule, binned = catalog.rule, catalog.rule.task == "regression"
    units = build_split_units(pool, catalog, audit, rule, seed=seed, binned=binned)
    if len(units) < folds:
        what = f"{key} is {folds}, but only {format_count(len(units), 'group')} of images can be separated"
        raise DataError(what, where=str(catalog.root), hint="groups and near-duplicates stay together; use fewer folds")
    made = assign_folds(units, folds)
    # One of several labels may be too rare for that, and bins of a regression are not classes to learn.
    if rule.task not in ("multi_label", "regression"):
        _require_spread(units, made, str(catalog.root), key)
    return units, made


def assign_folds(units: Sequence[Unit], folds: int) -> list[int]:
    """Return the fold of each unit, so that all folds have about the same number of images of each class.

    The largest units come first, those of one size in the order of their draws. Each goes to the fold with the fewest
    images of its classes, weighted by rarity, and among equals to the smallest. This is the greedy rule of
    scikit-learn's StratifiedGroupKFold, extended to images with any number of labels.
    """
    totals: Counter[str] = Counter()
    for unit in units:
        totals.update(unit.labels)
    counts: list[Counter[str]] = [Counter() for _ in range(folds)]
    sizes = [0] * folds
    made = [0] * len(units)
    for index in sorted(range(len(units)), key=lambda at: (-len(units[at].members), units[at].draw)):
        labels = units[index].labels

        # Labels are bound as a default, because a closure would see those of a later turn of the loop.
        def crowd(fold: int, labels: Iterable[tuple[str, int]] = tuple(labels.items())) -> tuple[float, int]:
            return sum(count * counts[fold][label] / totals[label] for label, count in labels), sizes[fold]

        best = min(range(folds), key=crowd)
        made[index] = best
        counts[best].update(labels)
        sizes[best] += len(units[index].members)
    return made


def _select_pool(catalog: Catalog, audit: Audit, splits: Splits) -> list[int]:
    """Return the positions of the usable images of training and validation."""
    pooled = {(record.path, record.label) for record in (*splits.train, *splits.val)}
    return [
        index
        for index, record in enumerate(catalog.records)
        if record.split != "test" and (record.path, record.label) in pooled and audit.statistics[index].error is None
    ]


def _require_spread(units: Sequence[Unit], made: Sequence[int], where: str, key: str) -> None:
    """Raise an error for a class whose images are all in one fold, which would leave none to train on."""
    found: dict[str, set[int]] = {}
    for unit, fold in zip(units, made, strict=True):
        for label in unit.labels:
            found.setdefault(label, set()).add(fold)
    for label, folds in sorted(found.items()):
        if len(folds) < 2:
            what = f"the class {label!r} can't be cross-validated, because all its images are in one fold"
            raise DataError(what, where=where, hint=f"add images, or remove {key}")


def _build_fold(
    catalog: Catalog, splits: Splits, units: Sequence[Unit], made: Sequence[int], fold: int, share: float, seed: int
) -> Splits:
    rest = [
        # A draw of its own in every fold, so that validation images differ from those of the run's split.
        Unit(unit.members, unit.labels, compute_draw(seed, f"fold {fold} {unit.draw}"))
        for unit, own in zip(units, made, strict=True)
        if own != fold
    ]
    sides = (
        assign_splits(rest, {"val": share}, "stratified", where=str(catalog.root), sparse=True)
        if share
        else ["train"] * len(rest)
    )
    out = [unit for unit, own in zip(units, made, strict=True) if own == fold]
    return Splits(
        splits.root,
        splits.class_names,
        _build_records(catalog, [unit for unit, side in zip(rest, sides, strict=True) if side == "train"], "train"),
        _build_records(catalog, [unit for unit, side in zip(rest, sides, strict=True) if side == "val"], "val"),
        _build_records(catalog, out, "test"),
        (f"fold {fold + 1} of cross-validation, with its own test images",),
        splits.rule,
    )


def _build_records(catalog: Catalog, units: Iterable[Unit], side: str) -> tuple[Record, ...]:
    """Return the records of some units in the catalog's order, with a new split."""
    found = [catalog.records[index] for index in sorted(index for unit in units for index in unit.members)]
    return tuple(Record(record.path, record.label, side, record.group, record.slices) for record in found)
