"""Tables as spreadsheets and other programs write them: read where it is certain, else refused with a hint."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from imagetune.data.sources.read import read_catalog
from imagetune.errors import DataError
from imagetune.recipe.sections.data import DataConfig

ConfigFor = Callable[..., DataConfig]
ROWS = [("a.png", "cat"), ("b.png", "dog")]


@pytest.fixture
def read(tmp_path: Path, config_for: ConfigFor):
    """Write a table, and return its rows as (path, label) and the codes of its findings."""

    def read(text: str | bytes, **values: object) -> tuple[list[tuple[str, str]], list[str]]:
        table = tmp_path / "t.csv"
        table.write_bytes(text.encode() if isinstance(text, str) else text)
        catalog = read_catalog(config_for(table, **values))
        rows = [(str(Path(record.path).relative_to(tmp_path)), record.label) for record in catalog.records]
        return rows, [finding.code for finding in catalog.findings]

    return read


@pytest.mark.parametrize("lines", [3, 60_000])
def test_a_cell_may_hold_line_ends_whatever_the_size_of_the_file(read, lines: int) -> None:
    caption = "\n".join(["c.png,cat"] * lines)
    rows = [f'{name}.png,{("cat", "dog")[place % 2]},"{caption}"' for place, name in enumerate("abcd")]
    found, codes = read("\n".join(("path,label,caption", *rows)))
    assert found == [("a.png", "cat"), ("b.png", "dog"), ("c.png", "cat"), ("d.png", "dog")]
    assert codes == []


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("\n\npath,label\na.png,cat\nb.png,dog\n", []),
        ("sep=;\npath;label\na.png;cat\nb.png;dog\n", []),
        ("# by Ann, 2026\n#\npath,label\na.png,cat\n# checked, twice\nb.png,dog\n", ["line-left-out"]),
        ("path,label\na.png,cat\n# checked\nb.png,dog\n", ["line-left-out"]),
        ("path,label\na.png,cat\n,\n\nb.png,dog\n,\n", ["line-left-out"]),
        ("path,label,,\na.png,cat,,\nb.png,dog,,,,\n", []),
        ("path, label\na.png, cat\nb.png, dog\n", []),
        ("path\tlabel\r\na.png\tcat\r\nb.png\tdog\r\n", []),
        ("path|label|note\na.png|cat|1,2,3\nb.png|dog|\n", []),
        ("a.png,cat\nb.png,dog\n", ["no-header"]),
        ("cat;a.png\ndog;b.png\n", ["no-header"]),
        ("note,path,label,note\n1,a.png,cat,2\n1,b.png,dog,2\n", []),
    ],
)
def test_what_other_programs_add_is_read_where_it_is_certain(read, text: str, codes: list[str]) -> None:
    assert read(text) == (ROWS, codes)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_unicode_encoding_is_read(read, encoding: str) -> None:
    assert read("path,label\na.png,käse\nb.png,猫\n".encode(encoding))[0] == [("a.png", "käse"), ("b.png", "猫")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label,label\na.png,cat,dog\n", "has 2 columns 'label', and it is unclear which is meant; give"),
        ("a.png,cat,3\nb.png,dog,4\n", "has no header: its first line is 'a.png', 'cat', '3'; add a first line"),
        ("path,cat,dog,n\na.png,1,0,7\nb.png,0,1,7\n", r"look like a class each: set data.columns.one_hot: \[cat, dog"),
        ('path,label\na.png,"cat\nb.png,dog\n', "not a readable table: near line 3: unexpected end of data"),
        ("path,label\na.png\nb.png,dog\n", "line 2 has 1 cell, and the first row has 2"),
        ("# note\n\npath,label\na.png,cat\nb.png,\n", "line 5 has no label"),
        ('path,label,x\na.png,cat,"1\r\n2"\nb.png,dog,\nc.png,,\n', "line 5 has no label"),
    ],
)
def test_what_is_not_certain_is_refused_with_a_hint(read, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(text)


def test_a_file_may_be_called_like_a_comment(read) -> None:
    assert read("path,label\n#1.png,cat\nb.png,dog\n") == ([("#1.png", "cat"), ("b.png", "dog")], [])


ONE_HOT = "path,cat,dog\na.png,1,0\nb.png,0.0,1.0\n"


def test_one_hot_columns_are_labels(read, tmp_path: Path, config_for: ConfigFor) -> None:
    columns = {"one_hot": ["cat", "dog"]}
    assert read(ONE_HOT, columns=columns) == (ROWS, [])
    several = "path,cat,dog\na.png,1,1\nb.png,0,0\n"
    assert read(several, columns=columns, task="multi_label")[0] == [("a.png", "cat;dog"), ("b.png", "")]
    with pytest.raises(DataError, match=r"line 2 has 2 classes of data.columns.one_hot; expected exactly one"):
        read(several, columns=columns)
    with pytest.raises(DataError, match=r"line 2 has '2' in the column 'dog' of data.columns.one_hot; expected 0 or 1"):
        read("path,cat,dog\na.png,1,2\n", columns=columns)
    table = pyarrow.table({"path": ["a.png", "b.png"], "cat": [1, 0], "dog": [False, True]})
    parquet.write_table(table, tmp_path / "t.parquet")
    assert read_catalog(config_for(tmp_path / "t.parquet", columns=columns)).labels == ("cat", "dog")


def test_bare_ids_become_paths_by_a_format(read) -> None:
    found, _ = read("id,label\na,cat\nb,dog\n", columns={"path": "id", "path_format": "train/{}.jpg"})
    assert found == [("train/a.jpg", "cat"), ("train/b.jpg", "dog")]


def test_columns_and_files_are_found_in_both_normal_forms(read, make_image, tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "größe/käse.png") for form in ("NFC", "NFD"))
    make_image(decomposed)
    mixed = unicodedata.normalize("NFD", "länge/") + "käse.png"
    make_image(mixed)
    text = f"{unicodedata.normalize('NFD', 'päth')},label\n{composed},a\n{decomposed},b\nlänge/käse.png,c\n"
    found, _ = read(text, columns={"path": "päth"})
    if not (tmp_path / composed).exists():  # macOS finds both spellings by itself
        assert found == [(decomposed, "a"), (decomposed, "b"), (mixed, "c")]
