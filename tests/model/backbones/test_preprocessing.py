from __future__ import annotations

import keras
import numpy as np
import pytest

from imagetune.model.backbones.preprocessing import add_preprocessing
from imagetune.model.backbones.table import get_backbone, list_backbones
from imagetune.model.build import build_backbone


def run(kind, images):
    inputs = keras.Input(images.shape[1:])
    return keras.Model(inputs, add_preprocessing(inputs, kind)).predict(images, verbose=0)


def module_of(backbone):
    constructor = getattr(keras.applications, backbone.constructor)
    return getattr(keras.applications, constructor.__module__.rpartition(".")[2])


NOT_BUILT_IN = [backbone.name for backbone in list_backbones() if backbone.constructor and backbone.built_in == "none"]


@pytest.mark.parametrize("name", NOT_BUILT_IN)
def test_preprocessing_is_that_of_keras(name, random_images):
    backbone = get_backbone(name)
    images = random_images()
    expected = module_of(backbone).preprocess_input(images.astype("float32"))
    np.testing.assert_allclose(run(backbone.preprocessing, images), expected, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v3_small",
        "efficientnet_v2_b0",
        "convnext_tiny",
        pytest.param("efficientnet_v2_s", marks=pytest.mark.slow),
    ],
)
def test_preprocessing_is_that_which_keras_builds_in(name, random_images):
    backbone = get_backbone(name)
    images = random_images()
    network = getattr(keras.applications, backbone.constructor)(
        include_top=False, weights=None, input_shape=images.shape[1:]
    )
    last = [
        layer for layer in network.layers if isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization))
    ]
    expected = keras.Model(network.input, last[-1].output).predict(images, verbose=0)
    np.testing.assert_allclose(run(backbone.preprocessing, images), expected, atol=1e-4)


def test_preprocessing_of_efficientnet_is_that_of_keras_with_imagenet_weights(random_images, monkeypatch):
    # Its published Normalization holds the deviations where variances belong, and a third layer makes up for it.
    monkeypatch.setattr(keras.Model, "load_weights", lambda *_, **__: None)
    from keras.src.utils import file_utils

    monkeypatch.setattr(file_utils, "get_file", lambda *_, **__: "")
    network = keras.applications.EfficientNetB0(include_top=False, weights="imagenet", input_shape=(32, 32, 3))
    first = network.get_layer("stem_conv_pad").input
    normalization = next(layer for layer in network.layers if isinstance(layer, keras.layers.Normalization))
    normalization.mean = np.array([0.485, 0.456, 0.406], "float32")
    normalization.variance = np.array([0.229, 0.224, 0.225], "float32")
    images = random_images()
    expected = keras.Model(network.input, first).predict(images, verbose=0)
    np.testing.assert_allclose(run("torch", images), expected, atol=1e-4)


def test_lite_preprocessing(random_images):
    images = random_images()
    np.testing.assert_allclose(run("lite", images), (images.astype("float32") - 127) / 128, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v3_small",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("efficientnet_b0", "efficientnet_v2_b0", "convnext_tiny")
        ),
    ],
)
def test_a_backbone_whose_preprocessing_was_left_out_computes_what_keras_computes(name, random_images):
    backbone = get_backbone(name)
    ours = build_backbone(backbone, (32, 32))
    theirs = getattr(keras.applications, backbone.constructor)(include_top=False, weights=None, input_shape=(32, 32, 3))
    # The weights that only theirs has, of a Normalization, come first.
    for weight, original in zip(ours.weights, theirs.weights[-len(ours.weights) :], strict=True):
        weight.assign(original)
    images = random_images().astype("float32")
    # Without ImageNet weights Keras's EfficientNet only divides by 255.
    ready = images / 255 if backbone.built_in == "always" else run(backbone.preprocessing, images)
    expected = theirs.predict(images, verbose=0)
    np.testing.assert_allclose(ours.predict(ready, verbose=0), expected, atol=1e-4 * np.abs(expected).max())
