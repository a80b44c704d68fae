import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from imagetune.evaluation.probabilities.confidence import Draws
from imagetune.evaluation.probabilities.reliability import (
    bin_predictions,
    compute_plain_ece,
    compute_squared_errors,
    decompose_brier_score,
    estimate_calibration_error,
    simulate_chance_errors,
)
from imagetune.evaluation.statistics.bootstrap import Bootstrap


def predictions(n, *, seed, slope=1.0):
    """Return claims and what outcomes, where a claim p comes true with ``0.5 + slope * (p - 0.5)``."""
    random = np.random.default_rng(seed)
    forecasts = random.beta(4, 1.2, n)
    return forecasts[:, None], (random.random(n) < truth_of(forecasts, slope)).astype(float)[:, None]


def truth_of(forecasts, slope):
    return 0.5 + slope * (forecasts - 0.5)


def test_bins_are_those_of_scikit_learn():
    forecasts, outcomes = predictions(300, seed=0)
    bins = bin_predictions(forecasts, outcomes, bins=10)
    true, predicted = calibration_curve(outcomes[:, 0], forecasts[:, 0], n_bins=10, strategy="quantile")
    counts = bins.counts.sum(axis=0)
    np.testing.assert_array_equal(counts, 30)
    np.testing.assert_allclose(bins.outcomes.sum(axis=0) / counts, true)
    np.testing.assert_allclose(bins.forecasts.sum(axis=0) / counts, predicted)


def test_equal_claims_stay_in_one_bin():
    forecasts = np.repeat([0.5, 0.9, 1.0], [5, 5, 90])[:, None]
    bins = bin_predictions(forecasts, np.ones_like(forecasts))
    assert sorted(bins.counts.sum(axis=0))[-1] >= 90
    assert bins.counts.sum() == 100
    one = bin_predictions(np.full((10, 1), 0.7), np.ones((10, 1)))
    assert one.counts.sum(axis=0).tolist() == [10]


def test_errors_worked_by_hand():
    # Two bins of two predictions: forecasts 0.3 and 0.8 on average, half and all of them came true.
    forecasts, outcomes = np.array([[0.2], [0.4], [0.7], [0.9]]), np.array([[0.0], [1.0], [1.0], [1.0]])
    bins = bin_predictions(forecasts, outcomes, bins=2)
    assert compute_plain_ece(bins) == pytest.approx(0.5 * 0.2 + 0.5 * 0.2)
    plain, corrected = compute_squared_errors(bins, np.ones((4, 1)))
    assert plain[0] == pytest.approx(0.04)
    # Variances of the mean gap: of (-0.2, 0.6) and (0.3, 0.1), over two.
    assert corrected[0] == pytest.approx(0.04 - 0.5 * (0.32 / 2) - 0.5 * (0.02 / 2))


def test_weights_count_images_as_often_as_they_say():
    forecasts, outcomes = predictions(40, seed=3)
    weights = np.random.default_rng(0).integers(0, 4, (40, 1))
    bins = bin_predictions(forecasts, outcomes)
    repeated = np.repeat(np.arange(40), weights[:, 0])
    again = type(bins)(bins.edges, bins.counts[repeated], bins.forecasts[repeated], bins.outcomes[repeated])
    np.testing.assert_allclose(
        compute_squared_errors(bins, weights), compute_squared_errors(again, np.ones((len(repeated), 1))), atol=1e-12
    )


@pytest.mark.parametrize(("n", "slope"), [(100, 1.0), (400, 1.0), (400, 0.6)])
def test_the_squared_error_has_no_bias(n, slope):
    plain, corrected, true = [], [], []
    for seed in range(400):
        forecasts, outcomes = predictions(n, seed=seed, slope=slope)
        bins = bin_predictions(forecasts, outcomes)
        errors = compute_squared_errors(bins, np.ones((n, 1)))
        plain.append(float(errors[0][0]))
        corrected.append(float(errors[1][0]))
        gap = (truth_of(forecasts, slope) - forecasts)[:, 0]
        place = np.searchsorted(bins.edges[1:-1], forecasts[:, 0], side="right")
        true.append((np.bincount(place, gap) ** 2 / np.bincount(place)).sum() / n)
    error = np.std(corrected) / 20
    assert abs(np.mean(corrected) - np.mean(true)) < 3 * error + 1e-4
    assert np.mean(plain) - np.mean(true) > 5 * error


@pytest.mark.parametrize(("slope", "most"), [(0.5, 0.975), (1.0, 1.0)])
def test_its_interval_holds_the_error_as_often_as_it_says(slope, most):
    population = np.random.default_rng(99).beta(4, 1.2, 20_000)
    hits, runs = 0, 300
    for seed in range(runs):
        forecasts, outcomes = predictions(200, seed=seed, slope=slope)
        bins = bin_predictions(forecasts, outcomes)
        found = estimate_calibration_error(bins, Draws(200, Bootstrap(150, 0.95, seed, stratified=False)))
        place = np.searchsorted(bins.edges[1:-1], population, side="right")
        gap = truth_of(population, slope) - population
        true = np.sqrt((np.bincount(place, gap) ** 2 / np.bincount(place)).sum() / len(population))
        hits += found.low - 1e-12 <= true <= found.high + 1e-12
    # Where there is no error at all the interval begins at 0, so that it is on the safe side.
    assert 0.93 <= hits / runs <= most


def test_a_perfect_model_is_seldom_called_miscalibrated_by_chance():
    rejected = 0
    for seed in range(300):
        forecasts, outcomes = predictions(120, seed=seed)
        bins = bin_predictions(forecasts, outcomes)
        errors = simulate_chance_errors(bins, forecasts[:, 0], samples=200, seed=seed)
        rejected += (1 + (errors >= compute_plain_ece(bins)).sum()) / 201 < 0.05
    assert 0.02 <= rejected / 300 <= 0.08


def test_chance_errors_are_those_of_predictions_drawn_anew():
    forecasts, outcomes = predictions(60, seed=8)
    bins = bin_predictions(forecasts, outcomes)
    found = simulate_chance_errors(bins, forecasts[:, 0], samples=4000, seed=0)
    random = np.random.default_rng(1)
    slow = [
        compute_plain_ece(bin_predictions(forecasts, (random.random((60, 1)) < forecasts).astype(float)))
        for _ in range(1000)
    ]
    assert found.mean() == pytest.approx(np.mean(slow), rel=0.05)


def test_brier_parts_sum_up_to_the_score():
    random = np.random.default_rng(4)
    probabilities = random.dirichlet([1, 1, 1], 200)
    labels = np.array([random.choice(3, p=row) for row in probabilities])
    truth = np.eye(3)[labels]
    parts = decompose_brier_score(probabilities, truth)
    score = sum(brier_score_loss(truth[:, index], probabilities[:, index]) for index in range(3))
    assert parts.reliability - parts.resolution + parts.uncertainty == pytest.approx(score)
    assert parts.uncertainty == pytest.approx(1 - (np.bincount(labels) ** 2).sum() / 200**2)
    assert parts.reliability < 0.02


def test_brier_parts_worked_by_hand():
    # Claims of 0.1 and 0.9; of ten images each 3 and 9 came true.
    forecasts = np.repeat([0.1, 0.9], 10)[:, None]
    outcomes = np.array([1.0] * 3 + [0.0] * 7 + [1.0] * 9 + [0.0])[:, None]
    parts = decompose_brier_score(forecasts, outcomes)
    scatter = (0.3 * 0.7 + 0.9 * 0.1) / 9
    assert parts.reliability == pytest.approx((0.2**2 + 0 - scatter) / 2)
    assert parts.uncertainty == pytest.approx(0.6 * 0.4)
