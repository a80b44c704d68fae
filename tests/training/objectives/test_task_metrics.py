"""Metrics of an epoch beside those of scikit-learn, for several labels, ordered classes and numbers."""

import keras
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, precision_score, r2_score, recall_score

from imagetune.data.loading.targets import ValueScale, compute_median_class
from imagetune.recipe.sections.learning import LossConfig
from imagetune.training.objectives.losses import build_loss
from imagetune.training.objectives.metrics import build_tally, compute_prediction_metrics

RANDOM = np.random.default_rng(0)


def tallied(tally, targets, outputs, loss=0.0):
    for part in np.array_split(np.arange(len(targets)), 7):
        tally.update_state(targets[part], outputs[part])
    return tally.metrics(loss)


def loss_of(task, targets, logits):
    losses = build_loss(LossConfig(), task)(targets.astype(np.float32), logits.astype(np.float32))
    return float(np.mean(keras.ops.convert_to_numpy(losses)))


@pytest.fixture
def tags():
    targets = (RANDOM.random((150, 4)) < [0.6, 0.4, 0.2, 0.0]).astype(np.float32)
    logits = (RANDOM.normal(size=(150, 4)) + 3 * targets - 1.5).astype(np.float32)
    return targets, logits


def test_several_labels_as_in_scikit_learn(tags):
    targets, logits = tags
    given = logits >= 0
    probabilities = 1 / (1 + np.exp(-logits))
    present = [0, 1, 2]
    options = {"average": "macro", "labels": present, "zero_division": 0.0}
    expected = {
        "accuracy": accuracy_score(targets, given),
        "precision": precision_score(targets, given, **options),
        "recall": recall_score(targets, given, **options),
        "f1": f1_score(targets, given, **options),
    }
    metrics = tallied(build_tally("multi_label", 4), targets, logits)
    predictions = compute_prediction_metrics("multi_label", targets, probabilities)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-6)
        assert predictions[name] == pytest.approx(value, abs=1e-6)
    assert predictions["loss"] == pytest.approx(loss_of("multi_label", targets, logits), rel=1e-4)


def test_soft_labels_count_by_their_share():
    tally = build_tally("single_label", 2)
    tally.update_state(np.array([[0.75, 0.25]], np.float32), np.array([[2.0, 1.0]], np.float32))
    np.testing.assert_allclose(tally.matrix(), [[0.75, 0], [0.25, 0]])


def test_a_teachers_columns_are_passed_over():
    targets = np.eye(3, dtype=np.float32)[[0, 1, 2, 1]]
    logits = RANDOM.normal(size=(4, 3)).astype(np.float32)
    plain, taught = build_tally("single_label", 3), build_tally("single_label", 3)
    plain.update_state(targets, logits)
    taught.update_state(np.concatenate([targets, np.ones((4, 3), np.float32)], axis=1), logits)
    np.testing.assert_array_equal(plain.matrix(), taught.matrix())


def test_ordered_classes_are_predicted_by_the_median():
    labels = RANDOM.integers(0, 5, 200)
    logits = RANDOM.normal(size=(200, 5)).astype(np.float32) + 2 * np.eye(5, dtype=np.float32)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predicted = compute_median_class(probabilities)
    assert (predicted != probabilities.argmax(axis=1)).any()
    targets = np.eye(5, dtype=np.float32)[labels]
    metrics = tallied(build_tally("ordinal", 5), targets, logits)
    predictions = compute_prediction_metrics("ordinal", targets, probabilities)
    for found in (metrics, predictions):
        assert found["mae"] == pytest.approx(np.abs(predicted - labels).mean(), abs=1e-6)
        assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted), abs=1e-6)
    assert predictions["loss"] == pytest.approx(loss_of("ordinal", targets, logits), rel=1e-4)


def test_numbers_in_their_units():
    scale = ValueScale(1000.0, 40.0)
    true = RANDOM.normal(1000, 40, (150, 1)).astype(np.float32)
    given = true + RANDOM.normal(0, 30, (150, 1)).astype(np.float32)
    normalised = [((values - scale.mean) / scale.std).astype(np.float32) for values in (true, given)]
    metrics = tallied(build_tally("regression", 1, scale), *normalised)
    predictions = compute_prediction_metrics("regression", true, given, scale)
    for found in (metrics, predictions):
        assert set(found) == {"loss", "mae", "r2"}
        assert found["mae"] == pytest.approx(mean_absolute_error(true, given), rel=1e-4)
        assert found["r2"] == pytest.approx(r2_score(true, given), abs=1e-4)
    assert predictions["loss"] == pytest.approx(loss_of("regression", *normalised), rel=1e-4)


def test_equal_numbers_explain_nothing():
    same = np.full((4, 1), 3.0, np.float32)
    assert compute_prediction_metrics("regression", same, same + 1)["r2"] == 0.0


@pytest.mark.parametrize(("task", "outputs"), [("multi_label", 3), ("ordinal", 3), ("regression", 1)])
def test_nothing_gives_zeros_and_a_reset_forgets(task, outputs):
    tally = build_tally(task, outputs)
    empty = tally.metrics(0.0)
    assert set(empty.values()) == {0.0}
    tally.update_state(np.ones((2, outputs), np.float32), np.ones((2, outputs), np.float32))
    tally.reset_state()
    assert tally.metrics(0.0) == empty
    nothing = np.zeros((0, outputs), np.float32)
    assert set(compute_prediction_metrics(task, nothing, nothing).values()) == {0.0}
