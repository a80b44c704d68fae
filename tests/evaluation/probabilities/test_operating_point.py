import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from imagetune.data.sources.labels import LabelRule
from imagetune.evaluation.predictions import build_predictions
from imagetune.evaluation.probabilities.decision_rules import list_operating_thresholds, predict_at_operating_point
from imagetune.evaluation.probabilities.operating_point import choose_threshold, describe_operating_point
from imagetune.model.decision_rules import OperatingPoint
from imagetune.recipe.sections.evaluate import OperatingPointConfig

CLASSES = ("ant", "bee", "cat")


def drawn(n, seed, *, task="single_label"):
    random = np.random.default_rng(seed)
    probabilities = np.round(random.dirichlet([0.7, 0.7, 0.7], n), 3)
    labels = [CLASSES[index] for index in (random.random((n, 1)) > np.cumsum(probabilities, axis=1)[:, :2]).sum(axis=1)]
    return build_predictions(
        [f"{place}.png" for place in range(n)], labels, probabilities, CLASSES, rule=LabelRule(task)
    )


def columns(splits):
    labels = {name: [true for true, _ in split.texts()] for name, split in splits.items()}
    features = {name: np.zeros((len(split.paths), 2)) for name, split in splits.items()}
    return labels, features, {name: split.probabilities for name, split in splits.items()}


def config(**goal):
    return OperatingPointConfig(positive="bee", **goal)


def every_threshold(predictions):
    """Return recall, precision and the share of false alarms at each of many thresholds."""
    true, scores = predictions.labels == 1, predictions.probabilities[:, 1]
    taken = [cut for limit in np.arange(0.0005, 1, 0.001) if (cut := scores >= limit).any()]
    return np.array([(cut[true].mean(), true[cut].mean(), cut[~true].mean()) for cut in taken]).T


def taken_by(threshold, predictions):
    """Return what is of the class, and what a threshold takes for it."""
    return predictions.labels == 1, predictions.probabilities[:, 1] >= threshold


def test_the_threshold_has_the_best_f1_of_all():
    predictions = drawn(150, 1)
    threshold, _ = choose_threshold(predictions, config())
    recall, precision, _ = every_threshold(predictions)
    best = np.max(2 * recall * precision / np.maximum(recall + precision, 1e-12))
    assert f1_score(*taken_by(threshold, predictions)) == pytest.approx(best)


def test_the_threshold_has_the_best_youden_index_of_all():
    predictions = drawn(150, 2)
    threshold, _ = choose_threshold(predictions, config(maximise="youden"))
    recall, _, false_alarms = every_threshold(predictions)
    true, taken = taken_by(threshold, predictions)
    assert taken[true].mean() - taken[~true].mean() == pytest.approx(np.max(recall - false_alarms))


@pytest.mark.parametrize("least", [0.5, 0.8, 0.95, 1.0])
def test_a_min_recall_is_kept_with_the_highest_precision(least):
    predictions = drawn(150, 3)
    threshold, _ = choose_threshold(predictions, config(min_recall=least))
    recall, precision, _ = every_threshold(predictions)
    found = taken_by(threshold, predictions)
    assert recall_score(*found) >= least
    assert precision_score(*found) == pytest.approx(precision[recall >= least].max())


def test_a_min_precision_is_kept_with_the_highest_recall():
    predictions = drawn(150, 4)
    threshold, _ = choose_threshold(predictions, config(min_precision=0.8))
    recall, precision, _ = every_threshold(predictions)
    found = taken_by(threshold, predictions)
    assert precision_score(*found) >= 0.8
    assert recall_score(*found) == pytest.approx(recall[precision >= 0.8].max())


def test_what_cannot_be_reached_is_said():
    outputs = np.array([[0.1, 0.9, 0.0], [0.2, 0.8, 0.0], [0.9, 0.1, 0.0]])
    predictions = build_predictions(["a", "b", "c"], ["ant", "bee", "cat"], outputs, CLASSES, rule=LabelRule())
    threshold, reason = choose_threshold(predictions, config(min_precision=0.9))
    assert threshold is None
    assert reason == "no threshold reaches a precision of 90% on validation; the highest is 50.0%"
    absent = build_predictions(["a"], ["ant"], outputs[:1], CLASSES, rule=LabelRule())
    assert choose_threshold(absent, config()) == (None, "validation has no images of bee")


def test_predictions_change_only_about_the_class_that_matters():
    outputs = np.array([[0.5, 0.3, 0.2], [0.3, 0.45, 0.25], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]])
    predictions = build_predictions(list("abcd"), ["ant"] * 4, outputs, CLASSES, rule=LabelRule())
    low = OperatingPoint(positive="bee", threshold=0.25)
    assert predict_at_operating_point(predictions, low).tolist() == [1, 1, 2, 1]
    high = OperatingPoint(positive="bee", threshold=0.7)
    assert predict_at_operating_point(predictions, high).tolist() == [0, 0, 2, 1]
    assert list_operating_thresholds(predictions, low) == (0.5, 0.25, 0.5)


def test_the_analysis_has_the_metrics_of_the_threshold_on_the_test(examined):
    splits = {"val": drawn(150, 5), "test": drawn(200, 6)}
    goal = ", operating_point: {positive: bee, min_recall: 0.9}"
    document = describe_operating_point(examined(*columns(splits), classes=CLASSES, evaluate=goal))
    assert document["goal"] == "the highest precision with a recall of at least 90%"
    assert document["splits"]["val"]["at_threshold"]["recall"]["value"] >= 0.9
    tested = splits["test"]
    predictions = predict_at_operating_point(tested, OperatingPoint(positive="bee", threshold=document["threshold"]))
    metrics = document["splits"]["test"]["at_threshold"]
    true = tested.labels == 1
    assert metrics["recall"]["value"] == pytest.approx(recall_score(true, predictions == 1))
    assert metrics["precision"]["value"] == pytest.approx(precision_score(true, predictions == 1))
    assert metrics["accuracy"]["value"] == pytest.approx((predictions == tested.labels).mean())
    assert metrics["found"] + metrics["missed"] == true.sum()
    plain = document["splits"]["test"]["as_predicted"]
    assert plain["recall"]["value"] == pytest.approx(recall_score(true, tested.predicted == 1))
    json.dumps(document, allow_nan=False)


def test_it_is_chosen_without_the_test(examined):
    goal = ", operating_point: {positive: bee}"
    val, test = drawn(150, 5), drawn(200, 6)
    labels, features, outputs = columns({"val": val, "test": test})
    found = [describe_operating_point(examined(labels, features, outputs, classes=CLASSES, evaluate=goal))]
    labels["test"] = list(np.random.default_rng(0).permutation(labels["test"]))
    found.append(describe_operating_point(examined(labels, features, outputs, classes=CLASSES, evaluate=goal)))
    assert found[0]["threshold"] == found[1]["threshold"]
    assert found[0]["splits"]["test"] != found[1]["splits"]["test"]


def test_a_label_that_matters_gets_its_own_threshold(examined):
    random = np.random.default_rng(9)
    labels, features, outputs = {}, {}, {}
    for name in ("val", "test"):
        outputs[name] = random.random((80, 3))
        true = random.random((80, 3)) < outputs[name]
        labels[name] = [";".join(np.array(CLASSES)[row]) for row in true]
        features[name] = np.zeros((80, 2))
    goal = ", operating_point: {positive: bee, min_recall: 0.95}"
    run = examined(labels, features, outputs, classes=CLASSES, task="multi_label", evaluate=goal)
    document = describe_operating_point(run)
    own = np.array(["bee" in label.split(";") for label in labels["test"]])
    taken = outputs["test"][:, 1] >= document["threshold"]
    metrics = document["splits"]["test"]
    assert metrics["at_threshold"]["recall"]["value"] == pytest.approx(taken[own].mean())
    assert metrics["as_predicted"]["recall"]["value"] == pytest.approx((outputs["test"][own, 1] >= 0.5).mean())


def test_without_the_setting_there_is_none(examined):
    splits = {"val": drawn(50, 5), "test": drawn(50, 6)}
    assert describe_operating_point(examined(*columns(splits), classes=CLASSES)) is None
