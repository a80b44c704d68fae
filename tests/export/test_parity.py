import numpy as np
import pytest

from imagetune.data.sources.labels import LabelRule
from imagetune.evaluation.predictions import build_predictions
from imagetune.export.parity import compare_outputs, compute_paired_interval

NAMES = ("cat", "dog", "owl")


def predictions(images=600, seed=0, task="single_label"):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, images)
    logits = random.normal(size=(images, 3)) + 3 * np.eye(3)[labels]
    outputs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return build_predictions(
        [f"{index}.png" for index in range(images)],
        [NAMES[label] for label in labels],
        outputs,
        NAMES,
        rule=LabelRule(task),
    )


def test_the_same_outputs_are_equal_however_few_the_images():
    reference = predictions(3)
    parity = compare_outputs(reference, reference.probabilities + 1e-4, max_drop=1)
    assert (parity.verdict, parity.reasons, parity.agreement) == ("equal", (), 1.0)


def test_small_changes_need_enough_images_to_be_tolerated():
    few, many = (
        compare_outputs(one, one.probabilities @ (0.91 * np.eye(3) + 0.03), max_drop=1)
        for one in (predictions(60), predictions(2000))
    )
    assert few.verdict == "unproven"
    assert "60 images can't rule out a drop of 6.0 percentage points, and 1 are tolerated" in few.reasons[0]
    assert many.verdict == "non-inferior"
    assert many.low > -0.01


def test_a_class_that_is_lost_is_found_behind_a_good_average():
    reference = predictions(2000)
    outputs = reference.probabilities.copy()
    lost = np.flatnonzero(reference.labels == 2)[:40]
    outputs[lost] = outputs[lost][:, [0, 2, 1]]
    parity = compare_outputs(reference, outputs, max_drop=5)
    assert parity.verdict == "inferior"
    assert "on the images of owl by more than chance" in parity.reasons[0]
    assert [one.name for one in parity.classes if one.p_value < 0.05] == ["owl"]


def test_a_second_softmax_keeps_every_label_and_is_refused():
    reference = predictions(5000)
    outputs = np.exp(reference.probabilities)
    parity = compare_outputs(reference, outputs / outputs.sum(axis=1, keepdims=True), max_drop=1)
    assert parity.agreement == 1.0
    assert parity.verdict == "inferior"
    assert "its probabilities differ by" in parity.reasons[0]


def test_numbers_are_compared_in_standard_deviations():
    random = np.random.default_rng(1)
    true = random.normal(50, 10, 400)
    reference = build_predictions(
        [f"{index}.png" for index in range(400)],
        [f"{one:.6f}" for one in true],
        (true + random.normal(0, 3, 400))[:, None],
        ("age",),
        rule=LabelRule("regression"),
    )
    assert compare_outputs(reference, reference.probabilities + 0.05, max_drop=1).verdict == "equal"
    off = compare_outputs(reference, reference.probabilities + 5, max_drop=1)
    assert (off.verdict, off.agreement) == ("inferior", 0.0)


def test_ranks_and_several_labels_are_compared_by_what_is_predicted():
    ordered = predictions(task="ordinal")
    assert compare_outputs(ordered, ordered.probabilities, max_drop=1).verdict == "equal"
    turned = compare_outputs(ordered, ordered.probabilities[:, ::-1], max_drop=1)
    assert turned.verdict == "inferior"
    random = np.random.default_rng(2)
    several = build_predictions(
        [f"{index}.png" for index in range(300)],
        ["cat;owl"] * 300,
        random.uniform(size=(300, 3)),
        NAMES,
        rule=LabelRule("multi_label"),
    )
    assert compare_outputs(several, 1 - several.probabilities, max_drop=1).verdict == "inferior"


@pytest.mark.parametrize(
    ("both", "only_first", "only_second", "neither", "low", "high"),
    # Newcombe's own examples (1998, table II): his differences are first minus second.
    [(36, 12, 2, 0, 0.0569, 0.3404), (20, 12, 2, 16, 0.0562, 0.3290)],
)
def test_the_paired_interval_is_newcombes(both, only_first, only_second, neither, low, high):
    counts = [both, only_first, only_second, neither]
    before = np.repeat([True, True, False, False], counts)
    after = np.repeat([True, False, True, False], counts)
    difference, lower, upper = compute_paired_interval(before, after, before != after)
    assert difference == pytest.approx((only_second - only_first) / sum(counts))
    assert (-upper, -lower) == (pytest.approx(low, abs=2e-3), pytest.approx(high, abs=2e-3))


def test_the_paired_interval_covers_what_it_says():
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(2000):
        kind = random.choice(4, size=200, p=(0.8, 0.03, 0.01, 0.16))
        before, after = kind <= 1, (kind == 0) | (kind == 2)
        _, low, high = compute_paired_interval(before, after, before != after)
        covered += low <= -0.02 <= high
    assert 0.94 <= covered / 2000 <= 0.995
