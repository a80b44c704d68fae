import numpy as np
import pytest

from imagetune.evaluation.probabilities.confidence import Confidences
from imagetune.evaluation.probabilities.selective import (
    analyse_selective_prediction,
    choose_coverage_thresholds,
    compute_best_aurc,
    compute_risk_coverage_curve,
)

CLASSES = ("ant", "bee", "cat")


def predictions(confidence, right):
    return Confidences(np.array(confidence, float), np.array(right, bool))


def split(n, seed):
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet([0.6, 0.6, 0.6], n)
    labels = [CLASSES[random.choice(3, p=row)] for row in probabilities]
    return labels, np.zeros((n, 2)), probabilities


@pytest.fixture
def run(examined):
    parts = {"train": split(60, 1), "val": split(80, 2), "test": split(120, 3)}
    return examined(*({name: part[place] for name, part in parts.items()} for place in range(3)), classes=CLASSES)


def test_risks_worked_by_hand():
    risks = compute_risk_coverage_curve(predictions([0.9, 0.6, 0.8, 0.7], [True, True, False, True]))
    np.testing.assert_allclose(risks, [0, 1 / 2, 1 / 3, 1 / 4])
    assert risks.mean() == pytest.approx(13 / 48)


def test_ties_count_by_their_expected_risk():
    risks = compute_risk_coverage_curve(predictions([0.9, 0.5, 0.5, 0.5], [True, False, True, True]))
    orders = [[False, True, True], [True, False, True], [True, True, False]]
    sharp = [compute_risk_coverage_curve(predictions([0.9, 0.8, 0.7, 0.6], [True, *order])) for order in orders]
    np.testing.assert_allclose(risks, np.mean(sharp, axis=0))


def test_no_order_is_better_than_mistakes_last():
    right = np.array([True, False, True, True, False])
    best = compute_best_aurc(right)
    assert best == pytest.approx((0 + 0 + 0 + 1 / 4 + 2 / 5) / 5)
    random = np.random.default_rng(0)
    assert all(
        compute_risk_coverage_curve(Confidences(random.random(5), right)).mean() >= best - 1e-12 for _ in range(50)
    )


def test_thresholds_predict_at_least_the_share_on_the_images_they_are_chosen_on():
    confidence = np.random.default_rng(1).choice([0.3, 0.5, 0.7, 0.71, 0.9], 101)
    for share, threshold in choose_coverage_thresholds(confidence).items():
        predicted = (confidence >= threshold).mean()
        assert predicted >= share
        # No higher threshold between two of these predictions would do.
        higher = confidence[confidence >= threshold].min() + 1e-9
        assert (confidence >= higher).mean() < share or share == 1.0


def test_the_analysis_applies_thresholds_of_validation_to_the_test(run):
    part = analyse_selective_prediction(run)
    tested = run.splits["test"].predictions
    confidence, right = tested.probabilities.max(axis=1), tested.predicted == tested.labels
    for point in part["points"]:
        given = confidence >= point["threshold"]
        assert point["predicted"]["value"] == pytest.approx(given.mean())
        assert point["accuracy"]["value"] == pytest.approx(right[given].mean())
        assert point["accuracy"]["low"] <= point["accuracy"]["value"] <= point["accuracy"]["high"]
    assert part["aurc_best"] < part["aurc"]["value"] < part["aurc_random"]
    assert part["aurc"]["low"] < part["aurc"]["value"] < part["aurc"]["high"]
    assert part["curve"][-1] == {"coverage": 1.0, "risk": pytest.approx(1 - right.mean())}
    half = np.sort(np.argsort(-confidence)[:60])
    assert part["points"][3]["ranked"]["value"] == pytest.approx(right[half].mean())


def test_without_validation_there_are_no_thresholds(examined):
    parts = {"train": split(60, 1), "test": split(120, 3)}
    run = examined(*({name: part[place] for name, part in parts.items()} for place in range(3)), classes=CLASSES)
    part = analyse_selective_prediction(run)
    assert {point["threshold"] for point in part["points"]} == {None}
    assert "no validation images" in part["points"][0]["predicted"]["reason"]


def test_groups_widen_the_intervals(examined):
    parts = {name: split(100, seed) for seed, name in enumerate(("val", "test"))}
    # The same image eight times: an eighth of the evidence.
    parts["test"] = tuple(np.repeat(np.array(part)[:12], 8, axis=0) for part in parts["test"])
    columns = [{name: part[place] for name, part in parts.items()} for place in range(3)]
    columns[0] = {name: list(map(str, labels)) for name, labels in columns[0].items()}
    groups = {"val": [None] * 100, "test": [str(place // 8) for place in range(96)]}
    alone = analyse_selective_prediction(examined(*columns, classes=CLASSES))["points"][0]["accuracy"]
    grouped = analyse_selective_prediction(examined(*columns, classes=CLASSES, groups=groups))["points"][0]["accuracy"]
    assert grouped["value"] == alone["value"]
    assert grouped["high"] - grouped["low"] > 2 * (alone["high"] - alone["low"])
