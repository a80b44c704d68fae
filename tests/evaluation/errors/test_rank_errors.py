import json

import numpy as np
import pytest

from imagetune.evaluation.errors.mistakes import find_mistakes
from imagetune.evaluation.errors.rank_errors import analyse_rank_errors

SIZES = ("tiny", "small", "large")


def run_of(examined, labels, predictions, groups=None):
    outputs = np.eye(3)[predictions] * 0.8 + 0.2 / 3
    return examined(
        {"test": [SIZES[label] for label in labels]},
        {"test": np.zeros((len(labels), 2))},
        {"test": outputs},
        task="ordinal",
        classes=SIZES,
        groups=None if groups is None else {"test": groups},
    )


def test_distances_worked_by_hand(examined):
    labels, predictions = [0, 0, 0, 1, 1, 1, 2, 2], [0, 1, 2, 1, 1, 2, 2, 1]
    part = analyse_rank_errors(run_of(examined, labels, predictions))
    json.dumps(part, allow_nan=False)
    assert {row["off"]: row["images"] for row in part["distances"]} == {-2: 0, -1: 1, 0: 4, 1: 2, 2: 1}
    assert sum(row["share"]["value"] for row in part["distances"]) == pytest.approx(1)
    assert part["bias"]["value"] == pytest.approx((1 + 2 + 1 - 1) / 8)
    assert part["too_high"]["value"] == pytest.approx(3 / 8)
    assert part["too_low"]["value"] == pytest.approx(1 / 8)
    assert [row["error"]["value"] for row in part["classes"]] == pytest.approx([1.0, 1 / 3, 0.5])
    assert [row["bias"]["value"] for row in part["classes"]] == pytest.approx([1.0, 1 / 3, -0.5])
    assert part["text"].startswith("50.0% of the predictions are right, 37.5% are one rank off, 12.5% are further off.")


def test_predictions_that_are_too_high_are_reported(examined):
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 120)
    part = analyse_rank_errors(run_of(examined, labels, labels + (random.random(120) < 0.3)))
    assert part["bias"]["low"] > 0
    assert "too high" in part["text"]
    # A class without images, and one that is always right, claim nothing.
    assert part["classes"][2]["error"]["value"] is None
    right = analyse_rank_errors(run_of(examined, labels, labels))
    assert (right["bias"]["value"], right["bias"]["low"]) == (0.0, None)
    assert right["bias"]["reason"]
    assert "100.0% of the predictions are right" in right["text"]


def test_groups_widen_the_intervals(examined):
    random = np.random.default_rng(1)
    wrong = np.repeat(random.random(20) < 0.4, 8)
    labels = np.zeros(160, int)
    alone = analyse_rank_errors(run_of(examined, labels, wrong.astype(int)))
    grouped = analyse_rank_errors(
        run_of(examined, labels, wrong.astype(int), [f"g{place // 8}" for place in range(160)])
    )
    widths = [part["bias"]["high"] - part["bias"]["low"] for part in (alone, grouped)]
    assert widths[1] > 1.8 * widths[0]


def test_classes_without_an_order_have_none(examined):
    run = examined({"test": ["a", "b"]}, {"test": np.zeros((2, 2))}, {"test": np.eye(2)}, classes=("a", "b"))
    assert analyse_rank_errors(run) is None


def test_the_mistake_that_is_most_ranks_off_comes_first(examined):
    run = run_of(examined, [0, 0, 1, 2], [1, 2, 2, 2])
    split = run.splits["test"].predictions
    split.probabilities[0] = [0.0, 1.0, 0.0]  # the surest, but one rank off
    assert find_mistakes(split).tolist() == [1, 0, 2]
