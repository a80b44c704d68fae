from __future__ import annotations

import keras
import numpy as np
import pytest

from imagetune.commands.soup import differing_statistics, kept_members, rank
from imagetune.model.soup import SoupStep
from imagetune.training.loop.batch_norm import reestimate_statistics


def test_accuracy_comes_first_then_loss_and_numbers_have_only_a_loss():
    assert rank({"loss": 0.5, "accuracy": 0.9, "f1": 0.8}) == (0.9, -0.5)
    assert rank({"loss": 0.5, "mae": 0.3}) == (-0.5,)
    assert rank({"loss": 0.4, "accuracy": 0.9}) > rank({"loss": 0.5, "accuracy": 0.9})
    assert rank({"loss": 9.0, "accuracy": 0.91}) > rank({"loss": 0.1, "accuracy": 0.9})


def test_the_soup_is_what_the_last_kept_step_tried():
    steps = [
        SoupStep(2, (2,), (0.8,), kept=True),
        SoupStep(0, (2, 0), (0.9,), kept=True),
        SoupStep(1, (2, 0, 1), (0.7,), kept=False),
    ]
    assert kept_members(steps) == (2, 0)
    assert kept_members(steps[:1]) == (2,)


@pytest.fixture
def model():
    norm = keras.layers.BatchNormalization
    return keras.Sequential([keras.Input((4,)), norm(name="one"), keras.layers.Dense(3), norm(name="two")])


def test_only_layers_whose_statistics_differ_are_found(model):
    first = model.get_weights()
    model.get_layer("two").moving_variance.assign([1.0, 2.0, 3.0])
    model.get_layer("one").gamma.assign(np.full(4, 0.5))
    second = model.get_weights()
    assert [layer.name for layer in differing_statistics(model, [first, second, first])] == ["two"]
    assert differing_statistics(model, [second, second]) == []


def test_only_the_statistics_that_members_moved_are_taken_anew(model):
    one, two = model.get_layer("one"), model.get_layer("two")
    one.moving_mean.assign([1.0, 2.0, 3.0, 4.0])
    batches = [np.random.default_rng(seed).normal(2.0, 3.0, (16, 4)).astype(np.float32) for seed in range(3)]
    before = [keras.ops.convert_to_numpy(weight) for weight in one.weights]
    dense = keras.Model(model.inputs[0], two.input)
    seen = [np.asarray(dense(batch)) for batch in batches]  # layer one works with its own statistics
    assert reestimate_statistics(model, batches, only=[two]) == 1
    for weight, old in zip(one.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), old)
    np.testing.assert_allclose(two.moving_mean, np.mean([rows.mean(0) for rows in seen], axis=0), rtol=1e-4)
    np.testing.assert_allclose(two.moving_variance, np.mean([rows.var(0) for rows in seen], axis=0), rtol=1e-4)
    assert (one.trainable, two.trainable) == (True, True)
