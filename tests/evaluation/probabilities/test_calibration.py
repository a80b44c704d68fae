import json

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss

from imagetune.evaluation.probabilities.calibration import describe_calibration, fit_validation_temperature
from imagetune.evaluation.probabilities.temperature import apply_temperature

CLASSES = ("ant", "bee", "cat")


def split(n, seed, *, sharpness=1.0, labels=None):
    """Return labels, features and probabilities; a sharpness above 1 makes them too sure."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, 3)) * 1.5
    chosen = (random.random((n, 1)) > np.cumsum(softmax(logits, axis=1), axis=1)).sum(axis=1)
    return labels or [CLASSES[index] for index in chosen], np.zeros((n, 2)), softmax(sharpness * logits, axis=1)


def run_of(examined, parts, **keywords):
    columns = ({name: part[place] for name, part in parts.items()} for place in range(3))
    return examined(*columns, classes=CLASSES, **keywords)


@pytest.fixture
def run(examined):
    parts = {"train": split(80, 1), "val": split(300, 2, sharpness=2.0), "test": split(400, 3, sharpness=2.0)}
    return run_of(examined, parts)


def test_metrics_are_those_of_scikit_learn(run):
    tested = run.splits["test"].predictions
    measures = describe_calibration(run)["splits"]["test"]["before"]
    truth = np.eye(3)[tested.labels]
    briers = [brier_score_loss(truth[:, index], tested.probabilities[:, index]) for index in range(3)]
    assert measures["brier"]["value"] == pytest.approx(sum(briers))
    assert measures["log_loss"]["value"] == pytest.approx(log_loss(tested.labels, tested.probabilities))
    parts = measures["brier_parts"]
    assert parts["reliability"] - parts["resolution"] + parts["uncertainty"] == pytest.approx(sum(briers))
    right = tested.predicted == tested.labels
    assert measures["overconfidence"]["value"] == pytest.approx(tested.probabilities.max(axis=1).mean() - right.mean())
    assert sum(row["predictions"] for row in measures["bins"]) == 400


def test_an_overconfident_model_is_found_and_calibrated(run):
    document = describe_calibration(run)
    assert document["temperature"]["low"] > 1
    assert document["temperature"]["value"] == pytest.approx(2.0, rel=0.25)
    test = document["splits"]["test"]
    assert test["before"]["overconfidence"]["low"] > 0
    assert test["before"]["ece_by_chance"]["p_value"] < 0.01
    assert test["after"]["ece_by_chance"]["p_value"] > 0.05
    assert test["after"]["ece"]["value"] < test["before"]["ece"]["value"]
    assert test["after"]["ece_plain"] < test["before"]["ece_plain"]
    assert test["gain"]["log_loss"]["low"] > 0
    assert test["gain"]["log_loss"]["value"] == pytest.approx(
        test["before"]["log_loss"]["value"] - test["after"]["log_loss"]["value"]
    )
    tested = run.splits["test"].predictions
    warm = apply_temperature(tested.probabilities, document["temperature"]["value"], "single_label")
    assert test["after"]["log_loss"]["value"] == pytest.approx(log_loss(tested.labels, warm))
    json.dumps(document, allow_nan=False)


def test_a_calibrated_model_is_not_accused(examined):
    run = run_of(examined, {"val": split(300, 12), "test": split(400, 13)})
    document = describe_calibration(run)
    assert document["temperature"]["low"] < 1 < document["temperature"]["high"]
    measures = document["splits"]["test"]["before"]
    assert measures["overconfidence"]["low"] < 0 < measures["overconfidence"]["high"]
    assert measures["ece"]["low"] == 0
    assert measures["ece_by_chance"]["p_value"] > 0.05


def test_the_temperature_knows_nothing_of_the_test(examined):
    shuffled = list(np.random.default_rng(0).permutation(split(400, 3)[0]))
    found = []
    for labels in (None, shuffled):
        parts = {"val": split(300, 2, sharpness=2.0), "test": split(400, 3, sharpness=2.0, labels=labels)}
        document = describe_calibration(run_of(examined, parts))
        found.append((document["temperature"], document["splits"]["val"]))
    assert found[0] == found[1]


def test_too_few_validation_images_give_no_temperature(examined):
    document = describe_calibration(run_of(examined, {"val": split(20, 2), "test": split(40, 3)}))
    assert document["temperature"]["value"] is None
    assert "20 validation images are too few" in document["temperature"]["reason"]
    assert document["splits"]["test"]["after"] is None
    assert document["splits"]["test"]["before"]["ece"]["value"] is not None
    none = describe_calibration(run_of(examined, {"test": split(40, 3)}))
    assert "no validation images" in none["temperature"]["reason"]


def test_labels_share_one_temperature(examined):
    parts = {}
    for name, seed in (("val", 5), ("test", 6)):
        random = np.random.default_rng(seed)
        probabilities = random.beta(0.8, 0.8, (1500, 3))
        true = random.random((1500, 3)) < probabilities
        labels = [";".join(label for label, own in zip(CLASSES, row, strict=True) if own) for row in true]
        parts[name] = (labels, np.zeros((1500, 2)), apply_temperature(probabilities, 0.5, "multi_label"))
    document = describe_calibration(run_of(examined, parts, task="multi_label"))
    assert document["temperature"]["value"] == pytest.approx(2.0, rel=0.1)
    test = document["splits"]["test"]
    assert [row["label"] for row in test["before"]["labels"]] == list(CLASSES)
    for before, after in zip(test["before"]["labels"], test["after"]["labels"], strict=True):
        assert after["brier"] < before["brier"]
        assert after["ece"]["value"] < before["ece"]["value"]
    assert test["before"]["brier"]["value"] == pytest.approx(
        np.mean([row["brier"] for row in test["before"]["labels"]])
    )
    json.dumps(document, allow_nan=False)


def test_ordered_classes_are_judged_by_the_prediction_that_they_get(examined):
    run = run_of(examined, {"val": split(200, 2), "test": split(200, 3)}, task="ordinal")
    tested = run.splits["test"].predictions
    claimed = tested.probabilities[np.arange(200), tested.predicted].mean()
    measures = describe_calibration(run)["splits"]["test"]["before"]
    found = sum(row["predictions"] * row["probability"] for row in measures["bins"]) / 200
    assert found == pytest.approx(claimed)
    assert fit_validation_temperature(run).value is not None


def test_numbers_have_no_calibration(examined):
    numbers = {"test": ["1", "2"]}, {"test": np.zeros((2, 2))}, {"test": np.array([[1.0], [2.0]])}
    assert describe_calibration(examined(*numbers, classes=("value",), task="regression")) is None
