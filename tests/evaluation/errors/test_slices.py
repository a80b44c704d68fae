from itertools import combinations

import numpy as np
import pytest
from scipy.stats import fisher_exact, hypergeom, mannwhitneyu, rankdata

from imagetune.evaluation.errors.regression_slices import compare_errors, compute_van_elteren_p_value
from imagetune.evaluation.errors.slices import (
    compare_slices,
    compute_worse_p_value,
    intersect_slices,
    iterate_slices,
    parse_column,
)
from imagetune.evaluation.statistics.bootstrap import Bootstrap


def table(right, inside):
    return [[(right & inside).sum(), (~right & inside).sum()], [(right & ~inside).sum(), (~right & ~inside).sum()]]


@pytest.mark.parametrize("count", [20, 90, 400])
def test_without_classes_it_is_fishers_exact_test(count):
    random = np.random.default_rng(count)
    for _ in range(20):
        right, inside = random.random(count) < 0.8, random.random(count) < 0.3
        expected = fisher_exact(table(right, inside), alternative="less").pvalue
        assert compute_worse_p_value(right, inside, np.zeros(count, np.int64)) == pytest.approx(expected)


def test_fishers_tea_tasting():
    # The Design of Experiments, 1935: three of four cups; 16 + 1 of 70 ways are as good or better.
    right = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)
    assert compute_worse_p_value(~right, np.arange(8) < 4, np.zeros(8, np.int64)) == pytest.approx(17 / 70)


def test_within_classes_it_counts_all_exchanges():
    right = np.array([1, 0, 0, 1, 1, 1, 0, 1, 1, 0], bool)
    inside = np.array([1, 1, 0, 0, 0, 1, 1, 0, 0, 0], bool)
    classes = np.array([0] * 5 + [1] * 5)
    found = (right & inside).sum()
    ways = [
        right[list(one)].sum() + right[[5 + place for place in other]].sum()
        for one in combinations(range(5), 2)
        for other in combinations(range(5), 2)
    ]
    assert compute_worse_p_value(right, inside, classes) == pytest.approx(np.mean(np.array(ways) <= found))


def test_many_images_are_nearly_as_if_counted():
    random = np.random.default_rng(1)
    right, inside = random.random(3000) < 0.6, random.random(3000) < 0.5
    right &= ~inside | (random.random(3000) < 0.96)
    hits, size, drawn = (int(values.sum()) for values in (right, right | True, inside))
    expected = hypergeom.cdf((right & inside).sum(), size, hits, drawn)
    assert compute_worse_p_value(right, inside, np.zeros(3000, np.int64)) == pytest.approx(expected, rel=0.02)


def test_a_harder_class_is_distinguished_from_a_harder_slice():
    # Class 0 is hard and nearly all of camera x; within classes the cameras are alike.
    random = np.random.default_rng(3)
    classes = np.repeat([0, 1], 200)
    camera = np.where(random.random(400) < np.where(classes == 0, 0.9, 0.1), "x", "y").astype(object)
    right = random.random(400) < np.where(classes == 0, 0.5, 0.95)
    found = compare_slices(right, classes, {"camera": camera}, confidence=0.95, grouped=False)
    (worst,) = [row for row in found["slices"] if row["name"] == "camera: x"]
    assert worst["worse"]
    assert not worst["worse_classes"]
    assert worst["expected"] == pytest.approx(worst["right"]["value"], abs=0.06)
    assert "Its classes may just be harder" in found["text"]


def test_a_planted_slice_is_found_first():
    random = np.random.default_rng(4)
    camera = random.choice(["a", "b", "c"], 600).astype(object)
    light = random.random(600)
    dark = light < np.quantile(light, 1 / 3)
    right = random.random(600) < np.where(dark & (camera == "b"), 0.4, 0.9)
    attributes = {"camera": camera, "brightness": light, "size": random.random(600)}
    found = compare_slices(right, random.integers(0, 4, 600), attributes, confidence=0.95, grouped=False)
    first = found["slices"][0]
    assert first["name"].startswith("camera: b, brightness: low (up to 0.3")
    assert first["worse"]
    assert first["worse_classes"]
    assert first["right"]["low"] <= first["right"]["value"] <= first["right"]["high"] < first["rest"]["low"]
    assert found["attributes"] == ["camera", "brightness", "size"]


def test_without_a_worse_slice_few_are_called_so():
    # Holm's method: a mistake in at most one test of twenty, over all slices together.
    random, called = np.random.default_rng(5), 0
    for _ in range(200):
        attributes = {"camera": random.choice(["a", "b"], 120).astype(object), "size": random.random(120)}
        right = random.random(120) < 0.8
        found = compare_slices(right, random.integers(0, 3, 120), attributes, confidence=0.95, grouped=False)
        called += any(row["worse"] for row in found["slices"])
    assert called <= 14  # 95% of all runs have no more


def test_thirds_have_as_many_images_and_unknown_numbers_are_in_none():
    numbers = np.array([*range(30), np.nan, np.nan], dtype=float)
    thirds = list(iterate_slices("size", numbers))
    assert [part.inside.sum() for part in thirds] == [10, 10, 10]
    assert not any(part.inside[-2:].any() for part in thirds)
    assert [part.name.split(" (")[0] for part in thirds] == ["size: low", "size: middle", "size: high"]


def test_small_slices_are_left_out():
    names = np.array(["a"] * 30 + ["b"] * 4, dtype=object)
    assert not list(iterate_slices("site", names))
    assert not list(iterate_slices("size", np.full(30, 7.0)))


def test_a_pair_that_is_all_of_one_slice_is_not_asked_twice():
    camera, site = (np.array(list(text), dtype=object) for text in ("a" * 20 + "b" * 20, "x" * 20 + "y" * 20))
    assert not intersect_slices([*iterate_slices("camera", camera), *iterate_slices("site", site)])


def test_a_column_of_many_numbers_is_cut_into_thirds_and_one_of_few_is_not():
    assert parse_column([str(n / 2) for n in range(20)]).dtype == float
    assert parse_column(["1", "2"] * 10).dtype == object
    assert parse_column(["1", "x"] * 10).dtype == object


def test_slices_by_nothing_are_none():
    assert compare_slices(np.ones(9, bool), np.zeros(9, np.int64), {}, confidence=0.95, grouped=False) is None


def test_larger_errors_are_found_by_their_ranks():
    random = np.random.default_rng(6)
    camera = random.choice(["a", "b", "c"], 300).astype(object)
    errors = random.exponential(1.0, 300) * np.where(camera == "b", 2.5, 1.0)
    bootstrap, none = Bootstrap(samples=200, stratified=False), np.zeros(300, np.int64)
    found = compare_errors(errors, none, {"camera": camera}, bootstrap=bootstrap, grouped=True)
    first = found["slices"][0]
    assert (first["name"], first["worse"]) == ("camera: b", True)
    inside = camera == "b"
    assert first["p"] == pytest.approx(mannwhitneyu(errors[inside], errors[~inside], alternative="greater").pvalue)
    assert first["error"]["value"] == pytest.approx(errors[inside].mean())
    assert first["error"]["low"] > first["rest"]["high"]
    assert [row["worse"] for row in found["slices"][1:]] == [False, False]
    assert found["notes"]


def test_with_one_stratum_van_elterens_test_is_mann_and_whitneys():
    random = np.random.default_rng(7)
    errors, inside = random.integers(0, 9, 80).astype(float), random.random(80) < 0.3
    expected = mannwhitneyu(
        errors[inside], errors[~inside], alternative="greater", method="asymptotic", use_continuity=False
    )
    assert compute_van_elteren_p_value(errors, inside, np.zeros(80, np.int64)) == pytest.approx(expected.pvalue)


def test_within_strata_the_p_value_is_that_of_exchanging_images():
    random = np.random.default_rng(8)
    strata = np.repeat([0, 1, 2], [40, 25, 15])
    inside = random.random(80) < np.array([0.2, 0.5, 0.7])[strata]
    errors = random.exponential(np.array([1.0, 2.0, 4.0])[strata] * np.where(inside, 1.5, 1.0))

    def statistic(chosen):
        sums = 0.0
        for stratum in range(3):
            own = errors[strata == stratum]
            sums += (rankdata(own)[chosen[strata == stratum]]).sum() / (len(own) + 1)
        return sums

    exchanged = []
    for _ in range(4000):
        chosen = inside.copy()
        for stratum in range(3):
            chosen[strata == stratum] = random.permutation(inside[strata == stratum])
        exchanged.append(statistic(chosen))
    expected = np.mean(np.array(exchanged) >= statistic(inside))
    assert compute_van_elteren_p_value(errors, inside, strata) == pytest.approx(expected, abs=0.02)
    assert compute_van_elteren_p_value(errors, strata == 0, strata) == 1.0


def test_a_slice_of_hard_numbers_is_worse_but_not_beside_its_own():
    random = np.random.default_rng(9)
    ranges = np.repeat([0, 1], 150)
    camera = np.where(random.random(300) < np.where(ranges == 1, 0.8, 0.2), "b", "a").astype(object)
    errors = random.exponential(np.where(ranges == 1, 4.0, 1.0))
    bootstrap = Bootstrap(samples=200, stratified=False)
    found = compare_errors(errors, ranges, {"camera": camera}, bootstrap=bootstrap, grouped=False)
    first = found["slices"][0]
    assert (first["name"], first["worse"], first["worse_ranges"]) == ("camera: b", True, False)
    assert "Its numbers may just be harder" in found["text"]
    inside = camera == "b"
    means = np.array([errors[ranges == one].mean() for one in (0, 1)])
    assert first["expected"] == pytest.approx(means[ranges[inside]].mean())
