import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from imagetune.evaluation.metrics.areas import estimate_average_precision, estimate_roc_auc
from imagetune.evaluation.probabilities.roc_curves import analyse_curves
from imagetune.evaluation.statistics.proportions import compute_auc_interval

CLASSES = ("ant", "bee", "cat")


def logit_error(metric):
    """Return the standard error that a 95% interval symmetric in the logit was made with."""
    low, high = (np.log(end / (1 - end)) for end in (metric.low, metric.high))
    return (high - low) / 2 / 1.959964 * metric.value * (1 - metric.value)


def test_the_ratings_of_hanley_and_mcneil():
    # Radiology 143, 1982, table 1; DeLong's error of it as Stata's manual prints it for `roctab disease rating`.
    normal, abnormal = np.repeat([1, 2, 3, 4, 5], [33, 6, 6, 11, 2]), np.repeat([1, 2, 3, 4, 5], [3, 2, 2, 11, 33])
    scores = np.concatenate([normal, abnormal]).astype(float)
    metric = estimate_roc_auc(np.arange(109) >= 58, scores, 0.95)
    assert metric.value == pytest.approx(0.8932, abs=5e-5)
    assert logit_error(metric) == pytest.approx(0.0307, abs=5e-5)


def test_areas_are_those_of_scikit_learn_with_ties_and_without(examined):
    random = np.random.default_rng(0)
    labels = [CLASSES[index] for index in random.integers(0, 3, 150)]
    outputs = np.round(random.dirichlet([1, 1, 1], 150), 1)
    part = analyse_curves(examined({"test": labels}, {"test": np.zeros((150, 2))}, {"test": outputs}, classes=CLASSES))
    for index, row in enumerate(part["classes"]):
        true = np.array(labels) == CLASSES[index]
        assert row["roc_auc"]["value"] == pytest.approx(roc_auc_score(true, outputs[:, index]))
        assert row["average_precision"]["value"] == pytest.approx(average_precision_score(true, outputs[:, index]))
        assert row["share"] == pytest.approx(true.mean())
        for metric in (row["roc_auc"], row["average_precision"]):
            assert metric["low"] < metric["value"] < metric["high"]
    json.dumps(part, allow_nan=False)


def test_the_interval_of_the_roc_auc_holds_it_as_often_as_it_says():
    random, hits = np.random.default_rng(1), 0
    for _ in range(1500):
        scores = np.concatenate([random.normal(size=60), random.normal(1.2, 1, 25)])
        metric = estimate_roc_auc(np.arange(85) >= 60, scores, 0.95)
        # Of two normal distributions: the normal distribution function at 1.2 / sqrt(2).
        hits += metric.low <= 0.80193 <= metric.high
    assert 0.93 <= hits / 1500 <= 0.97


def test_the_interval_of_the_average_precision_holds_it_as_often_as_it_says():
    random = np.random.default_rng(2)

    def draw(n):
        true = random.random(n) < 0.3
        return true, random.normal(size=n) + 1.2 * true

    truth = np.mean([average_precision_score(*draw(20_000)) for _ in range(20)])
    metrics = [estimate_average_precision(*draw(200), 0.95) for _ in range(1000)]
    assert 0.93 <= np.mean([metric.low <= truth <= metric.high for metric in metrics]) <= 0.98


def test_nothing_out_of_order_is_no_certainty():
    true = np.arange(30) >= 20
    metric = estimate_roc_auc(true, np.arange(30.0), 0.95)
    assert (metric.value, metric.high) == (1.0, 1.0)
    # Newcombe's interval, which needs no variance either, says nearly the same.
    assert metric.low == pytest.approx(compute_auc_interval(1.0, 10, 20, 1.96)[0], abs=0.03)
    assert metric.low == pytest.approx(0.025 ** (3 / 80))
    assert estimate_average_precision(true, np.arange(30.0), 0.95).low == pytest.approx(0.025 ** (1 / 10))
    assert estimate_roc_auc(true, -np.arange(30.0), 0.95).value == 0.0


def test_scores_that_are_all_the_same_are_no_certainty():
    metric = estimate_roc_auc(np.arange(30) >= 20, np.full(30, 0.4), 0.95)
    assert metric.value == 0.5
    assert metric.low < 0.4
    assert metric.high > 0.6


def test_a_class_without_images_has_no_curve():
    metric = estimate_roc_auc(np.zeros(5, bool), np.arange(5.0), 0.95)
    assert (metric.value, metric.reason) == (None, "no images of this class")
    assert estimate_roc_auc(np.ones(5, bool), np.arange(5.0), 0.95).reason == "no other images of this class"
    assert estimate_average_precision(np.zeros(5, bool), np.arange(5.0), 0.95).value is None
