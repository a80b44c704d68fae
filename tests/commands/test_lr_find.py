"""Which stage a range test takes, and what it leaves, without any training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from imagetune.commands import lr_find as command
from imagetune.errors import RecipeError

HEAD = "{name: head, epochs: 1, learning_rate: 1e-2}"
TOP = "{name: top, unfreeze: last 1 blocks, epochs: 1, learning_rate: 1e-3}"


@pytest.fixture
def recipe(tmp_path, images):
    path = tmp_path / "r.yaml"
    model = "{backbone: mobilenet_v3_small, weights: random}"
    data, train = f"{{source: {images}, image_size: 32}}", f"{{stages: [{HEAD}, {TOP}]}}"
    path.write_text(f"data: {data}\nmodel: {model}\ntrain: {train}\n", encoding="utf-8")
    return path


@pytest.fixture
def tested(monkeypatch):
    """The names of the stages that were tested."""
    names = []

    def find(job, model, stage):
        names.append(stage.name)
        return f"rates of {stage.name}"

    def prepare(recipe, data, *, say, stop, workers):
        assert workers == "as_written"
        return SimpleNamespace(job="job", recipe=recipe)

    monkeypatch.setattr(command, "prepare_training", prepare)
    monkeypatch.setattr(command, "build_stage_model", lambda job, stage: None)
    monkeypatch.setattr(command, "find_stage_learning_rate", find)
    monkeypatch.setattr(command, "write_range_test_plot", lambda found, out: out.write_text(found))
    return names


def test_the_first_stage_is_tested_unless_another_is_named(recipe, tested, tmp_path):
    said = []
    assert command.find_learning_rate(recipe, say=lambda *told: said.append(told)) == "rates of head"
    assert command.find_learning_rate(recipe, stage="top") == "rates of top"
    assert tested == ["head", "top"]
    topic, text = said[-1]
    assert topic == "stage"
    assert text.startswith("head: up to 100 steps of 32 images at a rising learning rate, as much as ")
    assert {path.name for path in tmp_path.iterdir()} == {"r.yaml"}


def test_a_plot_is_drawn_where_one_is_asked_for(recipe, tested, tmp_path):
    command.find_learning_rate(recipe, out=tmp_path / "rates.png")
    assert (tmp_path / "rates.png").read_text() == "rates of head"


def test_an_unknown_stage_is_refused_before_any_image_is_read(recipe, tested, monkeypatch):
    monkeypatch.setattr(command, "read_data", lambda *_, **__: pytest.fail("images were read"))
    with pytest.raises(RecipeError, match="no stage is called 'tip'; did you mean 'top'"):
        command.find_learning_rate(recipe, stage="tip")
    assert tested == []


def test_a_solved_head_has_no_learning_rate_to_find(recipe, tested):
    overrides = ["train.stages.0.solve=true"]
    assert command.find_learning_rate(recipe, overrides) == "rates of top"
    with pytest.raises(RecipeError, match="the head of stage 'head' is solved"):
        command.find_learning_rate(recipe, overrides, stage="head")
    with pytest.raises(RecipeError, match="every stage is solved"):
        command.find_learning_rate(recipe, ["train.stages=linear_probe"])
