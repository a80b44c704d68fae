import numpy as np
import pytest
from scipy.stats import binomtest, t

from imagetune.evaluation.probabilities.confidence import Draws
from imagetune.evaluation.statistics.bootstrap import Bootstrap, draw_weights
from imagetune.evaluation.statistics.intervals import encode_groups, estimate_f1, estimate_share
from imagetune.evaluation.statistics.proportions import (
    compute_effective_count,
    compute_two_sided_quantile,
    compute_wilson_interval,
)


@pytest.mark.parametrize(("hits", "images"), [(1, 10), (70, 85), (81, 263), (299, 300)])
def test_wilsons_interval_is_scipys(hits, images):
    expected = binomtest(hits, images).proportion_ci(0.95, method="wilson")
    found = estimate_share(hits, images, 0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.method == "wilson"


def test_wilsons_interval_is_that_of_a_published_example():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 give 0.2553 to 0.3662.
    found = estimate_share(81, 263, 0.95)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


@pytest.mark.parametrize("hits", [0, 12])
def test_at_the_ends_it_is_the_exact_interval(hits):
    expected = binomtest(hits, 12).proportion_ci(0.95, method="exact")
    found = estimate_share(hits, 12, 0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.method == "clopper-pearson"


def test_an_f1_comes_from_a_share():
    # 8 right, 10 of the class, 12 predicted as it: J = 8 / 14, F1 = 16 / 22.
    found, share = estimate_f1(8, 10, 12, 0.95), estimate_share(8, 14, 0.95)
    assert found.value == pytest.approx(16 / 22)
    assert found.low == pytest.approx(2 * share.low / (1 + share.low))
    assert found.low < found.value < found.high


def test_few_groups_reach_further():
    assert compute_two_sided_quantile(0.95) == pytest.approx(1.959964)
    assert compute_two_sided_quantile(0.95, 10) == pytest.approx(t.ppf(0.975, 9))


def test_a_share_of_independent_images_is_worth_all_of_them():
    assert compute_effective_count(0.8, 0.8 * 0.2 / 50) == pytest.approx(50)
    assert compute_effective_count(1.0, 0.0) is None
    low, high = compute_wilson_interval(np.array([0.0, 0.5, 1.0]), np.array([9.0, 9.0, 9.0]), 1.96)
    assert ((low >= 0) & (high <= 1) & (low <= [0, 0.5, 1]) & (high >= [0, 0.5, 1])).all()


def test_groups_get_numbers_and_images_without_one_are_alone():
    codes = encode_groups(["b", None, "b", None, "a"])
    assert len(set(codes[[0, 2]])) == 1
    assert len(set(codes)) == 4
    assert encode_groups(["a", "b", None, None]) is None
    assert encode_groups([]) is None


def test_whole_groups_are_drawn():
    codes = np.array([0, 0, 1, 1, 1, 2])
    (weights,) = draw_weights(np.zeros(6, np.int64), Bootstrap(samples=200), groups=codes)
    for group in range(3):
        assert (np.ptp(weights[codes == group], axis=0) == 0).all()
    assert (weights[[0, 2, 5]].sum(axis=0) == 3).all()


def test_an_interval_of_groups_is_longer_where_they_are_alike():
    right = np.repeat([1.0, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 0], 5) > 0
    bootstrap = Bootstrap(stratified=False)
    found = [Draws(60, bootstrap, groups).share(right) for groups in (np.repeat(np.arange(12), 5), None)]
    widths = [metric.high - metric.low for metric in found]
    # Five alike images are worth no more than one: the interval is about sqrt(5) times as long.
    assert widths[0] / widths[1] == pytest.approx(5**0.5, rel=0.15)
