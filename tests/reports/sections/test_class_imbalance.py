from __future__ import annotations

import numpy as np
import pytest

from imagetune.recipe.sections.train import TrainConfig
from imagetune.reports.sections.class_imbalance import compute_class_balance

STAGES = [{"name": "head", "unfreeze": "none", "epochs": 1, "learning_rate": 1e-3}]


def config(**values):
    return TrainConfig.model_validate({"stages": STAGES, **values})


def rows_of(**recalls):
    def metric(value):
        return {"value": value, "low": None, "high": None}

    return [
        {"class": name, "images": 5, "metrics": {"recall": metric(recall), "precision": metric(0.5)}}
        for name, recall in recalls.items()
    ]


COUNTS = {"ant": 10, "bee": 160, "cat": 30}
TESTED = rows_of(ant=0.4, bee=0.9, cat=0.6)


def test_classes_come_by_size_with_their_metrics():
    balance = compute_class_balance(config(), COUNTS, TESTED)
    assert [(row.name, row.images, row.recall["value"]) for row in balance.classes] == [
        ("bee", 160, 0.9),
        ("cat", 30, 0.6),
        ("ant", 10, 0.4),
    ]
    assert [row.effective for row in balance.classes] == pytest.approx([0.8, 0.15, 0.05])
    assert [row.weight for row in balance.classes] == pytest.approx([1, 1, 1])
    assert balance.measures == ()


@pytest.mark.parametrize("measure", [{"class_weights": "balanced"}, {"sampling": "balanced"}])
def test_balanced_measures_give_every_class_the_same_share_of_the_loss(measure):
    balance = compute_class_balance(config(**measure), COUNTS, TESTED)
    assert [row.effective for row in balance.classes] == pytest.approx([1 / 3] * 3)
    (told,) = balance.measures
    assert told.endswith("balanced")


def test_weights_and_sampling_multiply():
    balance = compute_class_balance(config(class_weights={"ant": 4.0}, sampling="square_root"), COUNTS, TESTED)
    roots = np.sqrt([160, 30, 10])
    sampled = roots / roots.sum()
    effective = sampled * [1, 1, 4]
    assert [row.sampled for row in balance.classes] == pytest.approx(sampled)
    assert [row.effective for row in balance.classes] == pytest.approx(effective / effective.sum())
    weights = [row.weight for row in balance.classes]
    assert np.dot(weights, sampled) == pytest.approx(1)
    assert weights[2] / weights[0] == pytest.approx(4)
    assert balance.measures == ("class_weights: by name", "sampling: square_root")


def test_logit_adjustment_shifts_by_the_log_share():
    balance = compute_class_balance(config(loss={"logit_adjustment": 0.5}), COUNTS, TESTED)
    assert [row.shift for row in balance.classes] == pytest.approx(0.5 * np.log([0.8, 0.15, 0.05]))
    assert balance.measures == ("loss.logit_adjustment: 0.5",)


def test_equal_classes_have_no_imbalance_to_report_unless_the_recipe_acts():
    even = {"ant": 40, "bee": 50, "cat": 45}
    assert compute_class_balance(config(), even, TESTED) is None
    assert compute_class_balance(config(sampling="balanced"), even, TESTED) is not None
    assert compute_class_balance(config(), {"ant": 40, "bee": 50}, TESTED) is None


@pytest.mark.parametrize(
    ("recalls", "told"),
    [
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), "Rare classes have significantly lower recall (rank correlation"),
        ((0.6, 0.5, 0.4, 0.3, 0.2, 0.1), "Rare classes have significantly higher recall"),
        ((0.3, 0.6, 0.1, 0.5, 0.2, 0.4), "Rare classes do not have significantly lower recall"),
        ((0.9,) * 6, "All classes have the same recall"),
        ((0.1, 0.2, 0.3, None, 0.4, None), "4 classes are too few"),
    ],
)
def test_the_sentence_follows_the_ranks(recalls, told):
    names = "abcdef"
    counts = {name: 10 * 2**place for place, name in enumerate(names)}
    balance = compute_class_balance(config(), counts, rows_of(**dict(zip(names, recalls, strict=True))))
    assert told in balance.correlation
