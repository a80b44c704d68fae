"""The part ``label_confusions``: which labels lead to wrong predictions about which others, where images have several.

Three things go wrong with pairs of labels: one is given because the other is there (they often come together), one is
overlooked because the other is there, or one is given in the place of the other. Each pair is a table of two by two
images, tested by Fisher's exact test, one-sided; p-values are corrected by Holm's method over all that were looked
at, and which are looked at depends on the tables' margins only, never on what is tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from imagetune.core.multiple_testing import adjust_p_values
from imagetune.evaluation.context import Examined
from imagetune.evaluation.errors.slices import LEVEL, MIN, slice_notes
from imagetune.evaluation.probabilities.confidence import known_split, tested_split
from imagetune.evaluation.statistics.intervals import group_codes, share_estimate

Kind = Literal["given", "missed", "swapped"]
# So many pairs are looked at, those with the most images; so many are told.
MAX_PAIRS = 300
MAX_LISTED = 50

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


def label_confusions_part(run: Examined) -> dict[str, Any] | None:
    """Return which labels are confused together; None for other tasks, or without a pair that could tell.

    The document::

        {"split": "test", "images": 85, "looked_at": 120,
         "pairs": [{"kind": "given" | "missed" | "swapped", "label": "boat", "other": "sea",
                    "images": 20, "wrong": 9, "share": {"value", "low", "high"},       where the other one is there
                    "rest_images": 40, "rest": {...},                                  where it isn't
                    "p", "p_holm", "more": true}],
         "text": "...", "notes": ["..."]}

    ``given``: the label is wrongly given, among images without it, where ``other`` is true. ``missed``: the label is
    missed, among images with it, where ``other`` is true. ``swapped``: the label is wrongly given, among images
    without it and with ``other``, where ``other`` is missed; the rest are those where it is found. ``more``: more often
    than elsewhere, by more than chance.
    """
    name = tested_split(run)
    split = known_split(run, name)
    if run.data.task != "multi_label" or split is None:
        return None
    predictions = split.predictions
    rows = pair_rows(predictions.targets >= 0.5, predictions.given, predictions.class_names, run.evaluate.confidence)
    if not rows:
        return None
    grouped = group_codes([record.group for record in split.records]) is not None
    return {
        "split": name,
        "images": len(predictions.paths),
        "looked_at": len(rows),
        "pairs": rows[:MAX_LISTED],
        "text": _text(rows),
        "notes": slice_notes(grouped=grouped),
    }


def pair_rows(true: Bools, given: Bools, names: tuple[str, ...], confidence: float) -> list[dict[str, Any]]:
    """Return the pairs that were looked at, the most certain first; see `label_confusions_part`.

    Args:
        true: (n, k) the labels.
        given: (n, k) the predictions.
        names: The k labels.
        confidence: Coverage of the intervals of shares.
    """
    tables = {kind: _table(kind, true, given) for kind in ("given", "missed", "swapped")}
    chosen = [(kind, *pair) for kind, table in tables.items() for pair in _large_enough(table)]
    chosen.sort(key=lambda key: -int(tables[key[0]][:2, key[1], key[2]].min()))
    rows = [
        _row(kind, (names[label], names[other]), tables[kind][:, other, label], confidence)
        for kind, other, label in chosen[:MAX_PAIRS]
    ]
    for row, p in zip(rows, adjust_p_values([row["p"] for row in rows]), strict=True):
        row |= {"p_holm": p, "more": p < LEVEL}
    return sorted(rows, key=lambda row: row["p"])


def _table(kind: str, true: Bools, given: Bools) -> Ints:
    """Return (4, k, k): images with and without the other label, and wrong ones among both; rows are the other."""
    there, absent = (true, ~true) if kind != "swapped" else (true & ~given, true & given)
    among, wrong = (true, true & ~given) if kind == "missed" else (~true, given & ~true)
    counted = [one.T.astype(np.int64) @ two for one in (there, absent) for two in (among, wrong)]
    return np.stack([counted[0], counted[2], counted[1], counted[3]])


def _large_enough(table: Ints) -> list[tuple[int, int]]:
    """Return the pairs (other, label) that have images on both sides, and mistakes."""
    inside, outside, wrong, elsewhere = table
    enough = (inside >= MIN) & (outside >= MIN) & (wrong + elsewhere > 1)
    np.fill_diagonal(enough, val=False)
    return [(int(other), int(label)) for other, label in np.argwhere(enough)]


def _row(kind: str, names: tuple[str, str], counts: Ints, confidence: float) -> dict[str, Any]:
    inside, outside, wrong, elsewhere = counts.tolist()
    return {
        "kind": kind,
        "label": names[0],
        "other": names[1],
        "images": inside,
        "wrong": wrong,
        "share": share_estimate(wrong, inside, confidence).to_dict(),
        "rest_images": outside,
        "rest": share_estimate(elsewhere, outside, confidence).to_dict(),
        "p": float(min(1.0, hypergeom.sf(wrong - 1, inside + outside, wrong + elsewhere, inside))),
    }


def told(row: Mapping[str, Any]) -> str:
    """Return in words what happens where."""
    what = "missed" if row["kind"] == "missed" else "wrongly given"
    return f"{row['label']} {what} where {row['other']} is {'missed' if row['kind'] == 'swapped' else 'there'}"


def _text(rows: list[dict[str, Any]]) -> str:
    more = [row for row in rows if row["more"]]
    if not more:
        return f"None of {len(rows)} pairs of labels goes wrong together by more than chance."
    first = more[0]
    shares = f"{first['share']['value']:.1%} of {first['images']} images, elsewhere {first['rest']['value']:.1%}"
    count = f"{len(more)} of {len(rows)} pairs of labels {'goes' if len(more) == 1 else 'go'} wrong together"
    return f"{count} by more than chance. The most certain one: {told(first)} ({shares})."
