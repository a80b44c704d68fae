from __future__ import annotations

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from imagetune.errors import RecipeError
from imagetune.model.backbones.table import get_backbone, list_backbones
from imagetune.model.build import build_backbone, build_logits_model, build_model, find_backbone
from imagetune.recipe.sections.model import ModelConfig


def test_the_model_takes_raw_uint8_or_float_images_and_gives_probabilities(build, random_images):
    model = build("vgg16")
    images = random_images()
    probabilities = model.predict(images, verbose=0)
    assert probabilities.shape == (2, 3)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(model.predict(images.astype("float32"), verbose=0), probabilities)


def test_logits_are_what_the_softmax_is_of(build, random_images):
    model = build("vgg16")
    logits = build_logits_model(model).predict(random_images(), verbose=0)
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    np.testing.assert_allclose(model.predict(random_images(), verbose=0), expected, atol=1e-6)


def test_the_head_is_built_as_described(build):
    model = build("vgg16", pooling="flatten", hidden=(8, 4), activation="gelu", dropout=0.3, l1=0.01, l2=0.02)
    names = [layer.name for layer in model.layers]
    assert names[-8:] == [
        "pooling",
        "hidden1_dropout",
        "hidden1",
        "hidden2_dropout",
        "hidden2",
        "dropout",
        "logits",
        "probabilities",
    ]
    hidden = model.get_layer("hidden1")
    assert (hidden.units, hidden.activation) == (8, keras.activations.gelu)
    penalty = model.get_layer("logits").kernel_regularizer
    assert (round(float(penalty.l1), 6), round(float(penalty.l2), 6)) == (0.01, 0.02)
    assert model.get_layer("dropout").rate == 0.3


def test_no_dropout_layer_without_dropout(build):
    assert "dropout" not in [layer.name for layer in build("vgg16", dropout=0.0, pooling="max").layers]


@pytest.mark.parametrize(("name", "size"), [("vgg16", 31), ("xception", 70), ("inception_v3", 74)])
def test_too_small_images_are_refused_with_the_min_size(name, size):
    config = ModelConfig(backbone=name)
    with pytest.raises(RecipeError, match=f"{name} takes images of at least {size + 1} pixels, not {size}"):
        build_model(config, num_classes=2, image_size=(size, 300))


def test_mixed_precision_keeps_ends_in_float32(build, random_images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build("vgg16")
    finally:
        keras.config.set_dtype_policy("float32")
    assert find_backbone(model).get_layer("block5_conv3").compute_dtype == "bfloat16"
    assert model.get_layer("preprocessing").compute_dtype == "float32"
    assert model.get_layer("logits").compute_dtype == "float32"
    assert model.predict(random_images(), verbose=0).dtype == np.float32


def test_layer_names_and_weights_do_not_depend_on_what_was_built_before(build):
    first, second = build("xception", 71), build("xception", 71)
    names = [layer.name for layer in find_backbone(second).layers if layer.weights]
    assert {"conv2d", "conv2d_3", "batch_normalization_3"} <= set(names)
    assert names == [layer.name for layer in find_backbone(first).layers if layer.weights]
    for left, right in zip(first.weights, second.weights, strict=True):
        assert left.path == right.path
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(left), keras.ops.convert_to_numpy(right))


@pytest.mark.slow
def test_fresh_names_follow_the_order_of_keras_itself():
    ours = build_backbone(get_backbone("inception_v3"), (75, 75))
    code = (
        "import keras; m = keras.applications.InceptionV3(include_top=False, weights=None, input_shape=(75, 75, 3));"
        "print(*(layer.name for layer in m.layers if layer.weights))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert [layer.name for layer in ours.layers if layer.weights] == done.stdout.split()


# The smallest of each family.
FAMILIES = tuple({row.scheme: row.name for row in sorted(list_backbones(), key=lambda row: -row.parameters)}.values())


@pytest.mark.parametrize("names", [("deit_tiny",), pytest.param(FAMILIES, marks=pytest.mark.slow)])
def test_a_saved_model_opens_in_plain_keras(names, build, random_images, tmp_path):
    saved = {}
    for backbone in map(get_backbone, names):
        model = build(backbone.name, backbone.min_size)
        images = random_images(2, backbone.min_size)
        model.save(tmp_path / f"{backbone.name}.keras")
        np.savez(tmp_path / f"{backbone.name}.npz", images=images, expected=model.predict(images, verbose=0))
        saved[backbone.name] = None
    code = (
        "import sys\n"
        "sys.modules['imagetune'] = None\n"  # an import of it fails
        "import keras, numpy as np\n"
        "for name in sys.argv[1:]:\n"
        "    data = np.load(name + '.npz')\n"
        "    found = keras.models.load_model(name + '.keras').predict(data['images'], verbose=0)\n"
        "    print(abs(found - data['expected']).max() < 1e-5)\n"
    )
    command = [sys.executable, "-c", code, *saved]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.split() == ["True"] * len(saved)
