import json
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta
from sklearn import metrics as sk

from imagetune.errors import DataError, DivergedError
from imagetune.evaluation.document import build_evaluation_document, list_failed_requirements
from imagetune.evaluation.metrics.classification import HEADLINES, evaluate_predictions
from imagetune.evaluation.predictions import Predictions
from imagetune.recipe.sections.evaluate import EvaluateConfig, Requirement

CONFIG = EvaluateConfig(bootstrap_samples=200)


def evaluate(predictions, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return evaluate_predictions(predictions, config=CONFIG, seed=1, **arguments)


def class_predictions(labels, predicted, names=("a", "b", "c", "d")):
    """Predictions that are quite sure of the given classes."""
    probabilities = np.full((len(labels), len(names)), 0.1)
    probabilities[np.arange(len(labels)), predicted] = 0.7
    paths = tuple(f"{index}.png" for index in range(len(labels)))
    return Predictions(paths, np.array(labels), probabilities, names)


def test_headline_metrics_are_scikit_learns(made_up):
    predictions = made_up(150, 6)
    labels, probabilities, predicted = predictions.labels, predictions.probabilities, predictions.predicted
    metrics = evaluate(predictions).metrics
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "precision": sk.precision_score(labels, predicted, average="macro"),
        "recall": sk.recall_score(labels, predicted, average="macro"),
        "f1": sk.f1_score(labels, predicted, average="macro"),
        "top_k_accuracy": sk.top_k_accuracy_score(labels, probabilities, k=3),
        "log_loss": sk.log_loss(labels, probabilities),
        "roc_auc": sk.roc_auc_score(labels, probabilities, multi_class="ovr"),
    }
    assert tuple(metrics) == HEADLINES
    assert {name: metric.value for name, metric in metrics.items()} == pytest.approx(expected)


def test_every_metric_lies_in_its_interval(made_up):
    for metric in evaluate(made_up(150, 6)).metrics.values():
        assert metric.low < metric.value < metric.high


def test_more_images_make_narrower_intervals(made_up):
    widths = [(metric := evaluate(made_up(count, 4)).metrics["accuracy"]).high - metric.low for count in (50, 200, 800)]
    assert widths == sorted(widths, reverse=True)


def test_neither_the_seed_nor_the_order_of_images_decides_the_intervals(made_up):
    predictions = made_up(60, 3)
    order = np.random.default_rng(0).permutation(60)
    shuffled = replace(predictions, labels=predictions.labels[order], probabilities=predictions.probabilities[order])
    first = evaluate_predictions(predictions, config=CONFIG, seed=5).metrics
    other = evaluate_predictions(shuffled, config=CONFIG, seed=6).metrics
    for name in first.keys() - {"top_k_accuracy"}:
        one, same = ((metric.value, metric.low, metric.high) for metric in (first[name], other[name]))
        assert one == pytest.approx(same, rel=1e-5), name


def test_a_hand_worked_example():
    # a: 3 of 4 found, one predicted as b; b: 1 of 2 found, one predicted as a; c: found; d has no images.
    found = evaluate(class_predictions([0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 0, 2]))
    a, b, c, d = found.classes
    assert (a.images, a.predicted, a.right) == (4, 4, 3)
    assert a.metrics["precision"].value == pytest.approx(3 / 4)
    assert a.metrics["recall"].value == pytest.approx(3 / 4)
    assert b.metrics["f1"].value == pytest.approx(1 / 2)
    assert c.metrics["recall"].value == 1
    assert d.metrics["recall"].value is None
    assert d.metrics["recall"].reason == "no images of this class"
    assert found.metrics["balanced_accuracy"].value == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert found.averages["macro"]["recall"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert found.averages["weighted"]["recall"] == pytest.approx(5 / 7)
    assert found.confusion.tolist() == [[3, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_classes_without_images_or_predictions_are_noted():
    notes = evaluate(class_predictions([0] * 6 + [1] * 6 + [2] * 2, [0] * 14)).notes
    assert notes == (
        "no images of d: left out of the averages",
        "never predicted: b, c; the precision counts as 0",
        "fewer than 5 images of c: the metrics of so few say little",
    )


def test_images_with_unknown_labels_are_left_out_and_counted():
    found = evaluate(class_predictions([0, -1, 1, -1], [0, 0, 1, 1]))
    assert (found.images, found.left_out) == (2, 2)
    assert found.metrics["accuracy"].value == 1
    assert found.notes[0] == "2 images left out: the label is not one of the classes"


def test_nothing_labelled_is_an_error():
    with pytest.raises(DataError, match="none of 2 images has a label among the classes a, b, c, d"):
        evaluate(class_predictions([-1, -1], [0, 0]))


def test_a_probability_that_is_no_number_is_a_divergence_with_the_path():
    predictions = class_predictions([0, 1], [0, 1])
    predictions.probabilities[1, 2] = np.nan
    with pytest.raises(DivergedError, match="not finite") as caught:
        evaluate(predictions)
    assert caught.value.where == "1.png"


def test_top_k_of_few_classes_is_null_with_the_reason():
    metric = evaluate(class_predictions([0, 1, 0], [0, 1, 1], names=("a", "b", "c"))).metrics["top_k_accuracy"]
    assert (metric.value, metric.low) == (None, None)
    assert metric.reason == "always 1: there are only 3 classes"


def test_two_classes_work(made_up):
    metrics = evaluate(made_up(40, 2)).metrics
    assert 0.5 < metrics["roc_auc"].value <= 1


def test_one_class_only_has_no_roc_auc():
    metrics = evaluate(class_predictions([0, 0, 0], [0, 1, 0])).metrics
    assert metrics["roc_auc"].value is None
    assert metrics["roc_auc"].reason == "there are images of one class only"


def test_a_test_without_a_mistake_is_not_certain():
    metrics = evaluate(class_predictions([0] * 20 + [1] * 20, [0] * 20 + [1] * 20)).metrics
    for name in ("accuracy", "balanced_accuracy", "precision", "f1", "roc_auc"):
        assert metrics[name].value == 1
        assert metrics[name].low == pytest.approx(beta.ppf(0.025, 40, 1))
        assert metrics[name].reason == "no mistake to resample: exact interval of Clopper and Pearson"


def test_a_class_that_is_never_found_may_still_be_findable():
    recall = evaluate(class_predictions([0] * 10 + [1] * 10, [0] * 20)).classes[1].metrics["recall"]
    assert (recall.value, recall.low) == (0, 0)
    assert recall.high == pytest.approx(beta.ppf(0.975, 1, 10))


def test_plain_resampling_survives_classes_that_are_not_drawn():
    metrics = evaluate(class_predictions([0] * 10 + [1], [0] * 9 + [1, 1]), stratified=False).metrics
    assert metrics["f1"].low <= metrics["f1"].value <= metrics["f1"].high


def test_the_document_is_json_without_nan(made_up):
    splits = {"train": evaluate(made_up(90, 4, sharpness=5)), "test": evaluate(class_predictions([0, 0], [0, 1]))}
    document = build_evaluation_document(splits, config=CONFIG)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["bootstrap"] == {"samples": 200, "confidence": 0.95, "seed": 1, "stratified": True}
    metrics = document["splits"]["train"]["metrics"].values()
    assert all(metric["method"] for metric in metrics if metric["low"] is not None)
    assert set(document["splits"]) == {"train", "test"}
    assert document["splits"]["test"]["confusion_matrix"] == [[1, 1, 0, 0], [0] * 4, [0] * 4, [0] * 4]
    assert document["splits"]["test"]["metrics"]["roc_auc"]["value"] is None
    assert document["verdict"]["title"]


def test_a_test_alone_has_no_verdict(made_up):
    assert build_evaluation_document({"test": evaluate(made_up(50, 3))}, config=CONFIG)["verdict"] is None


def test_requirements_that_are_met_say_nothing(evaluation):
    bars = [Requirement(metric="accuracy", value=0.01), Requirement(metric="f1", lower_bound=0.01)]
    assert list_failed_requirements(evaluation, bars) == ()


def test_a_missed_requirement_says_by_how_much(made_up):
    document = build_evaluation_document({"test": evaluate(made_up(90, 4))}, config=CONFIG)
    document["splits"]["test"]["metrics"]["accuracy"] = {"value": 0.82, "low": 0.75, "high": 0.9}
    bars = [Requirement(metric="accuracy", lower_bound=0.8), Requirement(metric="accuracy", value=0.9)]
    assert list_failed_requirements(document, bars) == (
        "test accuracy: its lower bound 0.7500 is 0.0500 below the required 0.8",
        "test accuracy: its value 0.8200 is 0.0800 below the required 0.9",
    )


def test_a_missing_metric_misses_its_requirement():
    document = build_evaluation_document({"test": evaluate(class_predictions([0, 0], [0, 1]))}, config=CONFIG)
    (message,) = list_failed_requirements(document, [Requirement(metric="roc_auc", value=0.5)])
    assert message == "test roc_auc has no value (there are images of one class only); required is 0.5"
    without_test = build_evaluation_document({"val": evaluate(class_predictions([0, 1], [0, 1]))}, config=CONFIG)
    (message,) = list_failed_requirements(without_test, [Requirement(metric="accuracy", lower_bound=0.5)])
    assert message == "test accuracy has no lower bound (nothing was tested); required is 0.5"


def test_the_document_says_which_requirements_are_met(made_up):
    config = CONFIG.model_copy(
        update={"require": (Requirement(metric="accuracy", value=0.1), Requirement(metric="f1", lower_bound=1.0))}
    )
    document = build_evaluation_document({"test": evaluate(made_up(90, 4))}, config=config)
    assert [bar["met"] for bar in document["requirements"]] == [True, False]
    assert document["requirements"][1]["message"].startswith("test f1: its lower bound")


def test_rows_that_sum_to_nearly_one_give_the_same_loss(made_up):
    predictions = made_up(60, 3)
    rounded = replace(predictions, probabilities=predictions.probabilities * 1.00001)
    assert evaluate(rounded).metrics["log_loss"].value == pytest.approx(evaluate(predictions).metrics["log_loss"].value)


@pytest.mark.slow
def test_ten_thousand_predictions_of_twenty_classes_take_seconds(made_up):
    start = time.monotonic()
    evaluate_predictions(made_up(10_000, 20), config=EvaluateConfig(), seed=0)
    assert time.monotonic() - start < 15
