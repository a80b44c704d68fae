"""What is settled before a training, and in which order, without a model."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from imagetune.core.messages import say_nothing
from imagetune.data.findings import Finding
from imagetune.data.sources.records import Record
from imagetune.data.splits.splits import Splits
from imagetune.errors import DataError, ResourceError
from imagetune.recipe.schema import Recipe
from imagetune.runs import prepare
from imagetune.runs.prepare import prepare_training, read_data, refuse_inherited_leaks
from imagetune.training.measure.workers import WorkerChoice
from imagetune.training.setup.stopping import StopRequest


def list_findings(*severities):
    return tuple(
        Finding("blurred" if one == "warning" else "odd-size", one, f"{one} {at}") for at, one in enumerate(severities)
    )


def say_findings(findings, *, known=False):
    said = []
    prepare._say_findings(findings, lambda *words: said.append(words), known=known)
    return said


def test_a_training_begins_with_the_first_warnings_and_one_line_for_all_other_findings():
    said = say_findings(list_findings(*["note", "warning"] * 7))
    assert [severity for severity, _ in said] == ["warning"] * 3 + ["note"]
    assert said[0] == ("warning", "warning 1 [blurred]")
    assert said[-1][1].startswith("11 more findings on the images, shown by `imagetune data check` and in the report: ")


def test_a_single_finding_is_told_and_not_counted():
    assert say_findings(list_findings("note")) == [("note", "note 0 [odd-size]")]
    assert say_findings(()) == []


def test_findings_are_not_told_again_to_a_run_that_is_gone_on_with():
    ((severity, what),) = say_findings(list_findings("warning", "note", "note"), known=True)
    assert severity == "note"
    assert what.startswith("3 findings on the images")
    assert what.endswith(": blurred, odd-size")


@pytest.fixture
def recipe(images):
    return Recipe.model_validate(
        {
            "data": {"source": str(images), "image_size": 32},
            "model": {"backbone": "mobilenet_v3_small", "weights": "random"},
            "train": {"batch_size": "auto", "stages": [{"name": "head", "epochs": 1, "learning_rate": 1e-2}]},
        }
    )


@pytest.fixture
def data(recipe):
    return read_data(recipe, say=say_nothing)


@pytest.fixture
def settled(monkeypatch):
    """What was asked for, in order; a batch of 16 fits, and two processes load images best."""
    steps = []

    def batch(load, *, say):
        steps.append("batch size")
        return load.train.model_copy(update={"batch_size": 16})

    def build(recipe, images, *, say):
        steps.append(f"model at {recipe.train.batch_size}")
        return "model", "weights"

    def workers(*_, **__):
        steps.append("workers")
        return WorkerChoice(2, "they are faster")

    def job(recipe, images, model, *, stop):
        return SimpleNamespace(model=model, images=images)

    monkeypatch.setattr(prepare, "find_batch_size", batch)
    monkeypatch.setattr(prepare, "build_pretrained", build)
    monkeypatch.setattr(prepare, "measure_loading_speeds", lambda *_: None)
    monkeypatch.setattr(prepare, "choose_workers", workers)
    monkeypatch.setattr(prepare, "build_training_job", job)
    return steps


def prepared(recipe, data, **values):
    return prepare_training(recipe, data, say=say_nothing, stop=StopRequest(), **values)


def test_an_image_that_cannot_be_used_is_named_with_its_reason(images, tmp_path):
    source = Path(shutil.copytree(images, tmp_path / "images"))
    (next(source.iterdir()) / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    said = []
    recipe = Recipe.model_validate({"data": {"source": str(source), "on_bad_image": "skip"}})
    read_data(recipe, say=lambda *line: said.append(line))
    (text,) = [text for topic, text in said if topic == "warning" and "bad-image" in text]
    assert text.startswith("1 image can't be used: ")
    assert "cut.png (" in text


def test_all_that_is_auto_has_a_number_and_memory_is_tried_before_there_is_a_model(recipe, data, settled):
    training = prepared(recipe, data)
    assert settled == ["batch size", "model at 16", "workers"]
    assert (training.recipe.train.batch_size, training.recipe.data.workers) == (16, 2)
    # The images are read as the settled recipe says.
    assert training.job.images.config == training.recipe.data
    assert (training.job.model, training.weights) == ("model", "weights")


def test_numbers_of_the_recipe_stand(recipe, data, settled):
    train = recipe.train.model_copy(update={"batch_size": 8})
    own = recipe.model_copy(update={"train": train, "data": recipe.data.model_copy(update={"workers": 3})})
    assert prepared(own, data).recipe == own
    assert settled == ["model at 8"]


@pytest.mark.parametrize(
    ("workers", "cache", "found", "measured"),
    [
        ("as_written", "auto", "auto", False),
        ("unless_features_are_kept", "auto", 0, False),
        ("unless_features_are_kept", "off", 2, True),
    ],
)
def test_measuring_how_to_load_is_left_out_where_it_does_not_pay(
    recipe, data, settled, workers, cache, found, measured
):
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"cache": cache})})
    assert prepared(recipe, data, workers=workers).recipe.data.workers == found
    assert ("workers" in settled) is measured


def test_a_model_that_does_not_fit_into_memory_is_reported_with_its_batch_size(recipe, data, settled, monkeypatch):
    def build(*_, **__):
        raise RuntimeError("RESOURCE_EXHAUSTED: failed to allocate 9 GiB")

    monkeypatch.setattr(prepare, "build_pretrained", build)
    with pytest.raises(ResourceError, match="out of memory at a batch size of 16"):
        prepared(recipe, data)


class TestInheritedLeaks:
    """A run whose teacher has seen one of its three test images."""

    @pytest.fixture
    def refuse(self, recipe, tmp_path, monkeypatch):
        tested = tuple(Record(f"{number}.png", "a", "test") for number in range(3))
        splits = Splits(tmp_path, ("a", "b"), (), (), tested)
        (tmp_path / "splits.csv").touch()
        ancestor = SimpleNamespace(folder=SimpleNamespace(path=tmp_path, splits=tmp_path / "splits.csv"))
        monkeypatch.setattr(prepare, "find_run", lambda run, uri: ancestor.folder)
        monkeypatch.setattr(prepare, "open_members", lambda runs: [ancestor])
        monkeypatch.setattr(prepare, "count_seen_images", lambda member, records, hashes: 1)

        def refuse(on_leak, *, taught=True):
            said = []
            data = recipe.data.model_copy(update={"audit": recipe.data.audit.model_copy(update={"on_leak": on_leak})})
            teacher = recipe.train.model_validate({**recipe.train.model_dump(), "teacher": {"run": "runs/old"}})
            own = recipe.model_copy(update={"data": data, **({"train": teacher} if taught else {})})
            refuse_inherited_leaks(own, splits, {}, say=lambda *told: said.append(told))
            return said

        return refuse

    def test_stops_it(self, refuse):
        with pytest.raises(DataError, match="runs/old was trained on 1 of this run's 3 test images") as caught:
            refuse("error")
        assert caught.value.where == "train.teacher"

    def test_is_a_warning_where_the_recipe_says_so(self, refuse):
        ((topic, text),) = refuse("warn")
        assert topic == "warning"
        assert (
            text
            == "train.teacher: runs/old was trained on 1 of this run's 3 test images: the test metrics are too good"
        )

    def test_is_not_looked_for_without_need(self, refuse):
        assert refuse("ignore") == []
        assert refuse("error", taught=False) == []

    def test_cannot_be_found_where_the_teacher_does_not_say_what_it_learned_from(self, refuse, tmp_path):
        Path(tmp_path / "splits.csv").unlink()
        assert refuse("error") == [
            (
                "warning",
                "train.teacher: runs/old has no splits.csv, so nobody knows whether it was trained on test images",
            )
        ]
