"""Outputs and manifests of multi-label, ordinal and regression models."""

import json

import keras
import numpy as np
import pytest
from tiny_backbones import TINY

from imagetune.data.loading.targets import ValueScale
from imagetune.errors import ModelFileError
from imagetune.model.build import build_logits_model, build_model, find_value_scale
from imagetune.model.manifest import load_model, read_manifest, save_model
from imagetune.recipe.sections.data import ImageSettings
from imagetune.recipe.sections.model import ModelConfig

CONFIG = ModelConfig(backbone=TINY)
IMAGE = ImageSettings(height=32, width=32)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)

pytestmark = pytest.mark.usefixtures("tiny")


def build(task, outputs, scale=None):
    model = build_model(CONFIG, num_classes=outputs, image_size=(32, 32), task=task, scale=scale)
    # Fresh heads are almost the same for all images; larger weights tell them apart.
    kernel = model.get_layer("logits").kernel
    kernel.assign(np.random.default_rng(1).normal(0, 20, kernel.shape))
    return model


def predictions(model):
    return np.asarray(model(IMAGES)), np.asarray(build_logits_model(model)(IMAGES))


def test_each_label_has_its_own_probability():
    found, logits = predictions(build("multi_label", 4))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_ordered_classes_share_theirs():
    found, _ = predictions(build("ordinal", 4))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_a_number_is_in_the_labels_units_and_its_logit_is_not():
    model = build("regression", 1, ValueScale(50.0, 10.0))
    found, logits = predictions(model)
    np.testing.assert_allclose(found, 50 + 10 * logits, rtol=1e-5)
    assert find_value_scale(model) == ValueScale(50.0, 10.0)
    assert find_value_scale(build("single_label", 3)) is None


@pytest.mark.parametrize(
    ("task", "names", "scale", "values"),
    [
        ("multi_label", ("a", "b"), None, {"thresholds": (0.25, 0.5), "label_separator": "|"}),
        ("regression", ("age",), ValueScale(50.0, 10.0), {}),
        ("ordinal", ("low", "mid", "high"), None, {}),
    ],
)
def test_a_model_is_the_same_after_loading(tmp_path, task, names, scale, values):
    model = build(task, len(names), scale)
    save_model(model, tmp_path / "model", config=CONFIG, class_names=names, image=IMAGE, task=task, **values)
    loaded = load_model(tmp_path / "model")
    np.testing.assert_allclose(np.asarray(loaded.model(IMAGES)), np.asarray(model(IMAGES)), rtol=1e-5)
    assert (loaded.task, loaded.class_names) == (task, names)
    for name, value in values.items():
        assert getattr(loaded, name) == value
    assert find_value_scale(loaded.model) == scale
    model.save(tmp_path / "model.keras")
    plain = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(np.asarray(plain(IMAGES)), np.asarray(model(IMAGES)), rtol=1e-5)

    manifest = tmp_path / "model" / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "thresholds": [0.5]}))
    if len(names) != 1:
        with pytest.raises(ModelFileError, match="1 thresholds"):
            read_manifest(tmp_path / "model")
    manifest.write_text(json.dumps({**content, "value_std": 0.0}))
    with pytest.raises(ModelFileError, match="value_std"):
        read_manifest(tmp_path / "model")


def test_an_old_manifest_is_of_one_class_an_image(tmp_path):
    save_model(build("single_label", 2), tmp_path / "model", config=CONFIG, class_names=("a", "b"), image=IMAGE)
    manifest = tmp_path / "model" / "manifest.json"
    content = json.loads(manifest.read_text())
    for name in ("task", "thresholds", "label_separator", "value_mean", "value_std"):
        del content[name]
    manifest.write_text(json.dumps(content))
    assert load_model(tmp_path / "model").task == "single_label"
