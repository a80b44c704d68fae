import json
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta
from sklearn import metrics as sk

from imagetune.errors import DataError, DivergedError
from imagetune.evaluation.document import evaluation_document, failed_requirements
from imagetune.evaluation.metrics.classification import HEADLINES, evaluate_predictions
from imagetune.evaluation.predictions import Predictions
from imagetune.recipe.tracking import EvaluateConfig, Requirement

CONFIG = EvaluateConfig(bootstrap_samples=200)


def evaluate(predictions, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return evaluate_predictions(predictions, config=CONFIG, seed=1, **arguments)


def answers(labels, predicted, names=("a", "b", "c", "d")):
    """Predictions that are quite sure of the given classes."""
    probabilities = np.full((len(labels), len(names)), 0.1)
    probabilities[np.arange(len(labels)), predicted] = 0.7
    paths = tuple(f"{index}.png" for index in range(len(labels)))
    return Predictions(paths, np.array(labels), probabilities, names)


def test_headline_figures_are_scikit_learns(made_up):
    predictions = made_up(150, 6)
    labels, probabilities, predicted = predictions.labels, predictions.probabilities, predictions.predicted
    figures = evaluate(predictions).figures
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
    assert tuple(figures) == HEADLINES
    assert {name: figure.value for name, figure in figures.items()} == pytest.approx(expected)


def test_every_figure_lies_in_its_interval(made_up):
    for figure in evaluate(made_up(150, 6)).figures.values():
        assert figure.low < figure.value < figure.high


def test_more_pictures_make_narrower_intervals(made_up):
    widths = [(figure := evaluate(made_up(count, 4)).figures["accuracy"]).high - figure.low for count in (50, 200, 800)]
    assert widths == sorted(widths, reverse=True)


def test_the_seed_decides_the_intervals(made_up):
    predictions = made_up(60, 3)
    first, again = (evaluate_predictions(predictions, config=CONFIG, seed=5) for _ in range(2))
    other = evaluate_predictions(predictions, config=CONFIG, seed=6)
    assert first.figures == again.figures
    assert first.figures["f1"].low != other.figures["f1"].low


def test_a_hand_worked_example():
    # a: 3 of 4 found, one taken for b; b: 1 of 2 found, one taken for a; c: found; d has no pictures.
    found = evaluate(answers([0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 0, 2]))
    a, b, c, d = found.classes
    assert (a.pictures, a.predicted, a.right) == (4, 4, 3)
    assert a.figures["precision"].value == pytest.approx(3 / 4)
    assert a.figures["recall"].value == pytest.approx(3 / 4)
    assert b.figures["f1"].value == pytest.approx(1 / 2)
    assert c.figures["recall"].value == 1
    assert d.figures["recall"].value is None
    assert d.figures["recall"].reason == "no pictures of this class"
    assert found.figures["balanced_accuracy"].value == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert found.averages["macro"]["recall"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert found.averages["weighted"]["recall"] == pytest.approx(5 / 7)
    assert found.confusion.tolist() == [[3, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_classes_without_pictures_or_answers_are_told():
    notes = evaluate(answers([0] * 6 + [1] * 6 + [2] * 2, [0] * 14)).notes
    assert notes == (
        "no pictures of d: left out of the averages",
        "never predicted: b, c; the precision counts as 0",
        "fewer than 5 pictures of c: the figures of so few say little",
    )


def test_pictures_with_unknown_labels_are_left_out_and_counted():
    found = evaluate(answers([0, -1, 1, -1], [0, 0, 1, 1]))
    assert (found.pictures, found.left_out) == (2, 2)
    assert found.figures["accuracy"].value == 1
    assert found.notes[0] == "2 pictures left out: the label is not one of the classes"


def test_nothing_labelled_is_an_error():
    with pytest.raises(DataError, match="none of 2 pictures has a label among the classes a, b, c, d"):
        evaluate(answers([-1, -1], [0, 0]))


def test_a_probability_that_is_no_number_is_a_divergence_with_the_path():
    predictions = answers([0, 1], [0, 1])
    predictions.probabilities[1, 2] = np.nan
    with pytest.raises(DivergedError, match="not finite") as caught:
        evaluate(predictions)
    assert caught.value.where == "1.png"


def test_top_k_of_few_classes_is_null_with_the_reason():
    figure = evaluate(answers([0, 1, 0], [0, 1, 1], names=("a", "b", "c"))).figures["top_k_accuracy"]
    assert (figure.value, figure.low) == (None, None)
    assert figure.reason == "always 1: there are only 3 classes"


def test_two_classes_work(made_up):
    figures = evaluate(made_up(40, 2)).figures
    assert 0.5 < figures["roc_auc"].value <= 1


def test_one_class_only_has_no_roc_auc():
    figures = evaluate(answers([0, 0, 0], [0, 1, 0])).figures
    assert figures["roc_auc"].value is None
    assert figures["roc_auc"].reason == "there are pictures of one class only"


def test_a_test_without_a_mistake_is_not_certain():
    figures = evaluate(answers([0] * 20 + [1] * 20, [0] * 20 + [1] * 20)).figures
    for name in ("accuracy", "balanced_accuracy", "precision", "f1", "roc_auc"):
        assert figures[name].value == 1
        assert figures[name].low == pytest.approx(beta.ppf(0.025, 40, 1))
        assert figures[name].reason == "no mistake to resample: exact interval of Clopper and Pearson"


def test_a_class_that_is_never_found_may_still_be_findable():
    recall = evaluate(answers([0] * 10 + [1] * 10, [0] * 20)).classes[1].figures["recall"]
    assert (recall.value, recall.low) == (0, 0)
    assert recall.high == pytest.approx(beta.ppf(0.975, 1, 10))


def test_plain_resampling_survives_classes_that_are_not_drawn():
    figures = evaluate(answers([0] * 10 + [1], [0] * 9 + [1, 1]), stratified=False).figures
    assert figures["f1"].low <= figures["f1"].value <= figures["f1"].high


def test_the_document_is_json_without_nan(made_up):
    splits = {"train": evaluate(made_up(90, 4, sharpness=5)), "test": evaluate(answers([0, 0], [0, 1]))}
    document = evaluation_document(splits, config=CONFIG)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["bootstrap"] == {"samples": 200, "confidence": 0.95, "seed": 1, "stratified": True}
    figures = document["splits"]["train"]["figures"].values()
    assert all(figure["method"] for figure in figures if figure["low"] is not None)
    assert set(document["splits"]) == {"train", "test"}
    assert document["splits"]["test"]["confusion_matrix"] == [[1, 1, 0, 0], [0] * 4, [0] * 4, [0] * 4]
    assert document["splits"]["test"]["figures"]["roc_auc"]["value"] is None
    assert document["verdict"]["title"]


def test_a_test_alone_has_no_verdict(made_up):
    assert evaluation_document({"test": evaluate(made_up(50, 3))}, config=CONFIG)["verdict"] is None


def test_requirements_that_are_met_say_nothing(evaluation):
    bars = [Requirement(metric="accuracy", value=0.01), Requirement(metric="f1", lower_bound=0.01)]
    assert failed_requirements(evaluation, bars) == ()


def test_a_missed_requirement_says_by_how_much(made_up):
    document = evaluation_document({"test": evaluate(made_up(90, 4))}, config=CONFIG)
    document["splits"]["test"]["figures"]["accuracy"] = {"value": 0.82, "low": 0.75, "high": 0.9}
    bars = [Requirement(metric="accuracy", lower_bound=0.8), Requirement(metric="accuracy", value=0.9)]
    assert failed_requirements(document, bars) == (
        "test accuracy: its lower bound 0.7500 is 0.0500 below the required 0.8",
        "test accuracy: its value 0.8200 is 0.0800 below the required 0.9",
    )


def test_a_figure_that_is_missing_misses_its_bar():
    document = evaluation_document({"test": evaluate(answers([0, 0], [0, 1]))}, config=CONFIG)
    (message,) = failed_requirements(document, [Requirement(metric="roc_auc", value=0.5)])
    assert message == "test roc_auc has no value (there are pictures of one class only); required is 0.5"
    without_test = evaluation_document({"val": evaluate(answers([0, 1], [0, 1]))}, config=CONFIG)
    (message,) = failed_requirements(without_test, [Requirement(metric="accuracy", lower_bound=0.5)])
    assert message == "test accuracy has no lower bound (nothing was tested); required is 0.5"


def test_the_document_tells_which_requirements_are_met(made_up):
    config = CONFIG.model_copy(
        update={"require": (Requirement(metric="accuracy", value=0.1), Requirement(metric="f1", lower_bound=1.0))}
    )
    document = evaluation_document({"test": evaluate(made_up(90, 4))}, config=config)
    assert [bar["met"] for bar in document["requirements"]] == [True, False]
    assert document["requirements"][1]["message"].startswith("test f1: its lower bound")


def test_rows_that_sum_to_nearly_one_give_the_same_loss(made_up):
    predictions = made_up(60, 3)
    rounded = replace(predictions, probabilities=predictions.probabilities * 1.00001)
    assert evaluate(rounded).figures["log_loss"].value == pytest.approx(evaluate(predictions).figures["log_loss"].value)


@pytest.mark.slow
def test_ten_thousand_predictions_of_twenty_classes_take_seconds(made_up):
    start = time.monotonic()
    evaluate_predictions(made_up(10_000, 20), config=EvaluateConfig(), seed=0)
    assert time.monotonic() - start < 15
