import numpy as np
import pytest
from scipy.stats import beta

from imagetune.evaluation.statistics.bootstrap import Bootstrap, compute_percentile_interval, draw_weights
from imagetune.evaluation.statistics.intervals import Estimate, compute_effective_images
from imagetune.evaluation.statistics.proportions import compute_exact_bound

LABELS = np.array([0, 1, 1, 2, 2, 2, 2, 0, 1, 2])


def all_weights(labels, bootstrap, **arguments):
    return np.concatenate(list(draw_weights(labels, bootstrap, **arguments)), axis=1)


def test_the_seed_decides_the_resamplings():
    first, again = (all_weights(LABELS, Bootstrap(samples=50, seed=4)) for _ in range(2))
    other = all_weights(LABELS, Bootstrap(samples=50, seed=5))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_stratified_resamplings_keep_the_images_of_each_class():
    weights = all_weights(LABELS, Bootstrap(samples=100))
    assert weights.shape == (10, 100)
    for label in range(3):
        assert (weights[label == LABELS].sum(axis=0) == (label == LABELS).sum()).all()


def test_plain_resamplings_keep_only_the_total():
    weights = all_weights(LABELS, Bootstrap(samples=100, stratified=False))
    assert (weights.sum(axis=0) == 10).all()
    assert len(np.unique(weights[LABELS == 0].sum(axis=0))) > 1


def test_every_image_is_drawn_equally_often():
    weights = all_weights(LABELS, Bootstrap(samples=20_000))
    np.testing.assert_allclose(weights.mean(axis=1), 1, atol=0.05)
    # Drawing n of n with repetition gives each a variance of 1 - 1/n within its class.
    np.testing.assert_allclose(weights[LABELS == 2].var(axis=1), 1 - 1 / 5, atol=0.05)


def test_chunks_hold_all_samples_and_stay_small():
    chunks = list(draw_weights(LABELS, Bootstrap(samples=25), cells_a_sample=200_000))
    assert [chunk.shape[1] for chunk in chunks] == [10, 10, 5]


def test_the_interval_is_the_middle_of_the_samples():
    assert compute_percentile_interval(np.arange(101) / 100, 0.9) == pytest.approx((0.05, 0.95))


def test_samples_without_a_metric_are_left_out_of_the_interval():
    assert compute_percentile_interval(np.array([np.nan, 1.0, np.nan, 1.0]), 0.95) == (1.0, 1.0)
    assert compute_percentile_interval(np.array([np.nan]), 0.95) is None


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(1)
    covered = 0
    for trial in range(300):
        right = (generator.random(120) < 0.8).astype(np.float64)
        weights = all_weights(np.zeros(120, dtype=np.int64), Bootstrap(samples=300, seed=trial))
        low, high = compute_percentile_interval(right @ weights / 120, 0.95)
        covered += low <= 0.8 <= high
    assert 0.90 <= covered / 300 <= 0.985


@pytest.mark.parametrize("images", [1, 12, 300])
def test_the_bound_without_a_mistake_is_clopper_and_pearsons(images):
    assert compute_exact_bound(images, 0.95) == pytest.approx(beta.ppf(0.025, images, 1))


def test_equal_classes_are_worth_all_their_images_and_unequal_ones_fewer():
    assert compute_effective_images(np.array([10.0, 10.0])) == pytest.approx(20)
    assert compute_effective_images(np.array([1.0, 19.0])) == pytest.approx(4 / (1 + 1 / 19))


def test_an_estimate_without_reason_has_none_in_json():
    assert Estimate(0.5, 0.4, 0.6).to_dict() == {"value": 0.5, "low": 0.4, "high": 0.6}
    assert Estimate(None, reason="why").to_dict() == {"value": None, "low": None, "high": None, "reason": "why"}
