"""Metrics of several labels, ordered classes and numbers beside those of scikit-learn and SciPy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import (
    average_precision_score,
    cohen_kappa_score,
    f1_score,
    hamming_loss,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)

from imagetune.data.sources.labels import LabelRule, format_exact_number
from imagetune.errors import DataError, DivergedError, RecipeError
from imagetune.evaluation.document import build_evaluation_document, evaluate_split, list_failed_requirements
from imagetune.evaluation.errors.mistakes import find_mistakes, find_worst_label
from imagetune.evaluation.metrics import multilabel, regression
from imagetune.evaluation.metrics.multilabel import choose_thresholds
from imagetune.evaluation.predictions import Predictions, build_predictions, read_predictions, write_predictions
from imagetune.evaluation.statistics.bootstrap import Bootstrap, draw_weights
from imagetune.recipe.requirements import parse_requirement
from imagetune.recipe.sections.evaluate import EvaluateConfig, Requirement

CONFIG = EvaluateConfig(bootstrap_samples=200)
TAGS = ("ant", "bee", "cat", "dog")
COUNT = 160


def tagged(true: np.ndarray, probabilities: np.ndarray, thresholds: tuple[float, ...] = ()) -> Predictions:
    names = TAGS[: true.shape[1]]
    labels = [";".join(np.array(names)[row]) for row in true.astype(bool)]
    paths = [f"{index}.png" for index in range(len(true))]
    return build_predictions(paths, labels, probabilities, names, rule=LabelRule("multi_label"), thresholds=thresholds)


def numbered(true: np.ndarray, given: np.ndarray) -> Predictions:
    labels = [format_exact_number(float(value)) for value in true]
    paths = [f"{index}.png" for index in range(len(true))]
    rule = LabelRule("regression", value_name="age")
    return build_predictions(paths, labels, np.asarray(given, np.float64)[:, None], ("age",), rule=rule)


@pytest.fixture
def tags() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    true = random.random((COUNT, 4)) < [0.5, 0.3, 0.1, 0.05]
    scores = random.normal(size=(COUNT, 4)) + 3 * true - 2
    return true, np.round(1 / (1 + np.exp(-scores)), 2)  # rounded, so that there are equals


@pytest.fixture
def ages() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    true = np.round(random.normal(50, 10, COUNT))
    return true, np.round(true + random.normal(0, 5, COUNT))


def test_metrics_of_labels(tags: tuple[np.ndarray, np.ndarray]) -> None:
    true, probabilities = tags
    thresholds = (0.3, 0.5, 0.4, 0.6)
    given = probabilities >= np.array(thresholds)
    found = evaluate_split(tagged(true, probabilities, thresholds), config=CONFIG, seed=0)
    options = {"zero_division": 0.0}
    expected = {
        "mean_average_precision": np.mean(
            [average_precision_score(true[:, label], probabilities[:, label]) for label in range(4)]
        ),
        "f1": f1_score(true, given, average="macro", **options),
        "micro_f1": f1_score(true, given, average="micro", **options),
        "subset_accuracy": (true == given).all(axis=1).mean(),
        "hamming_loss": hamming_loss(true, given),
    }
    for name, value in expected.items():
        metric = found.metrics[name]
        assert metric.value == pytest.approx(value)
        assert metric.low < metric.value < metric.high
    for label, row in enumerate(found.classes):
        assert row.threshold == thresholds[label]
        assert row.images == true[:, label].sum()
        assert row.metrics["f1"].value == pytest.approx(f1_score(true[:, label], given[:, label]))


def test_a_resampling_of_labels_is_the_metric_of_the_images_drawn(tags: tuple[np.ndarray, np.ndarray]) -> None:
    true, probabilities = tags
    given = probabilities >= 0.5
    bootstrap = Bootstrap(3, 0.95, 1, stratified=False)
    weights = next(iter(draw_weights(np.zeros(COUNT, np.int64), bootstrap)))
    rankings = [multilabel._Ranking.of(true[:, label], probabilities[:, label]) for label in range(4)]
    headline, _ = multilabel._compute_metrics(true, given, rankings, weights)
    for sample in range(3):
        drawn = np.repeat(np.arange(COUNT), weights[:, sample].astype(int))
        present = true[drawn].any(axis=0)
        expected = np.mean(
            [
                average_precision_score(true[drawn, label], probabilities[drawn, label])
                for label in np.flatnonzero(present)
            ]
        )
        assert headline["mean_average_precision"][sample] == pytest.approx(expected)
        assert headline["micro_f1"][sample] == pytest.approx(f1_score(true[drawn], given[drawn], average="micro"))


def test_thresholds_have_the_best_f1_of_each_label(tags: tuple[np.ndarray, np.ndarray]) -> None:
    true, probabilities = tags
    chosen = choose_thresholds(tagged(true, probabilities))
    for label, threshold in enumerate(chosen):
        reached = f1_score(true[:, label], probabilities[:, label] >= threshold)
        tried = [f1_score(true[:, label], probabilities[:, label] >= cut) for cut in np.linspace(0.005, 1, 200)]
        assert reached == pytest.approx(max(tried))


def test_thresholds_stay_in_the_middle_where_validation_says_nothing() -> None:
    true = np.array([[1, 0], [0, 0], [1, 0]])
    probabilities = np.array([[0.9, 0.4], [0.1, 0.6], [0.8, 0.1]])
    assert choose_thresholds(tagged(true, probabilities)) == (0.5, 0.5)
    assert choose_thresholds(tagged(true, probabilities / 4))[0] == pytest.approx((0.2 + 0.025) / 2)


def test_labels_that_are_absent_or_never_predicted_are_noted() -> None:
    true = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]])
    found = evaluate_split(tagged(true, np.array([[0.9, 0.1, 0.1]] * 3)), config=CONFIG, seed=0)
    notes = " ".join(found.notes)
    assert "no images of cat" in notes
    assert "never predicted: bee" in notes
    assert "1 image without any label" in notes
    assert found.classes[2].metrics["f1"].value is None
    with pytest.raises(DataError, match="none of 3 images"):
        evaluate_split(tagged(np.zeros((3, 2)), np.zeros((3, 2))), config=CONFIG, seed=0)


def test_unknown_labels_are_passed_over_and_counted() -> None:
    found = build_predictions(
        ["1.png", "2.png"], ["ant;emu", "bee"], np.ones((2, 2)), ("ant", "bee"), rule=LabelRule("multi_label")
    )
    np.testing.assert_array_equal(found.targets, [[1, 0], [0, 1]])
    assert any("doesn't know" in note for note in evaluate_split(found, config=CONFIG, seed=0).notes)


def test_metrics_of_ordered_classes_count_ranks() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, COUNT)
    weights = np.exp(-0.5 * (np.arange(5) - labels[:, None] + random.normal(0, 1, (COUNT, 1))) ** 2)
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    paths = [f"{index}.png" for index in range(COUNT)]
    found = build_predictions(
        paths, [str(label) for label in labels], probabilities, "01234", rule=LabelRule("ordinal")
    )
    metrics = evaluate_split(found, config=CONFIG, seed=0).metrics
    far = np.abs(found.predicted - labels)
    kappa = cohen_kappa_score(labels, found.predicted, weights="quadratic")
    assert metrics["mae"].value == pytest.approx(far.mean())
    assert metrics["quadratic_weighted_kappa"].value == pytest.approx(kappa)
    assert metrics["within_one_rank"].value == pytest.approx((far <= 1).mean())
    assert metrics["accuracy"].value == pytest.approx((far == 0).mean())
    assert metrics["mae"].low < metrics["mae"].value < metrics["mae"].high


def test_metrics_of_numbers(ages: tuple[np.ndarray, np.ndarray]) -> None:
    true, given = ages
    metrics = evaluate_split(numbered(true, given), config=CONFIG, seed=0).metrics
    expected = {
        "mae": mean_absolute_error(true, given),
        "rmse": root_mean_squared_error(true, given),
        "r2": r2_score(true, given),
        "spearman": spearmanr(true, given).statistic,
    }
    for name, value in expected.items():
        assert metrics[name].value == pytest.approx(value)
        assert metrics[name].low < metrics[name].value < metrics[name].high


def test_a_resampling_of_numbers_is_the_metric_of_the_images_drawn(ages: tuple[np.ndarray, np.ndarray]) -> None:
    true, given = ages
    weights = next(iter(draw_weights(np.zeros(COUNT, np.int64), Bootstrap(3, 0.95, 1, stratified=False))))
    ranks = (regression._Ranks.of(true), regression._Ranks.of(given))
    metrics = regression._compute_metrics(true, given, ranks, weights)
    for sample in range(3):
        drawn = np.repeat(np.arange(COUNT), weights[:, sample].astype(int))
        assert metrics["r2"][sample] == pytest.approx(r2_score(true[drawn], given[drawn]))
        assert metrics["spearman"][sample] == pytest.approx(spearmanr(true[drawn], given[drawn]).statistic)


def test_numbers_that_are_all_the_same_have_no_r_squared() -> None:
    metrics = evaluate_split(numbered(np.full(20, 3.0), np.arange(20.0)), config=CONFIG, seed=0).metrics
    assert metrics["r2"].value is None
    assert "same number" in metrics["spearman"].reason
    with pytest.raises(DivergedError):
        evaluate_split(numbered(np.arange(2.0), np.array([1.0, np.nan])), config=CONFIG, seed=0)


def test_the_document_says_the_task_and_is_plain_json(
    tags: tuple[np.ndarray, np.ndarray], ages: tuple[np.ndarray, np.ndarray]
) -> None:
    for predictions, task in ((tagged(*tags), "multi_label"), (numbered(*ages), "regression")):
        found = evaluate_split(predictions, config=CONFIG, seed=0)
        document = build_evaluation_document({"train": found, "test": found}, config=CONFIG)
        assert json.loads(json.dumps(document, allow_nan=False))["task"] == task
        assert document["verdict"]["code"] in ("close", "under-fitted", "too-few")
        assert "confusion_matrix" not in document["splits"]["test"]


def test_a_metric_of_the_task_can_be_required(ages: tuple[np.ndarray, np.ndarray]) -> None:
    document = build_evaluation_document(
        {"test": evaluate_split(numbered(*ages), config=CONFIG, seed=0)}, config=CONFIG
    )
    assert list_failed_requirements(document, [Requirement(metric="r2", value=0.5)]) == ()
    (message,) = list_failed_requirements(document, [Requirement(metric="r2", lower_bound=0.99)])
    assert "below the required 0.99" in message


def test_a_requirement_is_an_upper_bound_for_a_metric_that_is_better_when_lower(
    ages: tuple[np.ndarray, np.ndarray],
) -> None:
    document = build_evaluation_document(
        {"test": evaluate_split(numbered(*ages), config=CONFIG, seed=0)}, config=CONFIG
    )
    mae = document["splits"]["test"]["metrics"]["mae"]
    met = [Requirement(metric="mae", value=mae["value"]), Requirement(metric="mae", upper_bound=mae["high"])]
    assert list_failed_requirements(document, met) == ()
    (message,) = list_failed_requirements(document, [Requirement(metric="mae", upper_bound=mae["value"])])
    assert message == (
        f"test mae: its upper bound {mae['high']:.6g} is {mae['high'] - mae['value']:.6g} above the required "
        f"{mae['value']:g}"
    )
    for wrong in ({"lower_bound": 1.0}, {"value": 1.0, "upper_bound": 2.0}, {}):
        with pytest.raises(ValueError, match="better when lower: give either upper_bound or value"):
            Requirement.model_validate({"metric": "mae", **wrong})
    with pytest.raises(ValueError, match="better when higher: give either lower_bound or value"):
        Requirement(metric="r2", upper_bound=1.0)


def test_requirements_are_read_from_the_command_line() -> None:
    assert parse_requirement("mae:upper_bound=5") == Requirement(metric="mae", upper_bound=5.0)
    assert parse_requirement("f1:lower_bound=0.5").threshold == ("lower_bound", 0.5)
    with pytest.raises(RecipeError, match="better when lower"):
        parse_requirement("rmse:lower_bound=5")


def test_predictions_of_labels_can_be_written_and_read(tags: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    thresholds = (0.3, 0.5, 0.4, 0.6)
    predictions = tagged(*tags, thresholds)
    write_predictions(predictions, tmp_path / "test.csv")
    found = read_predictions(tmp_path / "test.csv", rule=predictions.rule, thresholds=thresholds)
    np.testing.assert_array_equal(found.targets, predictions.targets)
    np.testing.assert_array_equal(found.given, predictions.given)
    assert list(found.texts()) == list(predictions.texts())


def test_predictions_of_numbers_can_be_written_and_read(tmp_path: Path) -> None:
    predictions = numbered(np.array([0.1, 16777217.0]), np.array([0.25, 2e7]))
    write_predictions(predictions, tmp_path / "test.csv")
    assert (tmp_path / "test.csv").read_text().splitlines()[1] == "0.png,0.1,0.25,0.25"
    found = read_predictions(tmp_path / "test.csv", rule=predictions.rule)
    np.testing.assert_array_equal(found.targets, predictions.targets)
    np.testing.assert_array_equal(found.probabilities, predictions.probabilities)
    with pytest.raises(DataError, match="not a number"):
        (tmp_path / "bad.csv").write_text("path,label,predicted,age\n1.png,old,3,3\n")
        read_predictions(tmp_path / "bad.csv", rule=predictions.rule)


def test_the_worst_mistakes_come_first() -> None:
    true = np.array([[1, 0], [1, 1], [0, 0]])
    probabilities = np.array([[0.9, 0.1], [0.4, 0.1], [0.55, 0.2]])
    np.testing.assert_array_equal(find_mistakes(tagged(true, probabilities)), [1, 2])
    # Of the second one 'ant' is missed by 0.1 and 'bee' by 0.4; of the third 'ant' is given.
    assert [find_worst_label(tagged(true, probabilities), index) for index in (1, 2)] == [1, 0]
    np.testing.assert_array_equal(find_mistakes(numbered(np.zeros(3), np.array([1.0, -5.0, 2.0]))), [1, 2, 0])
