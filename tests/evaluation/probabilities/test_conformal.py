import json

import numpy as np
import pytest

from imagetune.data.sources.labels import LabelRule
from imagetune.evaluation.predictions import build_predictions
from imagetune.evaluation.probabilities.conformal import (
    choose_conformal_rule,
    choose_risk_threshold,
    compute_conformal_quantile,
    describe_conformal,
)
from imagetune.evaluation.probabilities.decision_rules import build_prediction_intervals, build_prediction_sets
from imagetune.model.decision_rules import ConformalRule

CLASSES = ("ant", "bee", "cat", "dog")


def drawn(n, *, seed, task="single_label", sharp=0.6):
    """Return predictions whose probabilities are right, or for regression numbers with normal errors."""
    random = np.random.default_rng(seed)
    paths = [f"{index}.png" for index in range(n)]
    if task == "regression":
        values = random.normal(size=n)
        outputs = (values + 0.5 * random.normal(size=n))[:, None]
        return build_predictions(paths, [str(value) for value in values], outputs, ("age",), rule=LabelRule(task))
    probabilities = random.dirichlet([sharp] * 4, n)
    if task == "multi_label":
        true = random.random((n, 4)) < probabilities
        labels = [";".join(name for name, own in zip(CLASSES, row, strict=True) if own) for row in true]
    else:
        chosen = (random.random((n, 1)) > np.cumsum(probabilities, axis=1)).sum(axis=1)
        labels = [CLASSES[index] for index in np.minimum(chosen, 3)]
    return build_predictions(paths, labels, probabilities, CLASSES, rule=LabelRule(task))


def columns(splits):
    labels = {name: [true for true, _ in split.texts()] for name, split in splits.items()}
    features = {name: np.zeros((len(split.paths), 2)) for name, split in splits.items()}
    return labels, features, {name: split.probabilities for name, split in splits.items()}


def rule_of(threshold, method="least_ambiguous"):
    return ConformalRule(method=method, coverage=0.9, threshold=threshold)


def test_the_quantile_worked_by_hand():
    scores = np.arange(1, 20) / 20
    # Of 19 scores the 18th: ceil(20 * 0.9); and it is NumPy's "higher" quantile at (n + 1) / n of the coverage.
    assert compute_conformal_quantile(scores, 0.9) == 0.9
    random = np.random.default_rng(0).random(57)
    assert compute_conformal_quantile(random, 0.8) == np.quantile(random, np.ceil(58 * 0.8) / 57, method="inverted_cdf")
    assert compute_conformal_quantile(scores[:9], 0.9) == scores[8]
    assert compute_conformal_quantile(scores[:8], 0.9) is None


@pytest.mark.parametrize("task", ["single_label", "ordinal", "regression"])
def test_sets_hold_the_true_prediction_as_often_as_promised(task):
    covered = []
    for seed in range(300):
        both = drawn(60 + 100, seed=seed, task=task)
        val, test = (part(both, slice(None, 60)), part(both, slice(60, None)))
        rule = choose_conformal_rule(val, 0.9)
        if task == "regression":
            low, high = build_prediction_intervals(test.probabilities[:, 0], rule)
            covered.append(((test.targets[:, 0] >= low) & (test.targets[:, 0] <= high)).mean())
        else:
            covered.append(build_prediction_sets(test, rule)[np.arange(100), test.labels].mean())
    # Between the coverage and 1 / (n + 1) more, but for the sets that are filled up, and chance.
    assert 0.89 <= np.mean(covered) <= (0.93 if task != "ordinal" else 0.99)


def part(predictions, rows):
    texts = [true for true, _ in predictions.texts()][rows]
    return build_predictions(
        predictions.paths[rows], texts, predictions.probabilities[rows], predictions.class_names, rule=predictions.rule
    )


def test_labels_are_missed_as_seldom_as_promised():
    missed = []
    for seed in range(300):
        both = drawn(160, seed=seed, task="multi_label", sharp=2.0)
        rule = choose_conformal_rule(part(both, slice(None, 60)), 0.9)
        test = part(both, slice(60, None))
        members, true = build_prediction_sets(test, rule), test.targets > 0
        counts = true.sum(axis=1)
        missed.append(np.where(counts > 0, (true & ~members).sum(axis=1) / np.maximum(counts, 1), 0).mean())
    assert 0.07 <= np.mean(missed) <= 0.102


def test_the_threshold_of_labels_is_the_highest_that_may_be():
    predictions = drawn(80, seed=5, task="multi_label")
    truth = predictions.targets
    threshold = choose_risk_threshold(predictions.probabilities, truth, 0.8)

    def risk(limit):
        counts = truth.sum(axis=1)
        missing = ((predictions.probabilities < limit) * truth).sum(axis=1)
        return np.where(counts > 0, missing / np.maximum(counts, 1), 0).mean()

    assert (80 * risk(threshold) + 1) / 81 <= 0.2
    assert (80 * risk(threshold + 1e-9) + 1) / 81 > 0.2
    assert choose_risk_threshold(predictions.probabilities[:3], truth[:3], 0.8) is None
    assert choose_risk_threshold(predictions.probabilities, np.zeros_like(truth), 0.8) == 1.0


def test_an_empty_set_gets_the_prediction_and_ordered_classes_have_no_gaps():
    outputs = np.array([[0.3, 0.28, 0.22, 0.2], [0.45, 0.05, 0.4, 0.1]])
    plain = build_predictions(["a", "b"], ["ant", "cat"], outputs, CLASSES, rule=LabelRule())
    members = build_prediction_sets(plain, rule_of(0.35))
    assert members.tolist() == [[True, False, False, False], [True, False, True, False]]
    ordered = build_predictions(["a", "b"], ["ant", "cat"], outputs, CLASSES, rule=LabelRule("ordinal"))
    assert build_prediction_sets(ordered, rule_of(0.35)).tolist() == [
        [False, True, False, False],
        [True, True, True, False],
    ]
    assert build_prediction_sets(plain, rule_of(None)).all()


def test_the_analysis_has_coverage_and_sizes_of_the_sets(examined):
    splits = {"val": drawn(120, seed=1), "test": drawn(200, seed=2)}
    document = describe_conformal(examined(*columns(splits), classes=CLASSES))
    members = build_prediction_sets(splits["test"], rule_of(document["threshold"]))
    hit = members[np.arange(200), splits["test"].labels]
    assert document["covered"]["value"] == pytest.approx(hit.mean())
    assert document["covered"]["low"] < 0.9 < document["covered"]["high"]
    assert document["mean_size"]["value"] == pytest.approx(members.sum(axis=1).mean())
    assert sum(row["images"] for row in document["sizes"]) == 200
    assert document["expected_coverage"]["low"] < 0.9 < document["expected_coverage"]["high"]
    ants = splits["test"].labels == 0
    assert document["classes"][0]["covered"]["value"] == pytest.approx(members[ants, 0].mean())
    json.dumps(document, allow_nan=False)


def test_too_few_validation_images_are_said(examined):
    splits = {"val": drawn(8, seed=1), "test": drawn(30, seed=2)}
    document = describe_conformal(examined(*columns(splits), classes=CLASSES))
    assert document["threshold"] is None
    assert "8 validation images are too few to guarantee 90% coverage: it takes 9" in document["reason"]
    assert document["covered"]["value"] == 1.0
    assert document["mean_size"]["value"] == 4.0


def test_numbers_get_an_interval(examined):
    splits = {name: drawn(n, seed=n, task="regression") for name, n in (("val", 100), ("test", 150))}
    document = describe_conformal(examined(*columns(splits), classes=("value",), task="regression"))
    assert document["method"] == "absolute_residual"
    assert document["mean_size"]["value"] == pytest.approx(2 * document["threshold"])
    assert document["covered"]["low"] < 0.9 < document["covered"]["high"]
    assert sum(row["images"] for row in document["ranges"]) == 150
    held = sum(row["images"] * row["covered"]["value"] for row in document["ranges"])
    assert held == pytest.approx(150 * document["covered"]["value"])
    json.dumps(document, allow_nan=False)


def test_where_errors_grow_high_predictions_are_seldom_held(examined):
    splits = {}
    for seed, name in enumerate(("val", "test")):
        random = np.random.default_rng(seed)
        given = random.uniform(1, 100, 600)
        true = given * (1 + 0.1 * random.normal(size=600))
        texts = [str(value) for value in true]
        paths = [f"{index}.png" for index in range(600)]
        splits[name] = build_predictions(paths, texts, given[:, None], ("age",), rule=LabelRule("regression"))
    document = describe_conformal(examined(*columns(splits), classes=("age",), task="regression"))
    assert document["covered"]["low"] < 0.9 < document["covered"]["high"]
    assert document["ranges"][0]["covered"]["value"] == 1.0
    assert document["ranges"][-1]["covered"]["high"] < 0.9


def test_without_validation_there_are_no_sets(examined):
    assert describe_conformal(examined(*columns({"test": drawn(30, seed=2)}), classes=CLASSES)) is None
