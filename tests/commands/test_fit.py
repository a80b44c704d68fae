"""The main job with a trainer that is done at once."""

from __future__ import annotations

import json
import signal

import pytest

from imagetune.commands import fit as command
from imagetune.commands.requirements import enforce_requirements
from imagetune.errors import GateError, RecipeError, WeightsError
from imagetune.model.load_weights import WeightsReport
from imagetune.runs import run as lives
from imagetune.runs.prepare import Training
from imagetune.training.setup.events import EpochRecord

BEST = EpochRecord("head", 1, 1, {"loss": 0.5}, {"loss": 0.6}, 1e-3, 10.0)
WEIGHTS = WeightsReport("random", None, 0, (), "random weights")
RECIPE = """\
name: stubbed
data: {{source: {source}, image_size: 32, workers: 0}}
model: {{backbone: mobilenet_v3_small, weights: random}}
train: {{batch_size: auto, stages: [{{name: head, unfreeze: none, epochs: 1, learning_rate: 1e-2}}]}}
evaluate: {{require: [{{metric: accuracy, value: 0.9}}]{more}}}
tracking: {{enabled: false}}
"""


@pytest.fixture
def happened(monkeypatch):
    """What the main job did, in order; nothing of it takes time."""
    steps = []

    def prepare(recipe, data, *, say, stop, workers="measured"):
        steps.append("prepare")
        train = recipe.train.model_copy(update={"batch_size": 16})
        return Training(recipe.model_copy(update={"train": train}), None, WEIGHTS)

    def train(run, training, *, begun, say):
        steps.append("train")
        assert run.folder.read_status()["state"] == "running"
        return BEST

    def test(run, training, splits, *, best, say):
        assert best is BEST
        steps.append("test")
        metrics = {"accuracy": {"value": 0.5, "low": 0.3, "high": 0.7}}
        document = {"splits": {"test": {"metrics": metrics}}}
        run.folder.write_evaluation(document)
        return document

    def cross_validate(run, folds, data, *, say, stop):
        steps.append(f"{len(folds)} folds")
        assert run.recipe.train.batch_size == 16
        return {"folds": {"count": len(folds)}}

    monkeypatch.setattr(command, "prepare_training", prepare)
    monkeypatch.setattr(command, "train_model", train)
    monkeypatch.setattr(command, "write_and_test", test)
    monkeypatch.setattr(command, "cross_validate", cross_validate)
    monkeypatch.setattr(command, "build_run_result", lives.build_run_result)
    monkeypatch.setattr(lives, "write_pages", lambda folder: steps.append("pages"))
    monkeypatch.setattr(lives, "list_failed_requirements", lambda *_: ("accuracy 0.5 is below 0.9",))
    return steps


@pytest.fixture
def write(tmp_path, images):
    def write(more=""):
        path = tmp_path / "stubbed.yaml"
        path.write_text(RECIPE.format(source=images, more=more), encoding="utf-8")
        return path

    return write


def test_a_run_has_its_inputs_before_it_trains_and_ends_finished(write, happened, tmp_path):
    result = command.fit(write(), run_dir=tmp_path / "run")
    assert happened == ["prepare", "train", "test", "pages"]
    assert result.folder == tmp_path / "run"
    lock = json.loads((result.folder / "lock.json").read_text())
    assert (lock["weights"]["note"], lock["seeds"]) == ("random weights", {"seed": 0})
    assert len(lock["images"]) == 30
    assert {"recipe.yaml", "splits.csv", "audit.json", "evaluation.json"} <= {
        path.name for path in result.folder.iterdir()
    }
    # What was `auto` stands in the recipe as it was settled.
    assert "batch_size: 16" in (result.folder / "recipe.yaml").read_text()
    assert json.loads((result.folder / "status.json").read_text())["state"] == "finished"


def test_folds_follow_the_test_and_are_in_its_evaluation(write, happened, tmp_path):
    said = []
    result = command.fit(write(", folds: 3"), run_dir=tmp_path / "run", say=lambda *told: said.append(told))
    assert happened == ["prepare", "train", "test", "3 folds", "pages"]
    assert result.evaluation["folds"] == {"count": 3}
    assert json.loads((result.folder / "evaluation.json").read_text()) == result.evaluation
    assert ("folds", "3, of the 25 images without test") in said


def test_a_missed_requirement_is_an_error_of_a_complete_run(write, happened, tmp_path):
    result = command.fit(write(), run_dir=tmp_path / "run")
    with pytest.raises(GateError, match="accuracy 0.5 is below 0.9"):
        enforce_requirements(result)


def test_nothing_is_left_behind_by_what_fails_before_training(write, happened, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise WeightsError("are not to be had", where="imagenet")

    monkeypatch.setattr(command, "prepare_training", refuse)
    with pytest.raises(WeightsError):
        command.fit(write(), run_dir=tmp_path / "run")
    with pytest.raises(RecipeError, match="unknown backbone"):
        command.fit(write(), ["model.backbone=resnet51"], run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert happened == []


def test_an_error_about_a_key_of_the_recipe_names_its_line(write, happened, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RecipeError("has no such block", where="train.stages[0].unfreeze")

    monkeypatch.setattr(command, "prepare_training", refuse)
    with pytest.raises(RecipeError, match=r"stubbed.yaml:4:\d+ train.stages\[0\].unfreeze"):
        command.fit(write(), run_dir=tmp_path / "run")


def test_signals_stay_as_they_are(write, happened, tmp_path, monkeypatch):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    during = []

    def train(run, training, *, begun, say):
        during.extend(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM))
        return BEST

    monkeypatch.setattr(command, "train_model", train)
    command.fit(write(), run_dir=tmp_path / "run")
    assert during == before


def test_nothing_is_printed(write, happened, tmp_path, capfd):
    command.fit(write(), run_dir=tmp_path / "run")
    assert capfd.readouterr() == ("", "")
