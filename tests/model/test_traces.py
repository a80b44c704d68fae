from __future__ import annotations

import gc
import weakref

import keras
import numpy as np
import pytest

from imagetune.model.inference import predict_probabilities
from imagetune.model.traces import free_graphs

IMAGES = np.zeros((2, 8, 8, 3), np.uint8)


class Batch:
    images = IMAGES


def small():
    pixels = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(2, 3, activation="silu")(pixels)
    model = keras.Model(pixels, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(features)))
    model.compile("adam", "mse")
    return model


def train(model):
    model.train_on_batch(IMAGES, np.zeros((2, 3)))


def predict(model):
    predict_probabilities(model, [Batch()])


def graphs():
    gc.collect()
    return [one for one in gc.get_objects() if type(one).__name__ == "FuncGraph"]


def use(action):
    model = small()
    action(model)
    return weakref.ref(model)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow keeps graphs")
@pytest.mark.parametrize("action", [train, predict])
def test_nothing_of_a_model_that_is_gone_stays(action):
    before = graphs()
    with free_graphs():
        gone = use(action)
    left = [one for one in graphs() if not any(one is earlier for earlier in before)]
    assert gone() is None
    assert [one.name for one in left] == []


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow keeps graphs")
def test_graphs_from_before_the_block_can_still_be_differentiated():
    import tensorflow as tf

    softly = tf.function(tf.nn.silu)
    point = tf.constant([0.0, 1.0])
    softly(point)  # traced, without its gradient
    with free_graphs():
        use(train)
    with tf.GradientTape() as tape:
        tape.watch(point)
        value = softly(point)
    np.testing.assert_allclose(tape.gradient(value, point), [0.5, 0.9277], atol=1e-4)


def test_a_failure_in_the_block_comes_through():
    with pytest.raises(ZeroDivisionError), free_graphs():
        raise ZeroDivisionError
