import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression

from imagetune.evaluation.probabilities.temperature import (
    MIN_IMAGES,
    apply_temperature,
    fit_temperature,
    recover_logits,
)


def drawn_classes(n, k, *, temperature, seed):
    """Return probabilities of a softmax whose logits are too large by ``temperature``, and what came true."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, k)) * 1.5
    labels = (random.random((n, 1)) > np.cumsum(softmax(logits, axis=1), axis=1)).sum(axis=1)
    return softmax(temperature * logits, axis=1), np.eye(k)[labels]


def test_a_temperature_of_one_changes_nothing_and_others_change_no_order():
    probabilities, _ = drawn_classes(50, 4, temperature=1.0, seed=0)
    np.testing.assert_allclose(apply_temperature(probabilities, 1.0, "single_label"), probabilities, atol=1e-12)
    for temperature in (0.3, 4.0):
        warm = apply_temperature(probabilities, temperature, "single_label")
        np.testing.assert_allclose(warm.sum(axis=1), 1)
        np.testing.assert_array_equal(np.argsort(warm, axis=1), np.argsort(probabilities, axis=1))
    labels = np.random.default_rng(0).random((20, 3))
    np.testing.assert_allclose(apply_temperature(labels, 1.0, "multi_label"), labels, atol=1e-6)


def test_logits_of_certain_probabilities_are_finite():
    for task in ("single_label", "multi_label"):
        assert np.isfinite(recover_logits(np.array([[0.0, 1.0]]), task)).all()


def test_the_temperature_of_one_label_is_that_of_a_logistic_regression():
    random = np.random.default_rng(1)
    logits = random.normal(size=400) * 2
    true = random.random(400) < expit(logits / 1.8)
    peer = LogisticRegression(C=np.inf, fit_intercept=False).fit(logits[:, None], true)
    found = fit_temperature(expit(logits)[:, None], true[:, None].astype(float), "multi_label", confidence=0.95)
    assert 1 / found.value == pytest.approx(float(peer.coef_[0, 0]), rel=1e-3)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.5])
def test_the_temperature_that_was_put_in_is_found(temperature):
    probabilities, truth = drawn_classes(4000, 5, temperature=temperature, seed=2)
    found = fit_temperature(probabilities, truth, "single_label", confidence=0.95)
    assert found.value == pytest.approx(temperature, rel=0.1)
    assert found.low < found.value < found.high


def test_its_interval_holds_the_temperature_as_often_as_it_says():
    hits = 0
    for seed in range(600):
        probabilities, truth = drawn_classes(200, 4, temperature=1.7, seed=seed)
        found = fit_temperature(probabilities, truth, "single_label", confidence=0.95)
        hits += found.low <= 1.7 <= found.high
    assert 0.93 <= hits / 600 <= 0.97


def test_why_there_is_none_is_said():
    probabilities, truth = drawn_classes(MIN_IMAGES - 1, 3, temperature=1.0, seed=3)
    few = fit_temperature(probabilities, truth, "single_label", confidence=0.95)
    assert few.value is None
    assert "49 validation images are too few" in few.reason
    certain = np.eye(3)[np.arange(60) % 3]
    flawless = fit_temperature(0.7 * certain + 0.1, certain, "single_label", confidence=0.95)
    assert flawless.value is None
    assert "almost no mistakes" in flawless.reason
    wrong = fit_temperature(0.7 * certain + 0.1, np.roll(certain, 1, axis=1), "single_label", confidence=0.95)
    assert wrong.value is None
    assert "say nothing" in wrong.reason
