"""Which model predicts, which decision rules are refused, and what is an error, without any model."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from imagetune.cli.render.predictions import format_prediction
from imagetune.commands import predict as command
from imagetune.commands.predict import TableRequest
from imagetune.core.messages import say_nothing
from imagetune.errors import CheckpointError, DataError, ModelFileError, RecipeError, StoppedError
from imagetune.evaluation.predict import NO_DECISION_RULES, DecisionRules, ImagePrediction
from imagetune.evaluation.prediction_table import describe_prediction
from imagetune.model.manifest import LoadedModel
from imagetune.recipe.sections.data import ImageSettings
from imagetune.recipe.sections.model import ModelConfig

NOT_UTF8 = ImagePrediction("caf\udce9.png", "red", {"red": 0.75, "blue": 0.25}, None)
READ = ImagePrediction("a.png", "red", {"red": 0.75, "blue": 0.25}, None)
UNREADABLE = ImagePrediction("b.png", None, {}, "not an image")


MODEL = LoadedModel(None, ("red", "blue"), ImageSettings(height=32, width=32), ModelConfig(), 10**6, "")


@pytest.fixture
def found(monkeypatch, tmp_path):
    """The predictions of a run; of an ensemble the same, reversed. The working folder has their images."""
    predictions = [READ, UNREADABLE]

    def predict(models, images, rules, *, start=0):
        return iter(predictions[start:] if len(models) == 1 else predictions[::-1])

    def open_runs(runs):
        return [SimpleNamespace(folder=SimpleNamespace(model=tmp_path / "run", recipe=tmp_path / "none")) for _ in runs]

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"pixels")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "open_members", open_runs)
    monkeypatch.setattr(command, "load_model", lambda folder: MODEL)
    monkeypatch.setattr(command, "predict_with_models", predict)
    return predictions


def write(kind, *, said=None, paths=("a.png", "b.png"), rules=NO_DECISION_RULES, **more):
    file = Path(f"out.{kind}")
    say = (lambda *words: said.append(words)) if said is not None else say_nothing
    command.predict_to_table("runs/a", paths, TableRequest(file, kind, **more), rules, say=say)
    return file


def write_first(monkeypatch, kind, said=None):
    """Write a table of which a signal comes after the first row."""

    def stop(models, images, rules, *, start=0):
        yield READ
        raise StoppedError(signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(command, "_ROWS", 1)
        patch.setattr(command, "predict_with_models", stop)
        write(kind, said=said)


def test_one_run_predicts_alone_and_several_as_an_ensemble(found):
    assert list(command.predict("runs/a", ["a.png", "b.png"])) == [READ, UNREADABLE]
    assert list(command.predict("runs/a", ["a.png", "b.png"], others=["runs/b"])) == [UNREADABLE, READ]


@pytest.mark.parametrize(
    ("rules", "others", "message"),
    [
        (DecisionRules(operating_point=True, min_cost=True), (), "exclude each other; give one of them"),
        (DecisionRules(calibrated=True), ("runs/b",), "need a single run; leave it out"),
        (DecisionRules(sets=True), ("runs/b",), "need a single run"),
    ],
)
def test_rules_that_cannot_be_applied_are_refused_before_a_model_is_loaded(found, monkeypatch, rules, others, message):
    monkeypatch.setattr(command, "open_members", lambda _: pytest.fail("a run was opened"))
    with pytest.raises(RecipeError, match=message):
        command.predict("runs/a", ["a.png"], rules, others=others)


def test_what_the_model_lacks_is_refused_before_anything_is_written(found):
    with pytest.raises(ModelFileError, match="--sets: the model has no rule for prediction sets"):
        write("csv", rules=DecisionRules(sets=True))
    with pytest.raises(ModelFileError, match="--ood: the model has no out-of-distribution score"):
        write("csv", out_of_distribution=True)
    assert not list(Path().glob("out*"))


def test_images_of_which_none_can_be_read_are_an_error_after_their_predictions(found):
    found[:] = [UNREADABLE]
    predictions = command.predict("runs/a", ["b.png"])
    assert next(predictions) == UNREADABLE
    with pytest.raises(DataError, match="none of the images can be read"):
        next(predictions)


def test_a_csv_has_a_row_for_each_image(found):
    said = []
    with write("csv", said=said).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["label"], row["red"], row["error"]) for row in rows] == [
        ("a.png", "red", "0.75", ""),
        ("b.png", "", "", "not an image"),
    ]
    assert said == [("written", "out.csv: 2 images, 1 of them can't be read")]


def test_json_lines_are_those_of_json(found):
    lines = write("jsonl").read_text().splitlines()
    assert list(map(json.loads, lines)) == [describe_prediction(READ), describe_prediction(UNREADABLE)]
    lines = write("jsonl", probabilities=False).read_text().splitlines()
    assert json.loads(lines[0]) == {"path": "a.png", "label": "red", "error": None}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_is_written_even_where_no_image_can_be_read(found, kind):
    found[:] = [UNREADABLE]
    with pytest.raises(DataError, match="none of the images can be read"):
        write(kind, paths=["b.png"])
    assert b"not an image" in Path(f"out.{kind}").read_bytes()


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_stopped_table_is_gone_on_with_as_if_it_had_never_stopped(found, kind, monkeypatch):
    whole = write(kind).read_bytes()
    Path(f"out.{kind}").unlink()

    said = []
    write_first(monkeypatch, kind, said)
    assert said == [("kept", "1 of 2 rows; the same command with --resume goes on")]
    assert not Path(f"out.{kind}").exists()
    assert write(kind, resume=True, said=said).read_bytes() == whole
    assert said[1:] == [("written", f"out.{kind}: 2 images, 1 of them can't be read")]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"paths": ("b.png", "a.png")}, "other images"),
        ({"probabilities": False}, "other columns"),
        ({"rules": DecisionRules(calibrated=True)}, "other decision rules"),
        ({}, "other model"),
    ],
)
def test_a_table_of_something_else_is_not_gone_on_with(found, monkeypatch, changed, message):
    monkeypatch.setattr(command, "require_rules", lambda model, rules: None)
    write_first(monkeypatch, "csv")
    if not changed:
        Path("run/manifest.json").write_text('{"other": 1}')
    with pytest.raises(CheckpointError, match=rf"what is kept of it \(1 row\) was made with {message}"):
        write("csv", resume=True, **changed)


def test_no_image_is_overwritten_by_the_table(found, tmp_path):
    (tmp_path / "out.csv").symlink_to(tmp_path / "a.png")
    with pytest.raises(DataError, match="never overwrites"):
        write("csv")
    assert (tmp_path / "a.png").read_bytes() == b"pixels"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_name_that_is_not_utf8_costs_no_prediction(found, kind):
    found[:] = [READ, NOT_UTF8]
    assert rb"caf\xe9.png" in write(kind).read_bytes().replace(rb"\\", b"\\")
    assert describe_prediction(NOT_UTF8)["path"] == r"caf\xe9.png"
    assert format_prediction(NOT_UTF8).startswith("caf\\xe9.png\tred")
