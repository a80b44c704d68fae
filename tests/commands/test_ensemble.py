"""Which images an ensemble is tested on, and the mean of its predictions, with stub models."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from imagetune.commands import ensemble as command
from imagetune.data.sources.labels import LabelRule
from imagetune.data.sources.records import Record
from imagetune.errors import DataError
from imagetune.evaluation.predictions import Predictions
from imagetune.recipe.schema import Recipe
from imagetune.runs.lineage import SeenImages

RECORDS = tuple(Record(f"{index}.png", label) for index, label in enumerate("aabb"))
PROBABILITIES = {"one": [0.9, 0.6, 0.4, 0.4], "two": [0.7, 0.2, 0.3, 0.1]}


def member(name):
    recipe = Recipe.model_validate({"data": {"source": "x"}, "evaluate": {"bootstrap_samples": 100}})
    manifest = SimpleNamespace(class_names=("a", "b"))
    return SimpleNamespace(name=name, recipe=recipe, splits="splits", hashes={"0.png": "f00"}, manifest=manifest)


@pytest.fixture
def members(monkeypatch):
    """Two runs whose predictions are `PROBABILITIES` of class a; the images that each was checked against."""
    members = [member("one"), member("two")]
    checked = []

    def predict(member, records):
        first = np.array(PROBABILITIES[member.name])
        labels = np.array(["ab".index(record.label) for record in records])
        return Predictions(
            tuple(record.path for record in records),
            labels,
            np.stack([first, 1 - first], axis=1),
            ("a", "b"),
            LabelRule("single_label"),
        )

    monkeypatch.setattr(command, "open_members", lambda runs: members)
    monkeypatch.setattr(command, "open_holdout", lambda splits: RECORDS)
    monkeypatch.setattr(
        command, "read_labelled_records", lambda path, config, class_names: (RECORDS, {"bad.png": "empty"})
    )
    monkeypatch.setattr(command, "hash_images", lambda records: {"0.png": "ba5e"})

    def choose(members, records, hashes, policy):
        checked.extend((one.name, hashes) for one in members)
        return tuple(records), SeenImages().to_dict()

    monkeypatch.setattr(command, "choose_tested_images", choose)
    monkeypatch.setattr(command, "_predict", predict)
    return checked


def test_the_mean_probabilities_are_tested_on_the_first_runs_test_images(members):
    document = command.evaluate_ensemble(["one", "two"])
    # Means 0.8, 0.4, 0.35, 0.25 of class a: the second image is wrong, though the first run has it right.
    assert document["splits"]["test"]["metrics"]["accuracy"]["value"] == 0.75
    assert document["members"] == [{"run": "one", "tta": []}, {"run": "two", "tta": []}]
    assert "unusable" not in document
    # The first run's test images are its own; only the other may have seen them.
    assert members == [("two", {"0.png": "f00"})]


def test_other_images_must_be_new_to_every_run(members, tmp_path):
    document = command.evaluate_ensemble(["one", "two"], data=tmp_path)
    assert document["unusable"] == {"bad.png": "empty"}
    assert members == [("one", {"0.png": "ba5e"}), ("two", {"0.png": "ba5e"})]


def test_an_image_that_a_run_has_seen_ends_the_test(members, monkeypatch):
    def refuse(*_, **__):
        raise DataError("1 of 4 test images are among its training or validation images")

    monkeypatch.setattr(command, "choose_tested_images", refuse)
    monkeypatch.setattr(command, "_predict", lambda *_: pytest.fail("something was predicted"))
    with pytest.raises(DataError, match="1 of 4"):
        command.evaluate_ensemble(["one", "two"])
