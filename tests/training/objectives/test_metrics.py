import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score
from sklearn.metrics import log_loss as sklearn_log_loss

from imagetune.training.objectives.metrics import (
    ConfusionTally,
    compute_class_metrics,
    compute_losses,
    count_confusions,
)


@pytest.fixture
def predictions():
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 200).astype(np.int32)
    logits = random.normal(size=(200, 5)) + 2 * np.eye(5)[labels]
    probabilities = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    return labels, probabilities


def test_metrics_equal_scikit_learn(predictions):
    labels, probabilities = predictions
    predicted = probabilities.argmax(1)
    losses = compute_losses("single_label", np.eye(5, dtype=np.float32)[labels], probabilities)
    metrics = compute_class_metrics(count_confusions(labels, probabilities), float(losses.mean()))
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert metrics["precision"] == pytest.approx(precision_score(labels, predicted, average="macro"))
    assert metrics["recall"] == pytest.approx(recall_score(labels, predicted, average="macro"))
    assert metrics["f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    expected = sklearn_log_loss(labels, probabilities / probabilities.sum(1, keepdims=True, dtype=np.float64))
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_tally_counts_over_batches(predictions):
    labels, probabilities = predictions
    tally = ConfusionTally(5)
    for part in np.array_split(np.arange(200), 7):
        tally.update_state(np.eye(5, dtype=np.float32)[labels[part]], np.log(probabilities[part]))
    np.testing.assert_array_equal(tally.matrix(), count_confusions(labels, probabilities))
    assert float(tally.result()) == pytest.approx(accuracy_score(labels, probabilities.argmax(1)))
    tally.reset_state()
    assert tally.matrix().sum() == 0


def test_a_class_without_images_is_left_out_of_the_averages():
    metrics = compute_class_metrics(np.array([[2.0, 0, 0], [0, 2, 0], [0, 0, 0]]), 0.1)
    assert (metrics["recall"], metrics["f1"]) == (1.0, 1.0)


def test_nothing_gives_zeros():
    assert compute_class_metrics(np.zeros((2, 2)), 0.0)["f1"] == 0.0
