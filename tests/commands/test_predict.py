"""Which model predicts, which decision rules are refused, and what is an error, without any model."""

from __future__ import annotations

import csv

import pytest

from imagetune.cli.render.predictions import format_prediction
from imagetune.commands import predict as command
from imagetune.errors import DataError, RecipeError
from imagetune.evaluation.predict import DecisionRules, ImagePrediction
from imagetune.evaluation.prediction_table import describe_prediction

NOT_UTF8 = ImagePrediction("caf\udce9.png", "red", {"red": 0.75, "blue": 0.25}, None)
READ = ImagePrediction("a.png", "red", {"red": 0.75, "blue": 0.25}, None)
UNREADABLE = ImagePrediction("b.png", None, {}, "not an image")


@pytest.fixture
def found(monkeypatch):
    """The predictions of a run; of an ensemble the same, reversed."""
    predictions = [READ, UNREADABLE]
    monkeypatch.setattr(command, "find_images", lambda paths, **_: list(paths))
    monkeypatch.setattr(command, "open_run", lambda run: (None, run))
    monkeypatch.setattr(command, "predict_images", lambda loaded, paths, rules: iter(predictions))
    monkeypatch.setattr(command, "predict_ensemble", lambda runs, paths, *, say: reversed(predictions))
    return predictions


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
    monkeypatch.setattr(command, "open_run", lambda _: pytest.fail("a model was loaded"))
    with pytest.raises(RecipeError, match=message):
        command.predict("runs/a", ["a.png"], rules, others=others)


def test_images_of_which_none_can_be_read_are_an_error_after_their_predictions(found):
    found[:] = [UNREADABLE]
    predictions = command.predict("runs/a", ["b.png"])
    assert next(predictions) == UNREADABLE
    with pytest.raises(DataError, match="none of the images can be read"):
        next(predictions)


def test_a_csv_has_a_row_for_each_image(found, tmp_path):
    said = []
    command.predict_to_csv("runs/a", ["a.png", "b.png"], tmp_path / "out.csv", say=lambda *words: said.append(words))
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["label"], row["error"]) for row in rows] == [
        ("a.png", "red", ""),
        ("b.png", "", "not an image"),
    ]
    assert said == [("written", f"{tmp_path / 'out.csv'}: 2 images, 1 of them can't be read")]


def test_a_csv_is_written_even_where_no_image_can_be_read(found, tmp_path):
    found[:] = [UNREADABLE]
    with pytest.raises(DataError, match="none of the images can be read"):
        command.predict_to_csv("runs/a", ["b.png"], tmp_path / "out.csv")
    assert "not an image" in (tmp_path / "out.csv").read_text()


def test_no_image_is_overwritten_by_the_csv(found, tmp_path):
    image = tmp_path / "a.png"
    image.write_bytes(b"pixels")
    with pytest.raises(DataError, match="never overwrites"):
        command.predict_to_csv("runs/a", [str(image)], image)
    assert image.read_bytes() == b"pixels"


def test_a_name_that_is_not_utf8_costs_no_prediction(found, tmp_path):
    found[:] = [READ, NOT_UTF8]
    command.predict_to_csv("runs/a", ["a.png"], tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["a.png", r"caf\xe9.png"]
    assert describe_prediction(NOT_UTF8)["path"] == r"caf\xe9.png"
    assert format_prediction(NOT_UTF8).startswith("caf\\xe9.png\tred")


def test_classes_called_like_columns_have_columns_of_their_own(found, tmp_path):
    found[:] = [ImagePrediction("a.png", "error", {"error": 0.75, "label": 0.25}, None)]
    command.predict_to_csv("runs/a", ["a.png"], tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {"path": "a.png", "label": "error", "class error": "0.75", "class label": "0.25", "error": ""}
