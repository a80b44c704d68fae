import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import t, ttest_1samp

from imagetune.evaluation.statistics.bootstrap import Bootstrap, compute_precision
from imagetune.evaluation.statistics.intervals import (
    ShareSize,
    estimate_from_left_out,
    estimate_mean,
    leave_out_weights,
    list_units,
)
from imagetune.evaluation.statistics.jackknife import (
    LeftOut,
    build_units,
    compute_jackknife_means,
    compute_scaled_interval,
    compute_spread,
)

GENERATOR = np.random.default_rng(3)


def test_the_error_of_a_mean_is_the_known_one():
    values = GENERATOR.normal(5, 2, 60)
    found = compute_spread(
        compute_jackknife_means(values, np.ones(60), list_units(np.zeros(60, np.int64), Bootstrap()))
    )
    assert found.error == pytest.approx(values.std(ddof=1) / 60**0.5)
    # Normal numbers leave about all degrees of freedom: 2 / (kurtosis - 1) of them.
    assert 30 < found.freedom <= 59


def test_a_mean_of_even_numbers_has_students_interval():
    values = np.tile([1.0, 3.0], 10)
    found = estimate_mean(values, Bootstrap())
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.method == "jackknife"


def test_a_mean_that_one_image_decides_is_less_sure_than_students():
    values = np.append(np.ones(40), 60.0)
    found, plain = estimate_mean(values, Bootstrap()), ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.high - found.low > 2 * (plain.high - plain.low)
    # About two degrees of freedom are left.
    assert found.high > values.mean() + t.ppf(0.975, 3) * values.std(ddof=1) / 41**0.5


def test_classes_of_fixed_size_are_left_out_within_themselves():
    labels = np.repeat([0, 1], 30)
    values = np.where(labels == 0, 0.0, 10.0) + GENERATOR.normal(size=60)
    found = compute_spread(compute_jackknife_means(values, np.ones(60), list_units(labels, Bootstrap())))
    own = [values[labels == label].var(ddof=1) for label in (0, 1)]
    assert found.error == pytest.approx((np.mean(own) / 60) ** 0.5)


def test_groups_are_left_out_whole():
    groups = np.array([0, 0, 1, 1, 1, 2])
    units = list_units(np.zeros(6, np.int64), Bootstrap(), groups)
    (weights,) = leave_out_weights(units)
    np.testing.assert_array_equal(weights.T, [[0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 0, 1], [1, 1, 1, 1, 1, 0]])
    values = np.array([1.0, 2, 3, 4, 5, 6])
    np.testing.assert_allclose(
        compute_jackknife_means(values, np.ones(6), units).values, values @ weights / weights.sum(axis=0)
    )


def test_groups_of_one_size_have_the_error_of_their_means():
    values = GENERATOR.normal(size=(12, 5)) + GENERATOR.normal(size=(12, 1))
    units = list_units(np.zeros(60, np.int64), Bootstrap(), np.repeat(np.arange(12), 5))
    found = compute_spread(compute_jackknife_means(values.ravel(), np.ones(60), units))
    assert found.error == pytest.approx(values.mean(axis=1).std(ddof=1) / 12**0.5)
    assert found.freedom <= 11


def test_very_many_images_are_left_out_several_at_once():
    values, labels = GENERATOR.exponential(size=5000), np.repeat([0, 1], [4000, 1000])
    units = build_units(labels, groups=None, stratified=True, most=200, seed=1)
    assert len(units.strata) == 200
    assert set(np.bincount(units.codes)) == {25}
    assert (labels[units.codes == 0] == 0).all()
    found = compute_spread(compute_jackknife_means(values, np.ones(5000), units))
    assert found.error == pytest.approx(values.std() / 5000**0.5, rel=0.15)


def test_a_curved_metric_is_as_sure_as_scipys_bootstrap_says():
    values = GENERATOR.normal(0, 3, 200)
    units = list_units(np.zeros(200, np.int64), Bootstrap())
    (weights,) = leave_out_weights(units)
    left_out = LeftOut(np.sqrt(values**2 @ weights / weights.sum(axis=0)), units.strata)
    root = lambda drawn, axis: np.sqrt((drawn**2).mean(axis=axis))  # noqa: E731
    expected = scipy_bootstrap((values,), root, n_resamples=4000, random_state=0).standard_error
    assert compute_spread(left_out).error == pytest.approx(expected, rel=0.1)


def test_what_one_group_alone_defines_has_no_interval():
    found = estimate_from_left_out(
        0.8, LeftOut(np.array([0.8, np.nan, 0.8]), np.zeros(3, np.int64)), 0.95, share=ShareSize(5)
    )
    assert (found.low, found.high) == (None, None)
    assert "one image or group" in found.reason


def test_a_metric_that_no_image_changes_has_no_interval():
    found = estimate_mean(np.full(20, 0.3), Bootstrap())
    assert (found.value, found.low) == (pytest.approx(0.3), None)
    assert "the same without any one image or group" in found.reason


def test_a_flawless_share_of_groups_counts_for_fewer_images():
    groups = np.repeat(np.arange(10), 5)
    precision = compute_precision(np.zeros(50, np.int64), Bootstrap(), groups)
    # Kish's design effect of groups of five with a correlation of a half is 1 + 4 / 2.
    assert precision.worth == pytest.approx(1 / 3)
    left_out = LeftOut(np.ones(10), np.zeros(10, np.int64))
    found = estimate_from_left_out(1.0, left_out, 0.95, share=ShareSize(50, precision.worth))
    assert found.low == pytest.approx(0.025 ** (3 / 50))


@pytest.mark.parametrize(
    ("value", "scale", "ends"),
    [(2.0, "loss", (0.0, np.inf)), (0.9, "shortfall", (-np.inf, 1.0)), (0.9, "correlation", (-1, 1))],
)
def test_an_interval_stays_where_the_metric_can_lie(value, scale, ends):
    low, high = compute_scaled_interval(value, 3.0, scale)
    assert ends[0] <= low < value < high <= ends[1]
    # A short one is the plain one.
    assert compute_scaled_interval(value, 1e-4, scale) == pytest.approx((value - 1e-4, value + 1e-4), abs=1e-6)
