"""Analysis ``label_confusions`` of multi-label predictions: which labels are confused with which others.

Three things go wrong with pairs of labels: one is predicted because the other is present (they often come together),
one is missed because the other is present, or one is predicted in place of the other. Each pair is a two-by-two table
of images, tested by Fisher's exact test, one-sided. p-values are corrected by Holm's method over all tested pairs;
which pairs are tested depends only on the tables' margins, so that the choice doesn't bias the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from imagetune.core.multiple_testing import adjust_p_values
from imagetune.evaluation.context import EvaluationContext
from imagetune.evaluation.errors.slices import LEVEL, MIN, list_slice_notes
from imagetune.evaluation.probabilities.confidence import choose_tested_split, get_known_split
from imagetune.evaluation.statistics.intervals import encode_groups, estimate_share

Kind = Literal["given", "missed", "swapped"]
# Pairs that are tested, those with the most images, and that evaluation.json lists: each further test costs power.
MAX_PAIRS = 300
MAX_LISTED = 50

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


def analyse_label_confusions(run: EvaluationContext) -> dict[str, Any] | None:
    """Return the pairs of labels that are confused with each other; None for other tasks, or with too few images.

    The document::

        {"split": "test", "images": 85, "looked_at": 120,
         "pairs": [{"kind": "given" | "missed" | "swapped", "label": "boat", "other": "sea",
                    "images": 20, "wrong": 9, "share": {"value", "low", "high"},       where the other one is present
                    "rest_images": 40, "rest": {...},                                  where it is absent
                    "p", "p_holm", "more": true}],
         "text": "...", "notes": ["..."]}

    ``given``: the label is wrongly predicted, among images without it, where ``other`` is true. ``missed``: the label
    is missed, among images with it, where ``other`` is true. ``swapped``: the label is wrongly predicted, among images
    without it and with ``other``, where ``other`` is missed; the rest are those where it is found. ``more``: whether it
    goes wrong significantly more often than in the rest.
    """
    name = choose_tested_split(run)
    split = get_known_split(run, name)
    if run.data.task != "multi_label" or split is None:
        return None
    predictions = split.predictions
    rows = compare_label_pairs(
        predictions.targets >= 0.5, predictions.given, predictions.class_names, run.evaluate.confidence
    )
    if not rows:
        return None
    grouped = encode_groups([record.group for record in split.records]) is not None
    return {
        "split": name,
        "images": len(predictions.paths),
        "looked_at": len(rows),
        "pairs": rows[:MAX_LISTED],
        "text": _summarise(rows),
        "notes": list_slice_notes(grouped=grouped),
    }


def compare_label_pairs(true: Bools, given: Bools, names: tuple[str, ...], confidence: float) -> list[dict[str, Any]]:
    """Return the tested pairs of labels, lowest p-value first; see `analyse_label_confusions`.

    Args:
        true: (n, k) which labels are true.
        given: (n, k) which labels are predicted.
        names: Names of the k labels.
        confidence: Coverage of the intervals of shares.
    """
    tables = {kind: _count_table(kind, true, given) for kind in ("given", "missed", "swapped")}
    chosen = [(kind, *pair) for kind, table in tables.items() for pair in _find_testable(table)]
    # By the smaller margin, on which the power of Fisher's test depends most.
    chosen.sort(key=lambda key: -int(tables[key[0]][:2, key[1], key[2]].min()))
    rows = [
        _describe_pair(kind, (names[label], names[other]), tables[kind][:, other, label], confidence)
        for kind, other, label in chosen[:MAX_PAIRS]
    ]
    for row, p in zip(rows, adjust_p_values([row["p"] for row in rows]), strict=True):
        row |= {"p_holm": p, "more": p < LEVEL}
    return sorted(rows, key=lambda row: row["p"])


def _count_table(kind: str, true: Bools, given: Bools) -> Ints:
    """Return counts (4, k, k): images with and without the other label, and the wrong ones of each; rows: the other."""
    there, absent = (true, ~true) if kind != "swapped" else (true & ~given, true & given)
    among, wrong = (true, true & ~given) if kind == "missed" else (~true, given & ~true)
    counted = [one.T.astype(np.int64) @ two for one in (there, absent) for two in (among, wrong)]
    return np.stack([counted[0], counted[2], counted[1], counted[3]])


def _find_testable(table: Ints) -> list[tuple[int, int]]:
    """Return the pairs (other, label) with at least `MIN` images on both sides and at least two mistakes."""
    inside, outside, wrong, elsewhere = table
    enough = (inside >= MIN) & (outside >= MIN) & (wrong + elsewhere > 1)
    # A label isn't confused with itself.
    np.fill_diagonal(enough, val=False)
    return [(int(other), int(label)) for other, label in np.argwhere(enough)]


def _describe_pair(kind: str, names: tuple[str, str], counts: Ints, confidence: float) -> dict[str, Any]:
    inside, outside, wrong, elsewhere = counts.tolist()
    return {
        "kind": kind,
        "label": names[0],
        "other": names[1],
        "images": inside,
        "wrong": wrong,
        "share": estimate_share(wrong, inside, confidence).to_dict(),
        "rest_images": outside,
        "rest": estimate_share(elsewhere, outside, confidence).to_dict(),
        # The upper tail of the hypergeometric distribution is Fisher's one-sided test. sf(x) is the chance of more than
        # x, and the observed number counts, too.
        "p": float(min(1.0, hypergeom.sf(wrong - 1, inside + outside, wrong + elsewhere, inside))),
    }


def describe_confusion(row: Mapping[str, Any]) -> str:
    """Return a confusion in words, such as "boat wrongly predicted where sea is present"."""
    what = "missed" if row["kind"] == "missed" else "wrongly predicted"
    return f"{row['label']} {what} where {row['other']} is {'missed' if row['kind'] == 'swapped' else 'present'}"


def _summarise(rows: list[dict[str, Any]]) -> str:
    more = [row for row in rows if row["more"]]
    if not more:
        return f"None of {len(rows)} tested pairs of labels is confused significantly often."
    first = more[0]
    shares = f"{first['share']['value']:.1%} of {first['images']} images, elsewhere {first['rest']['value']:.1%}"
    count = f"{len(more)} of {len(rows)} tested pairs of labels {'is' if len(more) == 1 else 'are'} confused"
    return f"{count} significantly often. Most significant: {describe_confusion(first)} ({shares})."
