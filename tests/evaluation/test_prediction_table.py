"""Rows of predictions in the three formats: the same values, however they are cut into batches."""

from __future__ import annotations

import csv
import json

import pytest
from pyarrow import parquet

from imagetune.evaluation import prediction_table
from imagetune.evaluation.image_predictions import ImagePrediction
from imagetune.evaluation.prediction_table import TableColumns, TableWriter, describe_prediction

SET = ImagePrediction("a.png", "red", {"red": 0.75, "blue": 0.25}, None, None, ("red", "blue"), None, True, 7.5)
BAD = ImagePrediction("b.png", None, {}, "empty")
NUMBER = ImagePrediction("a.png", "2.5", {}, None, 2.5, interval=(2.0, 3.0))
ALL = TableColumns(("red", "blue"), "sets", out_of_distribution=True)


def write(kind, columns, rows, folder, batch=2):
    """Return the path of a file with rows that are added a batch at a time."""
    writer = TableWriter(kind, columns)
    content = writer.start() + b"".join(writer.encode(rows[at : at + batch]) for at in range(0, len(rows), batch))
    (folder / "rows").write_bytes(content)
    if writer.convert is None:
        return folder / "rows"
    writer.convert(folder / "rows", folder / "made")
    return folder / "made"


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_text_for_each_value(tmp_path):
    first, second = read_csv(write("csv", ALL, [SET, BAD], tmp_path))
    assert first == {
        "path": "a.png",
        "label": "red",
        "red": "0.75",
        "blue": "0.25",
        "prediction_set": "red;blue",
        "out_of_distribution": "True",
        "out_of_distribution_score": "7.5",
        "error": "",
    }
    assert (second["path"], second["error"]) == ("b.png", "empty")
    assert set(list(second.values())[1:-1]) == {""}


def test_parquet_has_a_type_for_each_value(tmp_path):
    table = parquet.read_table(write("parquet", ALL, [SET, BAD], tmp_path))
    first, second = table.to_pylist()
    assert first == {
        "path": "a.png",
        "label": "red",
        "red": 0.75,
        "blue": 0.25,
        "prediction_set": ["red", "blue"],
        "out_of_distribution": True,
        "out_of_distribution_score": 7.5,
        "error": None,
    }
    assert [name for name, value in second.items() if value is not None] == ["path", "error"]
    assert str(table.schema.field("red").type) == "float"


def test_a_number_is_a_number_in_parquet_and_its_text_in_csv(tmp_path):
    columns = TableColumns(sets="intervals", value=True)
    (row,) = parquet.read_table(write("parquet", columns, [NUMBER], tmp_path)).to_pylist()
    assert row == {"path": "a.png", "label": "2.5", "value": 2.5, "low": 2.0, "high": 3.0, "error": None}
    (row,) = read_csv(write("csv", TableColumns(sets="intervals"), [NUMBER], tmp_path))
    assert row == {"path": "a.png", "label": "2.5", "low": "2.0", "high": "3.0", "error": ""}


def test_json_lines_are_objects_with_or_without_probabilities(tmp_path):
    (line,) = write("jsonl", ALL, [SET], tmp_path).read_text().splitlines()
    assert json.loads(line) == describe_prediction(SET) | {"prediction_set": ["red", "blue"]}
    (line,) = write("jsonl", TableColumns(), [SET], tmp_path).read_text().splitlines()
    assert "probabilities" not in json.loads(line)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_the_bytes_do_not_depend_on_the_batches_and_row_groups_are_bounded(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(prediction_table, "_GROUP_ROWS", 5)
    rows = [SET, BAD, SET] * 4
    found = {write(kind, ALL, rows, tmp_path, batch).read_bytes() for batch in (1, 4, 12)}
    assert len(found) == 1
    if kind == "parquet":
        groups = parquet.ParquetFile(tmp_path / "made").metadata
        assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups)] == [5, 5, 2]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_without_rows_is_one(tmp_path, kind):
    content = write(kind, ALL, [], tmp_path).read_bytes()
    assert bool(content) == (kind != "jsonl")


def test_cells_are_no_formulas_and_names_need_not_be_utf8(tmp_path):
    row = ImagePrediction("=caf\udce9.png", "+red", {"+red": 1.0}, "@\udce9")
    (found,) = read_csv(write("csv", TableColumns(("+red",)), [row], tmp_path))
    assert found == {"path": r"./=caf\xe9.png", "label": "'+red", "'+red": "1.0", "error": r"'@\udce9"}
    (found,) = map(json.loads, write("jsonl", ALL, [row], tmp_path).read_text().splitlines())
    assert found["path"] == r"=caf\xe9.png"


def test_classes_called_like_columns_have_columns_of_their_own(tmp_path):
    names = ("error", "label", "out_of_distribution")
    row = ImagePrediction("a.png", "error", dict.fromkeys(names, 0.5), None, out_of_distribution=False)
    columns = TableColumns(names, out_of_distribution=True)
    (found,) = read_csv(write("csv", columns, [row], tmp_path))
    assert found["class error"] == found["class label"] == found["class out_of_distribution"] == "0.5"
    assert (found["label"], found["error"], found["out_of_distribution"]) == ("error", "", "False")
