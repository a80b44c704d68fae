"""Which runs a soup is made of, and the BatchNorm statistics of their mean, with models of a few weights."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from imagetune.commands import soup as command
from imagetune.commands.soup import find_differing_statistics, find_kept_members, rank
from imagetune.core.files import read_json_object
from imagetune.errors import DataError, ModelFileError, RecipeError
from imagetune.model.manifest import Manifest
from imagetune.model.soup import SoupStep
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.data import ImageSettings
from imagetune.recipe.sections.model import ModelConfig
from imagetune.run_folder.folder import RunFolder
from imagetune.runs import run as lives
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
    assert find_kept_members(steps) == (2, 0)
    assert find_kept_members(steps[:1]) == (2,)


@pytest.fixture
def model():
    norm = keras.layers.BatchNormalization
    return keras.Sequential([keras.Input((4,)), norm(name="one"), keras.layers.Dense(3), norm(name="two")])


def test_only_layers_whose_statistics_differ_are_found(model):
    first = model.get_weights()
    model.get_layer("two").moving_variance.assign([1.0, 2.0, 3.0])
    model.get_layer("one").gamma.assign(np.full(4, 0.5))
    second = model.get_weights()
    assert [layer.name for layer in find_differing_statistics(model, [first, second, first])] == ["two"]
    assert find_differing_statistics(model, [second, second]) == []


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


def model_of(value):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.full((1, 1), value, np.float32)])
    return SimpleNamespace(model=model)


def manifest(**values):
    image = ImageSettings(height=32, width=32, resize="pad", background=(0, 0, 0))
    return Manifest(
        imagetune="0.1.0",
        keras="3.15.1",
        config=ModelConfig(),
        precision="float32",
        task="single_label",
        class_names=("a", "b"),
        image=image,
        max_pixels=1_000_000,
        weights_sha256="0",
    ).model_copy(update=values)


@pytest.fixture
def members(monkeypatch, tmp_path):
    """Runs of one weight each, 1, 3 and 9; on validation a model is the better the nearer its weight is to 2."""
    recipe = Recipe.model_validate({"name": "stub", "data": {"source": "x"}, "tracking": {"enabled": False}})
    splits = SimpleNamespace(train=("t",), val=("v",), class_names=("a", "b"))
    values = {"one": 1.0, "three": 3.0, "nine": 9.0}

    def make(name, **changes):
        folder = RunFolder(tmp_path / name)
        member = SimpleNamespace(
            name=name, folder=folder, recipe=recipe, splits=splits, hashes={}, manifest=manifest(weights_sha256=name)
        )
        return SimpleNamespace(**{**vars(member), **changes})

    def validate(model, images, *, batch_size):
        distance = abs(float(model.get_weights()[0][0, 0]) - 2.0)
        return {"loss": distance, "accuracy": 1.0 - distance / 10}

    found = {name: make(name) for name in values}
    monkeypatch.setattr(command, "open_members", lambda runs: [found[run] for run in runs])
    monkeypatch.setattr(command, "count_different_images", lambda *_: 0)
    monkeypatch.setattr(command, "load_model", lambda folder: model_of(values[folder.parent.name]))
    monkeypatch.setattr(command, "compute_validation_metrics", validate)
    monkeypatch.setattr(command, "write_model", lambda folder, model, *_: model.get_weights()[0].item())
    monkeypatch.setattr(command, "evaluate_splits", lambda *_, val, **__: {"weight": val})
    monkeypatch.setattr(command, "list_failed_requirements", lambda *_: ())
    monkeypatch.setattr(lives, "write_pages", lambda folder: None)
    return found


def test_members_that_improve_validation_are_averaged_and_the_mean_is_tested(members, tmp_path):
    said = []
    soup = command.soup(["nine", "three", "one"], run_dir=tmp_path / "soup", say=lambda *words: said.append(words))
    # One and three are equally good alone, and their mean is perfect; with nine it would be 4.33.
    assert soup.evaluation == {"weight": 2.0}
    kept = {member["run"]: member["kept"] for member in soup.document["members"]}
    assert kept == {"nine": False, "three": True, "one": True}
    assert (soup.document["batch_norm"], RunFolder(soup.folder).read_status()["state"]) == ("averaged", "finished")
    assert read_json_object(soup.folder / "soup.json") == soup.document
    assert [words[0] for words in said[:3]] == ["kept", "kept", "left out"]


def test_runs_that_cannot_be_averaged_are_refused(members, tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match="at least two runs"):
        command.soup(["one"])
    members["three"].manifest = manifest(precision="mixed_float16", temperature=2.0)
    command.soup(["one", "three"], run_dir=tmp_path / "soup")  # neither changes what a weight means
    members["three"].manifest = manifest(class_names=("b", "a"))
    with pytest.raises(ModelFileError, match="its class_names is"):
        command.soup(["one", "three"])
    monkeypatch.setattr(command, "count_different_images", lambda *_: 2)
    with pytest.raises(DataError, match="its validation images are not those of one: 2 differences"):
        command.soup(["one", "nine"])
