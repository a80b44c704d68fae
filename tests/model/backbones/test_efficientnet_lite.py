from __future__ import annotations

import cv2
import keras
import numpy as np
import pytest
from imagenet_classifier import load_classifier, read_lite_tensors
from sklearn.datasets import load_sample_images

from imagetune.errors import WeightsError
from imagetune.model.backbones.efficientnet_lite import convert_torch_weights
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import build_backbone, build_model
from imagetune.model.load_weights import load_weights
from imagetune.recipe.sections.model import ModelConfig

NAMES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
PALACE, BELL_COTE, MONASTERY, DAISY = 698, 442, 663, 985


def centre_square(image, size):
    height, width, _ = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)


def load_whole_network(name):
    config, size = ModelConfig(backbone=name), get_backbone(name).default_size
    model = build_model(config, num_classes=1000, image_size=(size, size))
    load_weights(model, config)
    load_classifier(model, name)
    return model, np.stack([centre_square(image, size) for image in load_sample_images().images])


def test_two_photographs_are_recognised():
    model, photographs = load_whole_network("efficientnet_lite0")
    china, flower = model.predict(photographs, verbose=0)
    assert set(np.argsort(-china)[:3]) == {PALACE, BELL_COTE, MONASTERY}
    assert np.argmax(flower) == DAISY


# The other photograph is of a dahlia, which is none of ImageNet's classes.
@pytest.mark.parametrize("name", NAMES[1:])
def test_larger_networks_recognise_the_palace_and_see_activations_like_those_in_training(name):
    model, photographs = load_whole_network(name)
    china, _ = model.predict(photographs, verbose=0)
    assert np.argmax(china) == PALACE
    network = model.get_layer(name)
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    inputs = keras.Model(network.input, [norm.input for norm in norms])((photographs.astype(np.float32) - 127) / 128)
    for norm, values in zip(norms, inputs, strict=True):
        mean, variance = (keras.ops.convert_to_numpy(weight) for weight in (norm.moving_mean, norm.moving_variance))
        shift = np.abs(keras.ops.convert_to_numpy(values).mean(axis=(0, 1, 2)) - mean) / np.sqrt(variance + 1e-3)
        assert np.median(shift) < 0.5, norm.name


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_but_the_classifier_and_counters_is_used(name):
    row, tensors = get_backbone(name), read_lite_tensors(name)
    used = sum(array.size for arrays in convert_torch_weights(row.architecture, tensors).values() for array in arrays)
    kept = sum(
        array.size
        for name, array in tensors.items()
        if not name.startswith("_fc") and not name.endswith("num_batches_tracked")
    )
    assert used == kept == row.parameters


@pytest.mark.parametrize("name", NAMES)
def test_the_network_has_the_shapes_of_the_file(name):
    row = get_backbone(name)
    network = build_backbone(row, (64, 64))
    arrays = convert_torch_weights(row.architecture, read_lite_tensors(name))
    layers = {layer.name: [tuple(weight.shape) for weight in layer.weights] for layer in network.layers}
    assert {name: shapes for name, shapes in layers.items() if shapes} == {
        name: [array.shape for array in values] for name, values in arrays.items()
    }


def test_a_missing_tensor_is_named():
    tensors = read_lite_tensors()
    del tensors["_blocks.3._bn1.weight"]
    with pytest.raises(WeightsError, match=r"_blocks\.3\._bn1\.weight"):
        convert_torch_weights(get_backbone("efficientnet_lite0").architecture, tensors)


def test_the_weights_of_a_larger_network_are_refused_as_a_whole(monkeypatch):
    row = get_backbone("efficientnet_lite1")
    monkeypatch.setattr(
        "imagetune.model.load_weights.read_torch_file", lambda _: read_lite_tensors("efficientnet_lite2")
    )
    config = ModelConfig(backbone=row.name)
    model = build_model(config, num_classes=2, image_size=(32, 32))
    before = model.get_layer(row.name).get_weights()
    with pytest.raises(WeightsError, match="in the file"):
        load_weights(model, config)
    for one, other in zip(before, model.get_layer(row.name).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
