from __future__ import annotations

import keras
import numpy as np
import pytest

from imagetune.model.soup import average_weights, choose_greedy_soup


def test_the_mean_is_taken_array_by_array_and_keeps_the_type():
    first = [np.array([1.0, 2.0], np.float32), np.array([[4.0]], np.float16), np.array([7], np.int32)]
    second = [np.array([3.0, 2.0], np.float32), np.array([[6.0]], np.float16), np.array([9], np.int32)]
    found = average_weights([first, second])
    for array, expected in zip(found, ([2.0, 2.0], [[5.0]], [7]), strict=True):
        np.testing.assert_array_equal(array, expected)
    assert [array.dtype for array in found] == [np.float32, np.float16, np.int32]
    np.testing.assert_array_equal(first[0], [1.0, 2.0])


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_mean_of_equal_models_is_that_model_to_the_last_bit(count):
    random = np.random.default_rng(1)
    weights = [random.normal(size=(40, 5)).astype(np.float32), random.normal(size=3).astype(np.float32) * 1e-30]
    for array, expected in zip(average_weights([weights] * count), weights, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_small_numbers_are_not_lost_beside_large_ones():
    large, small = np.array([2.0**24], np.float32), np.array([1.0], np.float32)
    mean = average_weights([[large], [small], [small], [-large]])
    assert mean[0] == 0.5  # float32 sums would give 0.25


def test_bfloat16_is_averaged(build):
    weights = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast([1.0, 3.0], "bfloat16")))
    (mean,) = average_weights([[weights], [weights * 3]])
    assert mean.dtype == weights.dtype
    np.testing.assert_array_equal(mean.astype(np.float32), [2.0, 6.0])


def test_other_shapes_and_nothing_are_refused():
    with pytest.raises(ValueError, match="same shapes"):
        average_weights([[np.zeros(2)], [np.zeros(3)]])
    with pytest.raises(ValueError, match="same shapes"):
        average_weights([])


def test_models_are_tried_from_the_best_and_stay_while_the_soup_gets_no_worse():
    ranks = [(0.7, -0.9), (0.9, -0.5), (0.8, -0.6), (0.8, -0.55)]
    table = {(1, 3): (0.92, -0.4), (1, 3, 2): (0.91, -0.1), (1, 3, 0): (0.92, -0.4)}
    steps = choose_greedy_soup(ranks, table.__getitem__)
    assert [(step.added, step.kept) for step in steps] == [(1, True), (3, True), (2, False), (0, True)]
    assert [step.members for step in steps] == [(1,), (1, 3), (1, 3, 2), (1, 3, 0)]
    assert [step.rank for step in steps][2] == (0.91, -0.1)


def test_the_loss_decides_between_equal_accuracies():
    better = choose_greedy_soup([(0.9, -0.5), (0.9, -0.6)], lambda _: (0.9, -0.4))
    worse = choose_greedy_soup([(0.9, -0.5), (0.9, -0.6)], lambda _: (0.9, -0.51))
    assert (better[1].kept, worse[1].kept) == (True, False)


def test_one_model_is_its_own_soup():
    (step,) = choose_greedy_soup([(0.5,)], lambda _: pytest.fail("nothing to ask"))
    assert (step.added, step.kept) == (0, True)
