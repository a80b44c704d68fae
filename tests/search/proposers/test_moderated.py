"""Moderated t: what it borrows, and how often it is wrong and right."""

import numpy as np
import pytest
from scipy.special import polygamma
from scipy.stats import ttest_1samp

from imagetune.core.multiple_testing import adjust_p_values
from imagetune.search.proposers import moderated
from imagetune.search.proposers.moderated import compare_pairs


def test_one_comparison_is_the_ordinary_paired_t():
    gaps = np.array([0.1, 0.3, 0.2, 0.15])
    (found,) = compare_pairs([gaps], confidence=0.9)
    test = ttest_1samp(gaps, 0.0)
    interval = test.confidence_interval(0.9)
    assert (found.mean, found.p) == pytest.approx((gaps.mean(), test.pvalue))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_the_common_variance_and_its_weight_are_found_again():
    random = np.random.default_rng(0)
    true = 2.0 * 6 / random.chisquare(6, 20_000)
    free = np.full(20_000, 2.0)
    degrees, value = moderated._prior(true * random.chisquare(2, 20_000) / 2, free)
    assert degrees == pytest.approx(6, rel=0.1)
    assert value == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("place", [0.05, 0.7, 3.0, 80.0])
def test_the_trigamma_function_is_inverted(place):
    assert moderated._inverse_trigamma(float(polygamma(1, place))) == pytest.approx(place, rel=1e-6)


def test_no_variance_is_taken_to_be_smaller_than_its_own():
    random = np.random.default_rng(1)
    quiet = [random.normal(0, 0.01, 3) for _ in range(8)]
    wild = np.array([-1.0, 0.0, 1.0])
    found = compare_pairs([*quiet, wild], confidence=0.95)[-1]
    # Two standard errors of its own is the least that an interval may reach.
    assert found.high - found.low > 2 * 1.96 * wild.std(ddof=1) / 3**0.5


def test_equal_differences_borrow_their_spread_from_the_others():
    random = np.random.default_rng(2)
    others = [random.normal(0, 0.1, 3) for _ in range(5)]
    found = compare_pairs([np.full(3, 0.01), *others], confidence=0.95)[0]
    assert found.p > 0.05
    assert found.low < 0 < found.high


def test_where_nothing_varies_there_is_no_test():
    assert compare_pairs([np.full(3, 0.1), np.array([0.2]), np.zeros(0)], confidence=0.95) == [None, None, None]


def simulate(*, shift, spreads, rounds=500):
    """Shares of sweeps with a false verdict, of intervals that hold the truth, and of true differences found."""
    random = np.random.default_rng(0)
    shift, wrong, held, seen = np.asarray(shift), 0, [], []
    for _ in range(rounds):
        seeds = random.normal(0, 0.5, 3)
        metrics = seeds + random.normal(size=(len(shift) + 1, 3)) * np.asarray(spreads)[:, None]
        gaps = metrics[1:] - metrics[0] + shift[:, None]
        found = compare_pairs(list(gaps), confidence=0.95)
        sure = np.array(adjust_p_values([comparison.p for comparison in found])) < 0.05
        wrong += bool(sure[shift == 0].any())
        seen += sure[shift != 0].tolist()
        held += [one.low <= true <= one.high for one, true in zip(found, shift, strict=True)]
    return wrong / rounds, np.mean(held), np.mean(seen) if seen else None


def test_false_verdicts_are_as_rare_as_promised_and_large_differences_are_found():
    wrong, held, seen = simulate(shift=[0, 0, 0, 0, 4, -4], spreads=[1] * 7)
    assert wrong < 0.07
    assert held > 0.93
    assert seen > 0.7


def test_settings_that_vary_unlike_each_other_cost_little():
    wrong, held, _ = simulate(shift=[0.0] * 6, spreads=[1, 0.4, 2.5, 0.7, 1.5, 0.5, 2])
    assert wrong < 0.1
    assert held > 0.9
