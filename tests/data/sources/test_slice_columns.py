"""Columns that the test is looked at by: from the table through the splits to splits.csv and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from imagetune.data.audit.audit import Audit, ImageStatistics
from imagetune.data.sources.read import read_catalog
from imagetune.data.splits.holdout import open_holdout
from imagetune.data.splits.splits import read_splits_csv, split_catalog, write_splits_csv
from imagetune.errors import DataError
from imagetune.recipe.sections.data import DataConfig

ConfigFor = Callable[..., DataConfig]
TABLE = "path,label,camera,age\n" + "".join(f"{n}.png,{'ab'[n % 2]},{'xy'[n // 8]},{n}\n" for n in range(16))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text(TABLE, encoding="utf-8")
    return path


def test_records_carry_the_columns_and_splits_csv_keeps_them(source: Path, config_for: ConfigFor) -> None:
    config = config_for(source, columns={"slices": ["camera", "age"]})
    catalog = read_catalog(config)
    assert catalog.records[9].slices == (("camera", "y"), ("age", "9"))
    facts = tuple(ImageStatistics(r.path, f"sha {r.path}", 1, 1, 1, None, None) for r in catalog.records)
    splits = split_catalog(catalog, Audit(facts, (), tuple(range(16))), config, seed=0)
    write_splits_csv(splits, source.parent / "splits.csv")
    header = (source.parent / "splits.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "path,label,split,group,camera,age"
    again = read_splits_csv(source.parent / "splits.csv", root=splits.root, class_names=splits.class_names)
    assert again.train == splits.train
    assert open_holdout(again) == open_holdout(splits)


def test_without_slices_nothing_changes(source: Path, config_for: ConfigFor) -> None:
    assert {record.slices for record in read_catalog(config_for(source)).records} == {()}


def test_a_slice_may_be_the_group_or_an_empty_cell(tmp_path: Path, config_for: ConfigFor) -> None:
    path = tmp_path / "t.csv"
    path.write_text("path,label,group\n1.png,a,g\n2.png,b,\n", encoding="utf-8")
    records = read_catalog(config_for(path, columns={"slices": ["group"]})).records
    assert [(record.group, record.slices) for record in records] == [("g", (("group", "g"),)), (None, (("group", ""),))]


def test_parquet_may_have_numbers_there(tmp_path: Path, config_for: ConfigFor) -> None:
    path = tmp_path / "t.parquet"
    columns = {"path": ["1.png", "2.png"], "label": ["a", "b"], "lux": [0.5, None], "day": [True, False]}
    parquet.write_table(pyarrow.table(columns), path)
    records = read_catalog(config_for(path, columns={"slices": ["lux", "day"]})).records
    assert [record.slices for record in records] == [(("lux", "0.5"), ("day", "True")), (("lux", ""), ("day", "False"))]


def test_a_column_that_is_not_there_is_named(source: Path, config_for: ConfigFor) -> None:
    with pytest.raises(DataError, match="has no column 'camra'") as caught:
        read_catalog(config_for(source, columns={"slices": ["camra"]}))
    assert "did you mean 'camera'" in caught.value.hint
    assert "data.columns.slices" in caught.value.hint


def test_folders_have_no_columns(class_folders: Path, config_for: ConfigFor) -> None:
    with pytest.raises(DataError, match="has no columns"):
        read_catalog(config_for(class_folders, columns={"slices": ["camera"]}))
