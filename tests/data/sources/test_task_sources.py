"""Tables and splits of images with several labels, ordered classes and numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from imagetune.data.audit.audit import Audit, ImageStatistics
from imagetune.data.check_document import build_audit_document
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.read import read_catalog
from imagetune.data.sources.records import Record
from imagetune.data.splits.holdout import open_holdout
from imagetune.data.splits.splits import Splits, split_catalog
from imagetune.errors import DataError, RecipeError
from imagetune.recipe.sections.data import DataConfig

ConfigFor = Callable[..., DataConfig]
ROOT = Path("/data")


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(("path,label", *rows)) + "\n", encoding="utf-8")
    return path


def labels(config: DataConfig) -> list[str]:
    return [record.label for record in read_catalog(config).records]


def audit(records: list[Record]) -> Audit:
    facts = tuple(ImageStatistics(r.path, f"sha of {r.path}", 1, 1, 1, None, None) for r in records)
    return Audit(facts, (), tuple(range(len(records))))


def made(texts: list[str], config: DataConfig, *, seed: int = 0) -> Splits:
    records = [Record(f"/data/{number}.png", text) for number, text in enumerate(texts)]
    return split_catalog(Catalog(ROOT, tuple(records)), audit(records), config, seed=seed)


def numbers(records: tuple[Record, ...]) -> list[float]:
    return [float(record.label) for record in records]


def test_a_cell_holds_several_labels_or_none(tmp_path: Path, config_for: ConfigFor) -> None:
    source = table(tmp_path / "t.csv", "a.png,dog; cat", "b.png,", "c.png,cat", '"d.png",cat;cat')
    assert labels(config_for(source, task="multi_label")) == ["cat;dog", "", "cat", "cat"]
    with pytest.raises(DataError, match="no label"):
        labels(config_for(source))


def test_the_separator_can_be_chosen(tmp_path: Path, config_for: ConfigFor) -> None:
    source = table(tmp_path / "t.csv", "a.png,dog cat", "b.png,cat")
    assert labels(config_for(source, task="multi_label", label_separator=" ")) == ["cat dog", "cat"]


def test_a_table_without_any_label_is_refused(tmp_path: Path, config_for: ConfigFor) -> None:
    with pytest.raises(DataError, match="no image has a label"):
        labels(config_for(table(tmp_path / "t.csv", "a.png,", "b.png,"), task="multi_label"))


def test_classes_keep_images_whose_labels_are_left_out(tmp_path: Path, config_for: ConfigFor) -> None:
    source = table(tmp_path / "t.csv", "a.png,dog;cat", "b.png,emu", "c.png,cat")
    catalog = read_catalog(config_for(source, task="multi_label", classes=["cat", "dog"]))
    assert [record.label for record in catalog.records] == ["cat;dog", "", "cat"]
    assert [finding.code for finding in catalog.findings] == ["class-left-out"]


def test_parquet_may_hold_lists_and_decimal_numbers(tmp_path: Path, config_for: ConfigFor) -> None:
    paths = ["a.png", "b.png", "c.png"]
    source = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"path": paths, "label": [["dog", "cat"], [], None]}), source)
    assert labels(config_for(source, task="multi_label")) == ["cat;dog", "", ""]
    parquet.write_table(pyarrow.table({"path": paths, "label": [1.5, 2.0, -3.25]}), source)
    assert labels(config_for(source, task="regression")) == ["1.5", "2", "-3.25"]
    with pytest.raises(DataError, match="text or whole numbers"):
        labels(config_for(source))


def test_a_cell_that_is_no_number_is_reported_with_its_image(tmp_path: Path, config_for: ConfigFor) -> None:
    source = table(tmp_path / "t.csv", "a.png,1.5", "b.png,n/a")
    with pytest.raises(DataError, match="'n/a'") as caught:
        labels(config_for(source, task="regression"))
    assert caught.value.where.endswith("b.png")


def test_the_order_of_classes_is_asked_for(tmp_path: Path, config_for: ConfigFor) -> None:
    source = table(tmp_path / "t.csv", "a.png,low", "b.png,high")
    with pytest.raises(RecipeError, match="order"):
        read_catalog(config_for(source, task="ordinal"))
    assert read_catalog(config_for(source, task="ordinal", classes=["low", "high"])).records
    assert read_catalog(config_for(table(source, "a.png,2", "b.png,10"), task="ordinal")).records


def test_ordered_classes_come_in_their_order(config_for: ConfigFor) -> None:
    assert made(["9", "10", "2"] * 30, config_for(ROOT, task="ordinal")).class_names == ("2", "9", "10")
    config = config_for(ROOT, task="ordinal", classes=["mild", "bad", "awful"])
    assert made(["bad", "mild", "awful"] * 30, config).class_names == ("mild", "bad", "awful")


@pytest.mark.parametrize("method", ["hash", "stratified"])
def test_several_labels_are_split_and_counted(config_for: ConfigFor, method: str) -> None:
    texts = ["a;b", "a", "", "b", "c;a"] * 40
    splits = made(texts, config_for(ROOT, task="multi_label", split={"method": method}))
    assert splits.class_names == ("a", "b", "c")
    counts = splits.counts()
    assert {name: sum(counts[side][name] for side in counts) for name in "abc"} == {"a": 120, "b": 80, "c": 40}
    assert 20 <= splits.test_count <= 60
    assert any(record.label == "" for record in splits.train)
    assert any(record.label == "" for record in open_holdout(splits))
    assert splits.describe_targets() == "3 labels: a, b, c"


def test_a_label_of_one_image_is_learned_rather_than_tested(config_for: ConfigFor) -> None:
    for seed in range(5):
        splits = made(["a", "b"] * 30 + ["a;rare"], config_for(ROOT, task="multi_label"), seed=seed)
        assert splits.class_names == ("a", "b", "rare")
        assert splits.counts()["train"]["rare"] == 1


@pytest.mark.parametrize("method", ["hash", "stratified"])
def test_numbers_are_split_without_classes(config_for: ConfigFor, method: str) -> None:
    texts = [str(number) for number in range(200)]
    splits = made(texts, config_for(ROOT, task="regression", columns={"label": "age"}, split={"method": method}))
    assert splits.class_names == ("age",)
    assert 20 <= splits.test_count <= 60
    assert splits.counts()["test"] == {"age": splits.test_count}
    assert splits.describe_targets().startswith("age from ")


def test_stratified_numbers_are_alike_in_every_split(config_for: ConfigFor) -> None:
    texts = [str(number**2) for number in range(200)]
    splits = made(texts, config_for(ROOT, task="regression", split={"method": "stratified", "val": 0.2, "test": 0.2}))
    places = [np.searchsorted(np.arange(0, 200, 20), np.sqrt(numbers(open_holdout(splits))), side="right")]
    assert set(Counter(places[0].tolist()).values()) == {4}


def test_too_few_numbers_for_all_splits_are_refused(config_for: ConfigFor) -> None:
    with pytest.raises(DataError, match="too few images"):
        made(["1", "2"], config_for(ROOT, task="regression"))


def test_a_label_that_training_never_saw_is_refused(config_for: ConfigFor) -> None:
    records = [Record("/data/1.png", "a", "train"), Record("/data/2.png", "b", "test")]
    with pytest.raises(DataError, match="'b' is in test"):
        split_catalog(
            Catalog(ROOT, tuple(records)),
            audit(records),
            config_for(ROOT, task="multi_label", split={"val": 0.0}),
            seed=0,
        )


def test_the_check_counts_labels_and_not_their_combinations(tmp_path: Path, config_for: ConfigFor) -> None:
    source = table(tmp_path / "t.csv", "a.png,dog;cat", "b.png,", "c.png,cat")
    catalog = read_catalog(config_for(source, task="multi_label"))
    assert build_audit_document(catalog, audit(list(catalog.records)))["classes"] == {"cat": 2, "dog": 1}
