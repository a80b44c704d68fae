from __future__ import annotations

import keras
import numpy as np
import pytest
from tiny_backbones import TINY

from imagetune.model.fold_batch_norm import fold_batch_norm_layers


def norms(model):
    nested = (norms(layer) if isinstance(layer, keras.Model) else [layer] for layer in model.layers)
    return [one for layers in nested for one in layers if isinstance(one, keras.layers.BatchNormalization)]


def with_lively_norms(model):
    """Fresh BatchNorm does nothing; here it scales and shifts as after training."""
    random = np.random.default_rng(3)
    for layer in norms(model):
        layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


@pytest.mark.parametrize(
    ("backbone", "left"),
    [
        ("efficientnet_lite0", 0),  # depthwise convolutions, no bias
        ("resnet50", 0),  # convolutions with a bias
        ("resnet50_v2", 17),  # BatchNorm before the convolution has none to go into: 16 blocks and the end
    ],
)
def test_a_folded_model_predicts_the_same_without_batch_norm(build, random_images, backbone, left):
    model = with_lively_norms(build(backbone))
    found = fold_batch_norm_layers(model)
    images = random_images(4)
    np.testing.assert_allclose(found.predict_on_batch(images), model.predict_on_batch(images), atol=1e-5)
    assert len(norms(model)) > left == len(norms(found))


def test_the_model_itself_stays_as_it_was(build, random_images, tiny):
    model = with_lively_norms(build(TINY))
    before, images = model.get_weights(), random_images(2)
    predictions = model.predict_on_batch(images)
    fold_batch_norm_layers(model).predict_on_batch(images)
    assert all((old == new).all() for old, new in zip(before, model.get_weights(), strict=True))
    np.testing.assert_array_equal(model.predict_on_batch(images), predictions)


def test_a_model_without_batch_norm_is_returned_as_it_is(build):
    model = build("vgg16")
    assert fold_batch_norm_layers(model) is model


def small_network(*, activation=None, norm=None, also_plain=False):
    inputs = keras.Input((8, 8, 3))
    convolved = keras.layers.Conv2D(4, 3, activation=activation)(inputs)
    outputs = (norm or keras.layers.BatchNormalization())(convolved)
    if also_plain:
        outputs = keras.layers.Concatenate()([outputs, convolved])
    return with_lively_norms(keras.Model(inputs, outputs))


@pytest.mark.parametrize(
    ("activation", "options"),
    [
        ("relu", {}),  # not linear in what is normalised
        (None, {"axis": 1}),  # rows, not channels
        (None, {"dtype": "mixed_bfloat16"}),
    ],
)
def test_what_cannot_be_folded_is_left(activation, options):
    network = small_network(activation=activation, norm=keras.layers.BatchNormalization(**options))
    images = np.random.default_rng(1).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    found = fold_batch_norm_layers(network)
    assert len(norms(found)) == 1
    np.testing.assert_array_equal(found.predict_on_batch(images), network.predict_on_batch(images))


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"epsilon": 0.1}, {"axis": 3}])
def test_every_setting_of_batch_norm_counts(options):
    network = small_network(norm=keras.layers.BatchNormalization(**options), also_plain=True)
    images = np.random.default_rng(1).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    found = fold_batch_norm_layers(network)
    assert not norms(found)
    np.testing.assert_allclose(found.predict_on_batch(images), network.predict_on_batch(images), atol=1e-5)
