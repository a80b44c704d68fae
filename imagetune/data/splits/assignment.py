"""Assignment of units to splits, by hash or stratified. A unit is a group, a near-duplicate group, or an image."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from imagetune.core.text import format_count
from imagetune.errors import DataError

ORDER = ("test", "val", "train")
# A class is unevenly split where it has so many times more or fewer images than its share, and more than one more.
_UNEVEN_RATIO = 1.5
_UNEVEN_IMAGES = 1.5


@dataclass(frozen=True, slots=True)
class Unit:
    """Images that a split must not part.

    Attributes:
        members: The positions of the images.
        labels: The number of images of each class; units may share the mapping.
        draw: Pseudorandom number in [0, 1), from the seed and the unit's key alone.
    """

    members: tuple[int, ...]
    labels: Mapping[str, int]
    draw: float


def compute_draw(seed: int, key: str) -> float:
    """Return a pseudorandom number in [0, 1), uniform over keys: the first 53 bits of a SHA-256."""
    # The zero byte keeps seed 1 with the key "2x" apart from seed 12 with the key "x".
    digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
    # A float holds 53 bits exactly; all 64 could round up to 1, which no split's range contains.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def assign_splits(
    units: Sequence[Unit],
    shares: Mapping[str, float],
    method: Literal["hash", "stratified"],
    *,
    where: str,
    sparse: bool = False,
) -> list[str]:
    """Return the split of each unit: ``train``, ``val`` or ``test``.

    Args:
        units: The units to split.
        shares: Shares of ``test`` and ``val``; the rest is for training. A split with share zero is not made.
        method: ``hash`` uses each unit's draw alone; ``stratified`` fills each class's share in the order of draws.
        where: The source, for error messages.
        sparse: Whether a class may be missing from validation and test, as one of many labels may; each class is still
            in training where possible.

    Raises:
        DataError: A class has fewer units than there are splits, or a split gets no unit at all.
    """
    wanted = [split for split in ORDER if split == "train" or shares.get(split, 0.0) > 0]
    if not sparse:
        _require_enough(units, wanted, where)
    made = _assign_by_draw(units, shares) if method == "hash" else _assign_by_share(units, shares)
    _ensure_every_class(units, made, wanted, shares, where, sparse=sparse)
    if absent := [split for split in wanted if split not in made]:
        what = f"too few images to split: none of {sum(len(unit.members) for unit in units)} is left for {absent[0]}"
        raise DataError(what, where=where, hint="add images, or raise data.split.val and data.split.test")
    return made


def describe_unevenness(
    units: Sequence[Unit], made: Sequence[str], shares: Mapping[str, float], method: Literal["hash", "stratified"]
) -> str:
    """Return which class has fewer or more images in validation or test than its share, and what to do; "" if none.

    Args:
        units: The units that were split.
        made: The split of each.
        shares: The shares that were asked for.
        method: How they were split.
    """
    totals, found = Counter[str](), dict[str, Counter[str]]({split: Counter() for split in ORDER})
    for unit, split in zip(units, made, strict=True):
        totals.update(unit.labels)
        found[split].update(unit.labels)
    wanted = {(split, label): share * totals[label] for split, share in shares.items() if share for label in totals}
    ratios = {key: _compute_ratio(found[key[0]][key[1]], expected) for key, expected in wanted.items()}
    uneven = {label: ratio for (_, label), ratio in sorted(ratios.items(), key=lambda item: item[1]) if ratio > 1.0}
    if not uneven:
        return ""
    worst = max(sorted(uneven), key=uneven.__getitem__)
    parts = [
        f"{found[split][worst]} in {split} instead of {wanted[split, worst]:.0f}"
        for split in shares
        if ratios.get((split, worst), 1.0) > 1.0
    ]
    others = f", and so are {format_count(len(uneven) - 1, 'other class', 'other classes')}" if len(uneven) > 1 else ""
    way = "data.split.method: stratified keeps the shares of each class, but adding images then moves others"
    if method == "stratified":
        way = "groups and near-duplicates stay together; add images, or give splits in a table"
    return f"{worst!r} is unevenly split: of {totals[worst]} images {' and '.join(parts)}{others}; {way}"


def _compute_ratio(found: int, expected: float) -> float:
    """Return how many times too large or too small a number of images is; 1 where that is nothing to speak of."""
    ratio = max(found, 1e-9) / expected
    ratio = max(ratio, 1 / ratio)
    return ratio if ratio > _UNEVEN_RATIO and abs(found - expected) > _UNEVEN_IMAGES else 1.0


def _assign_by_draw(units: Sequence[Unit], shares: Mapping[str, float]) -> list[str]:
    test, val = shares.get("test", 0.0), shares.get("val", 0.0)
    return ["test" if unit.draw < test else "val" if unit.draw < test + val else "train" for unit in units]


def _assign_by_share(units: Sequence[Unit], shares: Mapping[str, float]) -> list[str]:
    totals: Counter[str] = Counter()
    for unit in units:
        totals.update(unit.labels)
    room = {
        # At least one, so that a small class is measured as well.
        split: {label: max(1, round(share * total)) for label, total in totals.items()}
        for split in ("test", "val")
        if (share := shares.get(split, 0.0)) > 0
    }
    made = ["train"] * len(units)
    # In the order of draws, so that adding an image shifts few others across the end of a share.
    for index in sorted(range(len(units)), key=lambda at: units[at].draw):
        labels = units[index].labels
        for split, left in room.items():
            # A unit of several classes only goes where there is room for all of them: shares are never exceeded.
            if all(left[label] >= count for label, count in labels.items()):
                made[index] = split
                for label, count in labels.items():
                    left[label] -= count
                break
    return made


def _require_enough(units: Sequence[Unit], wanted: Sequence[str], where: str) -> None:
    counts = Counter(label for unit in units for label in unit.labels)
    images: Counter[str] = Counter()
    for unit in units:
        images.update(unit.labels)
    for label, count in sorted(counts.items()):
        if count < len(wanted):
            raise _build_size_error(label, images[label], count, wanted, where)


def _build_size_error(label: str, images: int, units: int, wanted: Sequence[str], where: str) -> DataError:
    each = ", ".join(reversed(wanted))
    needed = f"at least {len(wanted)} are needed, one for each of {each}"
    if images == units:
        what = f"the class {label!r} has too few images to split: {images}"
        return DataError(what, where=where, hint=f"{needed}; add images, or list other classes in data.classes")
    # Frames of one film are the common case: what they are split by is for their owner to say.
    what = f"the class {label!r} has too few images to split: {images} in {format_count(units, 'unit')}"
    what += " (groups and near-duplicates stay together)"
    hint = f"{needed}; add images, give splits or groups in a table, or set data.audit.near_duplicates: false, which"
    hint += " tests on images nearly the same as those of the training"
    return DataError(what, where=where, hint=hint)


def _ensure_every_class(
    units: Sequence[Unit],
    made: list[str],
    wanted: Sequence[str],
    shares: Mapping[str, float],
    where: str,
    *,
    sparse: bool,
) -> None:
    """Move single units so that each class is in each split, those whose draws are nearest to the new split.

    The draw decides, not the order of the units, so that adding images elsewhere moves as few others as possible.
    """
    counts = Counter((split, label) for split, unit in zip(made, units, strict=True) for label in unit.labels)
    if len(counts) == len(wanted) * len({label for _, label in counts}):
        return
    by_label: dict[str, list[int]] = {}
    for index, unit in enumerate(units):
        for label in unit.labels:
            by_label.setdefault(label, []).append(index)
    for label in sorted(by_label):
        # A label absent from training can't be learned, so training comes first where there are too few for all.
        for split in reversed(wanted) if sparse else wanted:
            if counts[split, label]:
                continue
            spare = [
                index
                for index in by_label[label]
                if all(counts[made[index], other] > 1 for other in units[index].labels)
            ]
            if not spare and sparse and split == "train":
                spare = by_label[label]
            if not spare and sparse:
                continue
            if not spare:
                images = sum(units[index].labels[label] for index in by_label[label])
                raise _build_size_error(label, images, len(by_label[label]), wanted, where)
            moved = min(spare, key=lambda at: (_compute_distance(units[at].draw, split, shares), units[at].draw))
            for other in units[moved].labels:
                counts[made[moved], other] -= 1
                counts[split, other] += 1
            made[moved] = split


def _compute_distance(draw: float, split: str, shares: Mapping[str, float]) -> float:
    test, val = shares.get("test", 0.0), shares.get("val", 0.0)
    low, high = {"test": (0.0, test), "val": (test, test + val), "train": (test + val, 1.0)}[split]
    return max(low - draw, draw - high, 0.0)
