import json

import numpy as np
import pytest
from scipy.stats import fisher_exact

from imagetune.core.multiple_testing import adjust_p_values
from imagetune.evaluation.errors.label_confusions import (
    analyse_label_confusions,
    compare_label_pairs,
    describe_confusion,
)

NAMES = ("boat", "sea", "sky")


def drawn(n, *, seed, k=3):
    """Return labels that occur together by chance, and predictions that are wrong by chance."""
    random = np.random.default_rng(seed)
    true = random.random((n, k)) < 0.5
    return true, true ^ (random.random((n, k)) < 0.15)


def found(rows, kind, label, other):
    return next(row for row in rows if (row["kind"], row["label"], row["other"]) == (kind, label, other))


def test_each_pair_is_fishers_exact_test_of_its_table():
    true, given = drawn(150, seed=0)
    rows = compare_label_pairs(true, given, NAMES, 0.95)
    assert len(rows) == 3 * 6
    boat, sea = 0, 1
    there, wrong = true[:, sea], given[:, boat] & ~true[:, boat]
    among = ~true[:, boat]
    cases = {"given": (there, wrong, among)}
    cases["missed"] = (there, true[:, boat] & ~given[:, boat], true[:, boat])
    cases["swapped"] = (~given[:, sea], wrong, among & true[:, sea])
    for kind, (inside, event, rows_among) in cases.items():
        table = [
            [int((event & side & rows_among).sum()), int((~event & side & rows_among).sum())]
            for side in (inside, ~inside)
        ]
        row = found(rows, kind, "boat", "sea")
        assert row["p"] == pytest.approx(fisher_exact(table, alternative="greater").pvalue)
        assert (row["wrong"], row["images"], row["rest_images"]) == (table[0][0], sum(table[0]), sum(table[1]))
        assert row["rest"]["value"] == pytest.approx(table[1][0] / sum(table[1]))
    assert [row["p_holm"] for row in rows] == pytest.approx(adjust_p_values([row["p"] for row in rows]))


def test_a_planted_confusion_is_reported_first(examined):
    random = np.random.default_rng(1)
    true = random.random((200, 3)) < 0.5
    given = true.copy()
    given[:, 0] |= true[:, 1] & (random.random(200) < 0.6)  # a boat wherever there is sea
    labels = [";".join(name for name, has in zip(NAMES, row, strict=True) if has) for row in true]
    run = examined(
        {"test": labels},
        {"test": np.zeros((200, 2))},
        {"test": np.where(given, 0.9, 0.1)},
        task="multi_label",
        classes=NAMES,
    )
    part = analyse_label_confusions(run)
    json.dumps(part, allow_nan=False)
    first = part["pairs"][0]
    assert describe_confusion(first) == "boat wrongly predicted where sea is present"
    assert first["more"]
    assert [row["more"] for row in part["pairs"][1:]] == [False] * (len(part["pairs"]) - 1)
    assert describe_confusion(first) in part["text"]
    assert describe_confusion({**first, "kind": "missed"}) == "boat missed where sea is present"
    assert describe_confusion({**first, "kind": "swapped"}) == "boat wrongly predicted where sea is missed"


def test_mistakes_by_chance_are_seldom_reported():
    """Over 200 sets of 18 tables each, some pair is told in at most 5% (Holm), within what chance allows."""
    told_sets = [
        any(row["more"] for row in compare_label_pairs(*drawn(150, seed=seed), NAMES, 0.95)) for seed in range(200)
    ]
    assert sum(told_sets) <= 17


def test_swapped_labels_are_reported_as_such():
    random = np.random.default_rng(2)
    true = random.random((300, 3)) < 0.5
    given = true.copy()
    swap = true[:, 1] & ~true[:, 0] & (random.random(300) < 0.4)
    given[swap, 1], given[swap, 0] = False, True
    row = found(compare_label_pairs(true, given, NAMES, 0.95), "swapped", "boat", "sea")
    assert row["more"]
    assert row["share"]["value"] == 1.0
    assert row["rest"]["value"] == 0.0


def test_other_tasks_and_labels_without_mistakes_have_none(examined):
    run = examined({"test": ["a", "b"]}, {"test": np.zeros((2, 2))}, {"test": np.eye(2)}, classes=("a", "b"))
    assert analyse_label_confusions(run) is None
    true, _ = drawn(100, seed=3)
    assert compare_label_pairs(true, true, NAMES, 0.95) == []


def test_many_labels_are_looked_at_by_their_images_and_quickly():
    true, given = drawn(400, seed=4, k=60)
    rows = compare_label_pairs(true, given, tuple(f"label {index}" for index in range(60)), 0.95)
    assert len(rows) == 300
