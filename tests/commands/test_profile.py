"""What a profile measures and how it is summed up, with stub measurements."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from imagetune.commands import profile as command
from imagetune.recipe.schema import Recipe
from imagetune.training.setup.stopping import StopRequest

STAGES = [
    {"name": "head", "unfreeze": "none", "epochs": 1, "learning_rate": 1e-2},
    {"name": "top", "unfreeze": "all", "epochs": 1, "learning_rate": 1e-3},
    {"name": "large", "unfreeze": "all", "epochs": 1, "learning_rate": 1e-3, "image_size": 64},
]


@dataclass(frozen=True)
class Images:
    config: object
    train: tuple = ("a", "b")
    val: tuple = ()
    hashes: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    images: Images
    config: object
    stop: StopRequest = field(default_factory=StopRequest)


@pytest.fixture
def recipe():
    data = {"source": "x", "image_size": 32, "workers": 2, "cache": "ram"}
    return Recipe.model_validate({"data": data, "train": {"stages": STAGES, "batch_size": 16}})


def test_decoded_images_are_not_cached_while_their_decoding_is_measured(recipe, monkeypatch):
    job = Job(Images(recipe.data), recipe.train)
    monkeypatch.setattr(command, "load_checked_recipe", lambda *_: SimpleNamespace(recipe=recipe))
    monkeypatch.setattr(command, "read_data", lambda *_, **__: "data")
    monkeypatch.setattr(command, "prepare_training", lambda *_, **__: SimpleNamespace(recipe=recipe, job=job))
    monkeypatch.setattr(command, "_measure_training", lambda recipe, job, say: (recipe, job))
    found, measured = command.profile("recipe.yaml")
    assert found.data.cache == "ram"
    assert measured.images.config == recipe.data.model_copy(update={"cache": "off"})


def test_each_way_of_loading_is_measured_once(recipe, monkeypatch):
    steps = []

    def load(records, image, augmentation, *, max_pixels):
        steps.append(image.height)
        return "times"

    def pipeline(batches, *, buffered, seconds):
        steps.append((batches, buffered))
        return "pipeline"

    monkeypatch.setattr(command, "time_loading", load)
    monkeypatch.setattr(command, "open_stage_batches", lambda job, stage, epochs: stage.name)
    monkeypatch.setattr(command, "time_pipeline", pipeline)
    loading = command._measure_loading(Job(Images(recipe.data), recipe.train), kept=False)
    # Two workers finish four batches each ahead of time.
    assert steps == [32, ("head", 8), 64, ("large", 8)]
    assert [(found.stages, found.image.height, found.kept) for found in loading] == [
        (("head", "top"), 32, None),
        (("large",), 64, None),
    ]


def test_images_without_a_hash_cannot_be_cached(recipe):
    job = Job(Images(recipe.data, hashes={}, train=(SimpleNamespace(path="a.png"),)), recipe.train)
    assert command._measure_kept(job, recipe.train.stages[0], 8) is None


def test_only_what_fits_into_the_limit_is_expected_in_the_cache(recipe):
    data = recipe.data.model_copy(update={"cache": "auto"})
    images = data.cache_bytes // (32 * 32 * 3)
    assert command._fits_in_cache(data, images // 2)
    assert not command._fits_in_cache(data, 2 * images)
    assert not command._fits_in_cache(data.model_copy(update={"cache": "off"}), 1)
