import json

import numpy as np
import pytest
from scipy.stats import linregress, spearmanr, ttest_1samp

from imagetune.evaluation.errors.residuals import (
    analyse_residuals,
    compute_bias_p_value,
    compute_error_quantile,
    describe_bias,
    fit_calibration_line,
)
from imagetune.evaluation.metrics.regression import bin_numbers


def run_of(examined, true, given, groups=None):
    return examined(
        {"test": [str(value) for value in np.asarray(true).tolist()]},
        {"test": np.zeros((len(true), 2))},
        {"test": np.asarray(given)[:, None]},
        task="regression",
        classes=("age",),
        groups=None if groups is None else {"test": groups},
    )


def normal(n, *, seed, spread=3.0):
    random = np.random.default_rng(seed)
    given = random.uniform(20, 80, n)
    return given + random.normal(0, spread, n), given


def test_the_line_is_that_of_min_squares_in_every_resampling():
    true, given = normal(60, seed=0)
    true = 10 + 0.5 * true
    weights = np.random.default_rng(1).integers(0, 4, (60, 3))
    slopes, intercepts = fit_calibration_line(true, given, weights)
    for column in range(3):
        drawn = np.repeat(np.arange(60), weights[:, column])
        expected = linregress(given[drawn], true[drawn])
        assert slopes[column] == pytest.approx(expected.slope)
        assert intercepts[column] == pytest.approx(expected.intercept)
    assert np.isnan(fit_calibration_line(true, np.full(60, 7.0), weights)[0]).all()


def test_a_quantile_of_errors_is_that_of_the_images_drawn():
    errors = np.random.default_rng(0).exponential(size=37)
    weights = np.random.default_rng(1).integers(0, 4, (37, 3))
    for share in (0.5, 0.9, 0.95):
        found = compute_error_quantile(errors, share, weights)
        for column in range(3):
            drawn = np.repeat(errors, weights[:, column])
            assert found[column] == np.quantile(drawn, share, method="inverted_cdf")


def test_bias_is_tested_by_students_t_of_images_or_of_groups():
    residuals = np.random.default_rng(0).normal(0.5, 1, 30)
    assert compute_bias_p_value(residuals, None) == pytest.approx(ttest_1samp(residuals, 0).pvalue)
    groups = np.arange(30) // 5
    means = residuals.reshape(6, 5).mean(axis=1)
    assert compute_bias_p_value(residuals, groups) == pytest.approx(ttest_1samp(means, 0).pvalue)
    assert compute_bias_p_value(residuals[:1], None) == 1.0


def test_ranges_have_about_as_many_numbers_and_equal_ones_stay_together():
    codes, names = bin_numbers(np.arange(50.0), most=5, least=10)
    assert np.bincount(codes).tolist() == [10] * 5
    assert names[0] == "up to 9.8"
    assert names[-1] == "above 39.2"
    grades = np.repeat([1.0, 2.0, 3.0], [40, 40, 5])
    codes, names = bin_numbers(grades, most=5, least=10)
    assert names == ("up to 1", "above 1")
    np.testing.assert_array_equal(codes, grades > 1)
    assert bin_numbers(np.full(50, 3.0), most=5, least=10)[1] == ("all",)
    assert bin_numbers(np.arange(19.0), most=5, least=10)[1] == ("all",)


def test_a_right_model_is_reported_as_neither_too_high_nor_too_low(examined):
    true, given = normal(200, seed=3)
    part = analyse_residuals(run_of(examined, true, given))
    json.dumps(part, allow_nan=False)
    assert part["bias"]["low"] < 0 < part["bias"]["high"]
    assert part["slope"]["low"] < 1 < part["slope"]["high"]
    assert part["intercept"]["low"] < 0 < part["intercept"]["high"]
    assert part["growth"]["low"] < 0 < part["growth"]["high"]
    assert not any(row["off"] for row in part["by_prediction"])
    within = [row["error"]["value"] for row in part["within"]]
    # Of normal errors half are within 0.674 standard deviations, nine of ten within 1.645.
    assert within[:2] == pytest.approx([0.674 * 3, 1.645 * 3], rel=0.2)
    assert f"within {within[0]:.4g} of the truth" in part["text"]
    assert "Overall the predictions have no significant bias." in part["text"]
    assert sum(row["images"] for row in part["by_true"]) == 200


def test_planted_bias_is_reported_with_its_range_and_its_size(examined):
    true, given = normal(200, seed=4)
    part = analyse_residuals(run_of(examined, true, given + 8 * (given > 68)))
    assert [row["off"] for row in part["by_prediction"]] == ["", "", "", "", "too high"]
    last = part["by_prediction"][-1]
    assert last["bias"]["low"] < 8 < last["bias"]["high"]
    assert last["range"] in part["text"]
    residuals = given + 8 * (given > 68) - true
    assert last["error"]["value"] == pytest.approx(np.abs(residuals[np.argsort(given)[-40:]]).mean())


def test_a_timid_model_and_errors_that_grow_are_reported(examined):
    true, given = normal(200, seed=5)
    timid = analyse_residuals(run_of(examined, true, 50 + 0.5 * (given - 50)))
    assert timid["slope"]["value"] == pytest.approx(2, rel=0.1)
    assert "stay too near the middle" in timid["text"]
    random = np.random.default_rng(6)
    part = analyse_residuals(run_of(examined, given + 0.1 * given * random.normal(size=200), given))
    assert part["growth"]["low"] > 0
    assert "Errors grow with the prediction" in part["text"]


def test_growth_is_the_rank_correlation_of_prediction_and_distance(examined):
    true, given = normal(80, seed=7)
    line = linregress(given, true)
    far = np.abs(true - line.intercept - line.slope * given)
    part = analyse_residuals(run_of(examined, true, given))
    assert part["growth"]["value"] == pytest.approx(spearmanr(given, far).statistic)


def width(metric):
    return metric["high"] - metric["low"]


def test_groups_are_taken_whole(examined):
    random = np.random.default_rng(8)
    shifts = np.repeat(random.normal(0, 5, 20), 10)
    given = random.uniform(20, 80, 200)
    true = given + shifts
    alone = analyse_residuals(run_of(examined, true, given))
    grouped = analyse_residuals(run_of(examined, true, given, [f"g{place // 10}" for place in range(200)]))
    assert width(grouped["bias"]) > 2 * width(alone["bias"])
    assert width(grouped["by_prediction"][0]["bias"]) > width(alone["by_prediction"][0]["bias"])


def test_intervals_of_small_ranges_hold_the_truth_as_often_as_they_say(examined):
    """Two ranges of ten normal errors each: 95% intervals hold the true mean 93 to 97% of the time."""
    hits = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        given = np.arange(20.0)
        part = analyse_residuals(run_of(examined, given - random.normal(1, 2, 20), given))
        hits += [row["bias"]["low"] < 1 < row["bias"]["high"] for row in part["by_prediction"]]
    assert len(hits) == 400
    assert 0.93 <= np.mean(hits) <= 0.975, np.mean(hits)


def test_one_prediction_for_all_and_few_images_have_no_line_and_no_ranges(examined):
    part = analyse_residuals(run_of(examined, [1.0, 2.0, 3.0], [2.0, 2.0, 2.0]))
    assert part["slope"]["value"] is None
    assert part["growth"]["reason"] == "all predictions are the same"
    assert part["by_true"] == part["by_prediction"] == []
    json.dumps(part, allow_nan=False)


def test_classes_have_no_residuals(examined):
    run = examined({"test": ["a", "b"]}, {"test": np.zeros((2, 2))}, {"test": np.eye(2)}, classes=("a", "b"))
    assert analyse_residuals(run) is None


def test_bias_is_reported_with_its_sign_and_interval():
    told = describe_bias({"value": -3.0, "low": -4.0, "high": -2.0}, unit=" ranks")
    assert told == "Overall the predictions are too low, by 3 ranks on average (2 to 4)."
