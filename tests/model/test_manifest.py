from __future__ import annotations

import json
import shutil

import h5py
import keras
import numpy as np
import pytest
from tiny_backbones import TINY

from imagetune.core.files import compute_file_sha256
from imagetune.errors import DivergedError, ModelFileError, ResourceError
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import build_model
from imagetune.model.manifest import load_model, save_model, update_manifest
from imagetune.model.trainable import set_trainable
from imagetune.recipe.sections.data import ImageSettings
from imagetune.recipe.sections.model import HeadConfig, ModelConfig
from tests.conftest import fill_disk

CLASSES = ("ant", "bee", "cat")

pytestmark = pytest.mark.usefixtures("tiny")


def settings(size):
    return ImageSettings(height=size, width=size, resize="crop", background=(1, 2, 3))


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def write(model, folder, name=TINY, size=32, **head):
    config = ModelConfig(backbone=name, weights="random", head=HeadConfig(**head))
    save_model(model, folder, config=config, class_names=CLASSES, image=settings(size), max_pixels=999)


@pytest.mark.parametrize(
    ("name", "size", "unfreeze", "batch_norm"),
    [
        ("vgg16", 32, "block5", "frozen"),
        pytest.param("efficientnet_lite0", 32, "last 2 blocks", "train", marks=pytest.mark.slow),
        pytest.param("resnet50", 32, "conv5", "train", marks=pytest.mark.slow),
        pytest.param("inception_v3", 75, "last 2 blocks", "frozen", marks=pytest.mark.slow),
        pytest.param("convnext_tiny", 32, "stage3", "frozen", marks=pytest.mark.slow),
    ],
)
def test_probabilities_are_the_same_after_training_saving_and_loading(
    build, random_images, tmp_path, name, size, unfreeze, batch_norm
):
    model = build(name, size, hidden=(8,))
    images = random_images(4, size)
    set_trainable(model, get_backbone(name), unfreeze, batch_norm=batch_norm)
    model.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", jit_compile=False)
    model.train_on_batch(images, np.array([0, 1, 2, 0]))
    expected = model.predict(images, verbose=0)

    write(model, tmp_path / "run/model", name, size, hidden=(8,))
    model.save(tmp_path / "model.keras")
    for folder in ("run", "run/model"):
        loaded = load_model(tmp_path / folder)
        np.testing.assert_allclose(loaded.model.predict(images, verbose=0), expected, atol=1e-5)
    plain = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(plain.predict(images, verbose=0), expected, atol=1e-5)
    assert (loaded.class_names, loaded.image, loaded.max_pixels) == (CLASSES, settings(size), 999)
    assert loaded.config.backbone == name


def test_mixed_precision_is_kept(build, random_images, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build("vgg16")
    finally:
        keras.config.set_dtype_policy("float32")
    write(model, tmp_path / "model", "vgg16")
    expected = model.predict(random_images(), verbose=0)
    np.testing.assert_allclose(load_model(tmp_path).model.predict(random_images(), verbose=0), expected, atol=1e-5)
    assert keras.config.dtype_policy().name == "float32"


def test_saving_again_replaces_the_folder_and_leaves_nothing_else(build, tmp_path):
    write(build(TINY, seed=1), tmp_path / "model")
    first = compute_file_sha256(tmp_path / "model/model.weights.h5")
    write(build(TINY, seed=2), tmp_path / "model")
    assert compute_file_sha256(tmp_path / "model/model.weights.h5") != first
    assert names_in(tmp_path) == ["model"]
    assert names_in(tmp_path / "model") == ["manifest.json", "model.weights.h5"]


def test_weights_that_are_not_finite_are_never_saved(build, tmp_path):
    model = build(TINY)
    bias = model.get_layer("logits").bias
    bias.assign(np.array([0, np.nan, 0], "float32"))
    with pytest.raises(DivergedError, match="logits/bias holds numbers that are not finite"):
        write(model, tmp_path / "model")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("free", [0, 20_000, 60_000])
def test_a_disk_that_becomes_full_is_an_error_and_leaves_nothing(build, small_disk, free):
    fill_disk(small_disk, free_bytes=free)
    with pytest.raises(ResourceError, match="No space left on device"):
        write(build(TINY, 32), small_disk / "run" / "model")
    assert set(names_in(small_disk)) <= {"filling", "run"}
    assert not (small_disk / "run").exists() or not list((small_disk / "run").iterdir())


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny):
    place = tmp_path_factory.mktemp("saved") / "model"
    write(build_model(ModelConfig(backbone=TINY), num_classes=3, image_size=(32, 32)), place)
    return place


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def refused(folder, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(folder)
    assert caught.value.exit_code == 9


def change(folder, **values):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_an_empty_folder_is_no_model(tmp_path):
    refused(tmp_path, r"neither manifest\.json nor model/manifest\.json")


def test_corrupted_folders_are_refused(folder):
    weights = folder / "model.weights.h5"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    refused(folder, "corrupted or replaced")
    weights.unlink()
    refused(folder, "missing")
    weights.write_bytes(whole)
    load_model(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format_version": 2}, "has format version 2"),
        ({"class_names": ["one"]}, "class_names"),
        ({"config": {"backbone": "vgg16", "weights": "random", "evil": 1}}, "config.evil"),
        ({"config": {"backbone": "os.system"}}, "unknown backbone 'os.system'"),
        ({"config": {"backbone": "vgg16"}}, "layers of imagetune are in the file"),
        ({"config": {"backbone": "vgg16", "head": {"hidden": [8] * 200_000}}}, "config.head.hidden"),
        ({"config": {"backbone": "vgg16", "head": {"hidden": [10**9]}}}, "config.head.hidden.0"),
        ({"max_pixels": 10**18}, "max_pixels"),
        ({"image": {"height": 8, "width": 8, "resize": "pad", "background": [0, 0, 0]}}, "takes images of at least 32"),
    ],
)
def test_changed_manifests_are_refused(folder, values, message):
    change(folder, **values)
    refused(folder, message)


def test_transforms_are_kept_and_a_manifest_without_them_has_none(folder, build, tmp_path):
    path = folder / "manifest.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "tta"}))
    assert load_model(folder).tta == ()
    tta = ("horizontal_flip", "zoom_in")
    save_model(
        build(TINY),
        tmp_path / "with",
        config=ModelConfig(backbone=TINY),
        class_names=CLASSES,
        image=settings(32),
        tta=tta,
    )
    assert load_model(tmp_path / "with").tta == tta


def test_transforms_that_the_images_cannot_have_are_refused(folder):
    image = {"height": 32, "width": 64, "resize": "pad", "background": [0, 0, 0]}
    change(folder, image=image, tta=["rotate_270"])
    refused(folder, "rotate_270 needs square images, not 32x64")
    change(folder, tta=["sideways"])
    refused(folder, "tta")


def test_text_is_not_a_manifest(folder):
    (folder / "manifest.json").write_text("{")
    refused(folder, "not a manifest that imagetune")


def test_a_head_that_the_weights_are_too_few_for_takes_no_memory(folder):
    change(folder, config={"backbone": TINY, "head": {"hidden": [16_384, 16_384]}})
    refused(folder, "its head is larger than")


def test_hostile_weights_with_a_matching_hash_are_refused(folder, tmp_path):
    path = folder / "model.weights.h5"
    with h5py.File(path, "a") as file:
        group = file["layers/dense/vars"]
        del group["0"]
        group["0"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/x")
    change(folder, weights_sha256=compute_file_sha256(path))
    refused(folder, "link to somewhere else")


def test_the_manifest_names_no_code(folder):
    text = (folder / "manifest.json").read_text()
    assert "module" not in text
    assert json.loads(text)["config"]["backbone"] == TINY


def test_a_model_of_another_build_does_not_load_the_wrong_weights(folder):
    other = build_model(ModelConfig(backbone=TINY), num_classes=4, image_size=(32, 32))
    other.save_weights(folder / "model.weights.h5")
    change(folder, weights_sha256=compute_file_sha256(folder / "model.weights.h5"))
    refused(folder, "logits: 24x4 4 in the file, 24x3 3 needed")


def test_what_is_known_later_is_added_and_the_rest_stays(build, tmp_path):
    write(build(TINY), tmp_path / "run/model")
    before = json.loads((tmp_path / "run/model/manifest.json").read_text())
    update_manifest(tmp_path / "run", {"temperature": 1.7})
    update_manifest(tmp_path / "run", {"operating_point": {"positive": "bee", "threshold": 0.2}})
    after = json.loads((tmp_path / "run/model/manifest.json").read_text())
    assert after == before | {"temperature": 1.7, "operating_point": {"positive": "bee", "threshold": 0.2}}
    loaded = load_model(tmp_path / "run")
    assert (loaded.temperature, loaded.operating_point.positive, loaded.conformal) == (1.7, "bee", None)
    assert names_in(tmp_path / "run/model") == ["manifest.json", "model.weights.h5"]


def test_a_value_that_does_not_fit_changes_nothing(build, tmp_path):
    write(build(TINY), tmp_path / "model")
    before = (tmp_path / "model/manifest.json").read_bytes()
    for values in ({"temperature": -1.0}, {"operating_point": {"positive": "owl", "threshold": 0.2}}, {"unknown": 1}):
        with pytest.raises(ValueError, match="temperature|owl|unknown"):
            update_manifest(tmp_path, values)
    assert (tmp_path / "model/manifest.json").read_bytes() == before


def test_an_old_manifest_has_nothing_settled(build, tmp_path):
    write(build(TINY), tmp_path / "model")
    path = tmp_path / "model/manifest.json"
    content = json.loads(path.read_text())
    for name in ("temperature", "conformal", "operating_point"):
        del content[name]
    path.write_text(json.dumps(content))
    loaded = load_model(tmp_path)
    assert (loaded.temperature, loaded.conformal, loaded.operating_point) == (None, None, None)
