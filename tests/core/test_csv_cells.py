import csv
from pathlib import Path

import pytest

from imagetune.core.csv_cells import quote_row, unquote_row
from imagetune.core.csv_tables import read_csv_rows, write_csv

HEADER = ("path", "label")
TEXTS = (
    *("=1+1", "+cmd|' /C calc'!A0", "-x", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1+1"),
    *(
        "'=1",
        "''=1",
        "'plain",
        "plain",
        "",
        "a=b",
        "./=1",
        "././=1",
        "./plain",
        "-1",
        "+1.5e3",
        "-0.5",
        "--1",
        "+49 30",
    ),
)


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_written_comes_back_as_it_was(text, tmp_path):
    assert unquote_row(HEADER, quote_row(HEADER, [text, text])) == [text, text]
    write_csv(tmp_path / "a.csv", [*HEADER, "=1"], [[text, text, 1.5]])
    assert list(read_csv_rows(tmp_path / "a.csv", max_rows=9)) == [[*HEADER, "=1"], [text, text, "1.5"]]


@pytest.mark.parametrize("text", TEXTS)
def test_no_cell_is_a_formula(text):
    for cell in quote_row(HEADER, [text, text]):
        number = cell.lstrip("+-").replace(".", "").replace("e", "").isdigit() and " " not in cell
        assert number or cell[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d")


def test_a_path_still_names_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("=1.png").write_text("x")
    write_csv(tmp_path / "a.csv", ["path"], [["=1.png"]])
    with (tmp_path / "a.csv").open(newline="") as file:
        ((found,),) = list(csv.reader(file))[1:]
    assert Path(found).read_text() == "x"


def test_numbers_stay_numbers():
    assert quote_row(("label", "b"), ["-0.5", -0.5]) == ["-0.5", -0.5]
