import numpy as np
import pytest
from sklearn import metrics as sk

from imagetune.evaluation.metrics.scores import (
    compute_log_losses,
    compute_metrics_without,
    compute_top_k_hits,
    compute_weighted_confusion,
)
from imagetune.evaluation.statistics.bootstrap import Bootstrap
from imagetune.evaluation.statistics.intervals import leave_out_weights, list_units
from imagetune.evaluation.statistics.jackknife import compute_jackknife_means


@pytest.fixture(params=[0.3, 3.0], ids=["poor", "good"])
def data(request, made_up):
    """Labels and probabilities of 80 images in 5 classes, rounded so that there are ties."""
    predictions = made_up(80, 5, sharpness=request.param)
    probabilities = np.round(predictions.probabilities, 1) + 1e-3
    return predictions.labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def units(labels):
    """A dozen of images are left out at a time."""
    return list_units(labels, Bootstrap(samples=6, seed=9))


def columns(labels):
    return np.concatenate(list(leave_out_weights(units(labels), cells_a_sample=25)), axis=1).T


def test_every_headline_without_some_images_is_what_scikit_learn_says_of_the_same_weights(data):
    labels, probabilities = data
    predicted = probabilities.argmax(axis=1)
    found = compute_metrics_without(labels, probabilities, top_k=2, without=units(labels)).headline
    losses = compute_log_losses(labels, probabilities)
    found["log_loss"] = compute_jackknife_means(losses, np.ones(len(losses)), units(labels)).values
    for index, weights in enumerate(columns(labels)):
        shared = {"average": "macro", "zero_division": 0.0, "sample_weight": weights}
        expected = {
            "accuracy": sk.accuracy_score(labels, predicted, sample_weight=weights),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted, sample_weight=weights),
            "precision": sk.precision_score(labels, predicted, **shared),
            "recall": sk.recall_score(labels, predicted, **shared),
            "f1": sk.f1_score(labels, predicted, **shared),
            "top_k_accuracy": sk.top_k_accuracy_score(labels, probabilities, k=2, sample_weight=weights),
            "log_loss": sk.log_loss(labels, probabilities, sample_weight=weights),
            "roc_auc": sk.roc_auc_score(labels, probabilities, multi_class="ovr", sample_weight=weights),
        }
        assert {name: values[index] for name, values in found.items()} == pytest.approx(expected, abs=1e-6)


def test_every_class_metric_without_some_images_is_what_scikit_learn_says_of_the_same_weights(data):
    labels, probabilities = data
    found = compute_metrics_without(labels, probabilities, top_k=2, without=units(labels)).per_class
    for index, weights in enumerate(columns(labels)):
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            labels, probabilities.argmax(axis=1), sample_weight=weights, zero_division=0.0
        )
        np.testing.assert_allclose(found["precision"][index], precision, atol=1e-6)
        np.testing.assert_allclose(found["recall"][index], recall, atol=1e-6)
        np.testing.assert_allclose(found["f1"][index], f1, atol=1e-6)


def test_a_weighted_confusion_matrix_counts_each_image_as_often_as_it_was_drawn():
    labels, predicted = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    weights = np.array([[1, 2], [1, 0], [1, 3], [1, 1]], dtype=np.float32)
    counts = compute_weighted_confusion(labels, predicted, 3, weights)
    assert counts[:, :, 0].tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert counts[:, :, 1].tolist() == [[2, 0, 0], [0, 3, 0], [1, 0, 0]]


def test_a_class_without_images_has_no_metrics_and_stays_out_of_the_means():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    labels = np.array([0, 1, 0])
    found = compute_metrics_without(labels, probabilities, top_k=2, without=units(labels))
    assert np.isnan(found.per_class["f1"][:, 2]).all()
    assert (found.headline["f1"] == 1).all()


def test_top_k_breaks_ties_as_scikit_learn_does():
    labels = np.array([0, 1, 2])
    probabilities = np.full((3, 3), 1 / 3)
    expected = sk.top_k_accuracy_score(labels, probabilities, k=2, normalize=False)
    assert compute_top_k_hits(labels, probabilities, 2).sum() == expected


def test_a_true_class_of_probability_zero_costs_a_finite_loss():
    assert np.isfinite(compute_log_losses(np.array([0]), np.array([[0.0, 1.0]]))).all()


def test_the_roc_auc_is_left_out_where_it_would_take_too_long(monkeypatch, made_up):
    monkeypatch.setattr("imagetune.evaluation.metrics.scores.AUC_STEPS", 10)
    predictions = made_up(30, 3)
    without = units(predictions.labels)
    found = compute_metrics_without(predictions.labels, predictions.probabilities, top_k=2, without=without)
    assert np.isnan(found.headline["roc_auc"]).all()
    assert np.isfinite(found.headline["f1"]).all()
