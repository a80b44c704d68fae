"""A table of predictions: what is written, refused, kept and gone on with, without any model."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import pytest
from image_predictions import NOT_UTF8, READ, UNREADABLE

from imagetune.cli.render.predictions import format_prediction
from imagetune.commands import predict_table as command
from imagetune.commands.predict_table import TableRequest
from imagetune.core.messages import say_nothing
from imagetune.errors import CheckpointError, DataError, ModelFileError, StoppedError
from imagetune.evaluation.image_predictions import NO_DECISION_RULES, DecisionRules
from imagetune.evaluation.prediction_table import describe_prediction


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


def test_what_the_model_lacks_is_refused_before_anything_is_written(found):
    with pytest.raises(ModelFileError, match="--sets: the model has no rule for prediction sets"):
        write("csv", rules=DecisionRules(sets=True))
    with pytest.raises(ModelFileError, match="--ood: the model has no out-of-distribution score"):
        write("csv", out_of_distribution=True)
    assert not list(Path().glob("out*"))


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


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_complete_table_has_nothing_left_to_do_but_one_of_other_images_is_refused(found, kind):
    whole, said = write(kind).read_bytes(), []
    assert write(kind, resume=True, said=said).read_bytes() == whole
    assert said == [("finished", f"out.{kind} is complete already, with 2 images")]
    with pytest.raises(CheckpointError, match="is complete: nothing is kept"):
        write(kind, resume=True, paths=["a.png"])


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
    monkeypatch.setattr("imagetune.commands.predict.require_rules", lambda model, rules: None)
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


@pytest.mark.parametrize(
    ("key", "value"), [("rows", 10**9), ("note", {}), ("note", {"unread": "x"}), ("note", {"unread": 9})]
)
def test_kept_rows_that_were_never_written_are_refused(found, monkeypatch, key, value):
    write_first(monkeypatch, "csv")
    state = Path("out.csv.partial/state.json")
    state.write_text(json.dumps(json.loads(state.read_text()) | {key: value}))
    with pytest.raises(CheckpointError, match="isn't what imagetune writes"):
        write("csv", resume=True)
    assert not Path("out.csv").exists()
