"""Untrusted tables: endless lines, a million columns, no text, Parquet that repeats a long one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from imagetune.data.sources import table_bounds
from imagetune.data.sources.read import read_catalog
from imagetune.errors import DataError
from imagetune.recipe.sections.data import DataConfig

ConfigFor = Callable[..., DataConfig]


def refuse(config: DataConfig) -> str:
    started = time.process_time()
    with pytest.raises(DataError) as caught:
        read_catalog(config)
    assert time.process_time() - started < 2.0
    return caught.value.what


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"path,label\na\0b.png,cat\n", "line 2 has a zero byte in its path"),
        (b"path,label\nx.png,\xed\xa0\x80\n", "line 2 is not UTF-8"),
        (b"path,label\n" + b"x" * (9 << 20), "has a line of more than 4,194,304 bytes"),
        (b'path,label\n"' + b"x\n" * (5 << 20), "field larger than field limit"),
        (b"," * 2_000_000, "has lines of more than 10,000 cells"),
        (b"a," * 10_001 + b"\n", "has lines of more than 10,000 cells|has 10,002 columns"),
        (b"\xff\xfe" + b"\0" * 4096, "is not UTF-8"),
    ],
    ids=["zero", "surrogate", "line", "quote", "commas", "columns", "utf-16"],
)
def test_hostile_csv_files_are_refused(tmp_path: Path, config_for: ConfigFor, content: bytes, words: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    what = refuse(config_for(tmp_path / "x.csv"))
    assert any(word in what for word in words.split("|")), what


def test_a_file_of_gigabytes_is_refused_by_its_size(tmp_path: Path, config_for: ConfigFor) -> None:
    with (tmp_path / "x.csv").open("wb") as file:
        file.truncate(3 << 30)
    assert refuse(config_for(tmp_path / "x.csv")).startswith("has 3.2 GB; at most 2.1 GB are read")


def test_rows_are_counted_before_they_are_made(tmp_path: Path, config_for: ConfigFor, monkeypatch) -> None:
    monkeypatch.setattr(table_bounds, "MAX_ROWS", 10)
    (tmp_path / "x.csv").write_text("path,label\n" + "x.png,cat\n" * 11)
    assert refuse(config_for(tmp_path / "x.csv")) == "has more than 10 lines"
    parquet.write_table(pyarrow.table({"path": ["x.png"] * 11, "label": ["cat"] * 11}), tmp_path / "x.parquet")
    assert refuse(config_for(tmp_path / "x.parquet")) == "has 11 rows; at most 10 are read"


def write_parquet(file: Path, /, **columns: object) -> Path:
    parquet.write_table(pyarrow.table(columns), file, compression="zstd")
    return file


def test_a_long_text_that_a_parquet_file_repeats_is_held_once(tmp_path: Path, config_for: ConfigFor) -> None:
    label = pyarrow.DictionaryArray.from_arrays([0, 1] * 10_000, ["x" * 100_000, "y"])
    paths = pyarrow.DictionaryArray.from_arrays([0] * 20_000, ["x.png"])
    source = write_parquet(tmp_path / "x.parquet", path=paths, label=label)
    assert len({id(record.label) for record in read_catalog(config_for(source)).records}) == 2


@pytest.mark.parametrize("size", [9, 300])
def test_a_text_of_megabytes_is_refused(tmp_path: Path, config_for: ConfigFor, size: int) -> None:
    source = write_parquet(tmp_path / "x.parquet", path=["x" * (size << 20)], label=["cat"])
    assert source.stat().st_size < 1 << 20
    assert "column 'path' has" in refuse(config_for(source))


def test_text_that_is_not_utf8_is_refused(tmp_path: Path, config_for: ConfigFor) -> None:
    data = pyarrow.py_buffer(b"\xff\xfe")
    offsets = pyarrow.py_buffer(b"\0\0\0\0\2\0\0\0")
    bad = pyarrow.StringArray.from_buffers(1, offsets, data)
    source = write_parquet(tmp_path / "x.parquet", path=["x.png"], label=bad)
    assert "not UTF-8" in refuse(config_for(source))


@pytest.mark.parametrize("cut", [4, 12])
def test_a_corrupted_parquet_file_is_named(tmp_path: Path, config_for: ConfigFor, cut: int) -> None:
    source = write_parquet(tmp_path / "x.parquet", path=["x.png"] * 50, label=["cat"] * 50)
    content = bytearray(source.read_bytes())
    content[-cut : -cut + 3] = b"\xff\xff\x7f"
    source.write_bytes(content)
    assert "is not a readable table" in refuse(config_for(source))


def test_half_a_character_in_a_label_file_is_refused(tmp_path: Path, make_image, config_for: ConfigFor) -> None:
    make_image("x.png")
    (tmp_path / "x.json").write_text('{"labels": ["\\ud800"]}')
    assert "is not JSON" in refuse(config_for(tmp_path, task="multi_label"))
