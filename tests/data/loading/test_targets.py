from __future__ import annotations

import numpy as np
import pytest

from imagetune.data.loading.targets import ValueScale, compute_median_class, compute_value_scale, encode_targets


def test_one_class_becomes_a_one_hot_row_and_an_unknown_one_zeros() -> None:
    targets = encode_targets(["b", "a", "x"], ("a", "b"), "single_label")
    np.testing.assert_array_equal(targets, [[0, 1], [1, 0], [0, 0]])
    assert targets.dtype == np.float32


def test_several_labels_become_ones_each() -> None:
    targets = encode_targets(["a|c", "", "c|x"], ("a", "b", "c"), "multi_label", separator="|")
    np.testing.assert_array_equal(targets, [[1, 0, 1], [0, 0, 0], [0, 0, 1]])


def test_numbers_stay_in_their_units() -> None:
    targets = encode_targets(["3", "-2.5", ""], ("age",), "regression")
    assert targets.shape == (3, 1)
    np.testing.assert_array_equal(targets[:2, 0], [3, -2.5])
    assert np.isnan(targets[2, 0])


def test_the_scale_is_mean_and_standard_deviation() -> None:
    assert compute_value_scale(["1", "2", "3"]) == ValueScale(2.0, pytest.approx(np.std([1, 2, 3])))
    assert compute_value_scale(["5", "5"]) == ValueScale(5.0, 1.0)
    with pytest.raises(ValueError, match="number"):
        compute_value_scale(["a"])


def test_the_median_class_is_where_half_of_the_distribution_is_reached() -> None:
    rows = np.array([[0.4, 0.0, 0.6], [0.4, 0.2, 0.4], [0.5, 0.0, 0.5], [0.1, 0.1, 0.2999]])
    np.testing.assert_array_equal(compute_median_class(rows), [2, 1, 0, 2])
