import json

import numpy as np
import pytest
from scipy.special import softmax

from imagetune.evaluation.probabilities.costs import describe_costs
from imagetune.evaluation.probabilities.decision_rules import predict_min_cost

CLASSES = ("ant", "bee", "cat")


def splits_of(sharpness=1.0):
    parts = {}
    for name, n, seed in (("val", 200, 1), ("test", 300, 2)):
        random = np.random.default_rng(seed)
        logits = random.normal(size=(n, 3)) * 1.2
        chosen = (random.random((n, 1)) > np.cumsum(softmax(logits, axis=1), axis=1)).sum(axis=1)
        parts[name] = ([CLASSES[index] for index in chosen], np.zeros((n, 2)), softmax(sharpness * logits, axis=1))
    return tuple({name: part[place] for name, part in parts.items()} for place in range(3))


def test_equal_costs_are_the_likeliest_prediction():
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], 100)
    predictions = predict_min_cost(probabilities, 1 - np.eye(3))
    np.testing.assert_array_equal(predictions, probabilities.argmax(axis=1))


def test_two_classes_have_the_threshold_of_elkan():
    # Elkan 2001, equation 2: from (c10 - c00) / (c10 - c00 + c01 - c11) on; missing the second class costs 9.
    positive = np.array([0.05, 0.09, 0.11, 0.5])
    costs = np.array([[0.0, 1.0], [9.0, 0.0]])
    predictions = predict_min_cost(np.stack([1 - positive, positive], axis=1), costs)
    assert predictions.tolist() == [0, 0, 1, 1]


def test_no_other_prediction_is_expected_to_cost_less():
    random = np.random.default_rng(3)
    probabilities, costs = random.dirichlet([1, 1, 1], 50), random.random((3, 3))
    predictions = predict_min_cost(probabilities, costs)
    for row, prediction in zip(probabilities, predictions, strict=True):
        expected = [sum(row[true] * costs[true, given] for true in range(3)) for given in range(3)]
        assert expected[prediction] == pytest.approx(min(expected))


def test_costs_are_paid_on_the_test(examined):
    run = examined(*splits_of(), classes=CLASSES, evaluate=", costs: [[0, 10, 10], [1, 0, 1], [1, 1, 0]]")
    part = describe_costs(run)
    tested = run.splits["test"].predictions
    costs = np.array(part["costs"])
    paid = costs[tested.labels, tested.predicted]
    assert part["as_predicted"]["cost"]["value"] == pytest.approx(paid.mean())
    assert part["saved"]["value"] == pytest.approx(paid.mean() - part["min_cost"]["cost"]["value"])
    assert part["saved"]["low"] > 0
    assert part["changed"] > 0
    assert part["classes"][0]["min_cost"] < part["classes"][0]["as_predicted"]
    # The probabilities are right here, so that what they promise is what is paid.
    assert part["min_cost"]["expected"] == pytest.approx(part["min_cost"]["cost"]["value"], rel=0.2)
    json.dumps(part, allow_nan=False)


def test_overconfident_probabilities_are_calibrated_first(examined):
    costs = ", costs: [[0, 10, 10], [1, 0, 1], [1, 1, 0]]"
    right = describe_costs(examined(*splits_of(), classes=CLASSES, evaluate=costs))
    sure = describe_costs(examined(*splits_of(sharpness=3.0), classes=CLASSES, evaluate=costs))
    assert sure["temperature"] == pytest.approx(3 * right["temperature"], rel=1e-3)
    assert sure["min_cost"]["cost"]["value"] == pytest.approx(right["min_cost"]["cost"]["value"], rel=1e-6)


def test_without_costs_there_is_no_analysis(examined):
    assert describe_costs(examined(*splits_of(), classes=CLASSES)) is None
