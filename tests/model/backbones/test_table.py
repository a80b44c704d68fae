from __future__ import annotations

import inspect
import subprocess
import sys

import keras
import pytest
from plugin_packages import install_module

from imagetune.errors import RecipeError
from imagetune.model.backbones.table import get_backbone, list_backbones
from imagetune.model.build import build_backbone


def constructors():
    return {name for name, value in vars(keras.applications).items() if inspect.isfunction(value)}


def test_every_constructor_of_keras_applications_is_in_the_table():
    assert {backbone.constructor for backbone in list_backbones()} - {""} == constructors()


def test_the_names_are_those_of_the_design():
    names = {backbone.name for backbone in list_backbones()}
    assert names >= {
        "efficientnet_lite0",
        "vgg16",
        "resnet50",
        "resnet50_v2",
        "inception_v3",
        "inception_resnet_v2",
        "xception",
        "mobilenet_v3_large",
        "efficientnet_v2_b0",
        "efficientnet_b0",
        "convnext_tiny",
        "densenet121",
        "nasnet_mobile",
    }


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("ResNet50V2", "resnet50_v2"),
        ("resnet50v2", "resnet50_v2"),
        ("EfficientNetV2-B0", "efficientnet_v2_b0"),
        ("efficientnetlite0", "efficientnet_lite0"),
        ("ConvNextTiny", "convnext_tiny"),
        ("inceptionv3", "inception_v3"),
    ],
)
def test_another_spelling_is_corrected(wrong, right):
    with pytest.raises(RecipeError, match=f"did you mean '{right}'") as caught:
        get_backbone(wrong)
    assert caught.value.where == "model.backbone"


def test_an_unknown_name_lists_all():
    with pytest.raises(RecipeError, match="choose one of: efficientnet_lite0, efficientnet_lite1"):
        get_backbone("zzz")


def test_the_table_is_read_without_keras():
    code = "import sys, imagetune.model.backbones.table as b; b.get_backbone('vgg16'); print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def weights_asked_of_keras(backbone, monkeypatch):
    """Return (file, address, hash) that Keras's own constructor would download."""
    from keras.src.utils import file_utils

    asked = []

    def note(fname=None, origin=None, file_hash=None, **_):
        asked.append((fname, origin, file_hash))
        raise InterruptedError

    monkeypatch.setattr(file_utils, "get_file", note)
    shape = (backbone.default_size, backbone.default_size, 3)
    with pytest.raises(InterruptedError):
        getattr(keras.applications, backbone.constructor)(include_top=False, weights="imagenet", input_shape=shape)
    return asked[0]


@pytest.mark.parametrize("names", [("vgg16", "mobilenet", "resnet50_v2"), pytest.param((), marks=pytest.mark.slow)])
def test_address_and_hash_of_the_weights_are_those_of_keras(names, monkeypatch):
    for backbone in map(get_backbone, names) if names else list_backbones():
        if backbone.constructor:
            expected = (backbone.weights_file, backbone.weights_url, backbone.weights_hash)
            assert weights_asked_of_keras(backbone, monkeypatch) == expected


PLUGIN_SOURCE = """
from dataclasses import replace
from imagetune.model.backbones.table import get_backbone

def row(name, build):
    return replace(get_backbone("efficientnet_lite0"), name=name, build=build, preprocessing="none")

def build_flat(shape):
    import keras
    pixels = keras.Input(shape)
    return keras.Model(pixels, keras.layers.Flatten()(pixels))

def build_foreign(shape):
    import keras
    class Own(keras.layers.ReLU):
        pass
    pixels = keras.Input(shape)
    return keras.Model(pixels, Own()(keras.layers.Conv2D(4, 3)(pixels)))

def build_failing(shape):
    raise OSError("no room")

flat = row("flat", build_flat)
foreign = row("foreign", build_foreign)
failing = row("failing", build_failing)
nothing = row("nothing", lambda shape: None)
misnamed = row("other", build_flat)
unbuilt = replace(get_backbone("efficientnet_lite0"), name="unbuilt")
text = "resnet50"
"""
PLUGINS = ("flat", "foreign", "failing", "nothing", "misnamed", "unbuilt", "text")


@pytest.fixture
def plugin_backbones(tmp_path, monkeypatch):
    points = {name: name for name in PLUGINS}
    monkeypatch.syspath_prepend(install_module(tmp_path, "net-pack", "imagetune.backbones", points, PLUGIN_SOURCE))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("misnamed", "it calls itself 'other', expected the entry point's name"),
        ("unbuilt", "expected an imagetune.model.backbones.table.Backbone with `build`"),
        ("text", "it is 'resnet50', expected an imagetune.model.backbones.table.Backbone"),
    ],
)
def test_a_plugin_that_is_no_backbone_is_refused(plugin_backbones, name, reason):
    with pytest.raises(RecipeError, match=f"the backbone '{name}' of the package net-pack 0.3 .*{reason}"):
        get_backbone(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("flat", "expected a feature map of four dimensions"),
        ("foreign", "its layers Own are not Keras's own"),
        ("failing", "OSError: no room"),
        ("nothing", r"`build` returned None, expected a functional Keras model for \(32, 32, 3\)"),
    ],
)
def test_a_plugin_that_builds_no_feature_map_is_refused(plugin_backbones, name, reason):
    with pytest.raises(RecipeError, match=f"the backbone '{name}' of the package net-pack 0.3 .*{reason}"):
        build_backbone(get_backbone(name), (32, 32))


@pytest.mark.parametrize("wanted", ["resnet18", "resnet34", "resnet"])
def test_a_size_that_a_family_lacks_gets_those_that_it_has(wanted):
    with pytest.raises(RecipeError, match="of this family there are resnet50, resnet101, resnet152"):
        get_backbone(wanted)
