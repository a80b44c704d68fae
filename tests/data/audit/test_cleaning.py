from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagetune.data.audit.audit import Audit, audit_catalog, enforce_audit
from imagetune.data.audit.cleaning import (
    LEFT_OUT,
    Cleaning,
    build_cleaned_table,
    require_outside_source,
    write_cleaning,
)
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.read import read_catalog
from imagetune.data.splits.splits import split_catalog
from imagetune.errors import DataError
from imagetune.recipe.sections.data import DataConfig

ConfigFor = Callable[..., DataConfig]
MakeImage = Callable[..., Path]


def checked(config: DataConfig) -> tuple[Catalog, Audit]:
    catalog = read_catalog(config)
    return catalog, audit_catalog(catalog, config)


def cleaned(config: DataConfig) -> Cleaning:
    return build_cleaned_table(*checked(config))


def changes(cleaning: Cleaning) -> dict[str, tuple[str, str]]:
    return {Path(change.record.path).name: (change.change, change.why) for change in cleaning.changes}


def recompress(source: Path, target: Path, quality: int = 80) -> None:
    with Image.open(source) as image:
        image.convert("RGB").resize((96, 80)).save(target, quality=quality)


@pytest.fixture
def dirty(class_folders: Path) -> Path:
    """Class folders with an unreadable image, a copy, a contradiction and a near-duplicate."""
    cat, dog = class_folders / "cat", class_folders / "dog"
    (cat / "empty.png").touch()
    (cat / "copy.png").write_bytes((cat / "01.png").read_bytes())
    (dog / "twin.png").write_bytes((cat / "02.png").read_bytes())
    recompress(dog / "05.png", dog / "near.jpg")
    return class_folders


@pytest.fixture
def split_folders(tmp_path: Path, make_image: MakeImage) -> Path:
    for start, split in enumerate(("train", "val", "test")):
        for place, label in enumerate(("cat", "dog")):
            for number in range(6):
                make_image(f"split/{split}/{label}/{number}.png", 1000 * start + 100 * place + number)
    return tmp_path / "split"


def test_what_cannot_be_trusted_is_left_out_and_named(dirty: Path, config_for: ConfigFor) -> None:
    cleaning = cleaned(config_for(dirty))
    reported = changes(cleaning)
    assert set(reported) == {"empty.png", "copy.png", "02.png", "twin.png"}
    assert all(change == LEFT_OUT for change, _ in reported.values())
    assert reported["empty.png"][1] == "can't be used: the file is empty"
    assert reported["copy.png"][1] == f"an exact copy of {dirty / 'cat' / '01.png'}"
    assert reported["02.png"][1] == reported["twin.png"][1] == "the same image has the labels 'cat' and 'dog'"
    assert len(cleaning.records) == 36 + 4 - 4
    assert list(cleaning.lines())[:2] == ["36 rows kept", "4 rows left out"]


def test_near_duplicates_get_a_group_and_others_none(dirty: Path, config_for: ConfigFor) -> None:
    groups = {Path(record.path).name: record.group for record in cleaned(config_for(dirty)).records if record.group}
    assert groups == {"05.png": "duplicate-group-1", "near.jpg": "duplicate-group-1"}


def test_a_clean_source_stays_as_it_is(class_folders: Path, config_for: ConfigFor) -> None:
    catalog, audit = checked(config_for(class_folders))
    cleaning = build_cleaned_table(catalog, audit)
    assert cleaning.records == catalog.records
    assert cleaning.changes == ()


def test_the_table_is_a_source_without_errors(dirty: Path, config_for: ConfigFor, tmp_path: Path) -> None:
    config = config_for(dirty, audit={"on_conflict": "error"}, on_bad_image="error")
    with pytest.raises(DataError):
        enforce_audit(checked(config)[1])
    table, listed = write_cleaning(cleaned(config), tmp_path / "new" / "fixed", config)
    again = config.model_copy(update={"source": str(table)})
    catalog, audit = checked(again)
    enforce_audit(audit)
    assert {finding.code for finding in audit.findings} <= {"near-duplicates"}
    splits = split_catalog(catalog, audit, again, seed=0)
    assert len(splits.train) + len(splits.val) + splits.test_count == 36
    with listed.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["change"] for row in rows] == [LEFT_OUT] * 4
    assert all(Path(row["path"]).is_absolute() and row["why"] for row in rows)


def test_a_duplicate_group_across_splits_goes_where_most_of_it_is(split_folders: Path, config_for: ConfigFor) -> None:
    train, test = split_folders / "train" / "dog", split_folders / "test" / "dog"
    recompress(train / "1.png", test / "one.jpg")  # one on each side: training keeps its own
    recompress(test / "2.png", test / "two.jpg")
    recompress(test / "2.png", train / "three.jpg", 70)  # two of three are in the test
    (test / "leak.png").write_bytes((train / "4.png").read_bytes())
    config = config_for(split_folders)
    catalog, audit = checked(config)
    with pytest.raises(DataError, match="in more than one split"):
        enforce_audit(audit)
    cleaning = build_cleaned_table(catalog, audit)
    reported = changes(cleaning)
    assert reported.keys() == {"one.jpg", "three.jpg", "4.png"}
    assert reported["one.jpg"][0] == "moved to train"
    assert reported["three.jpg"][0] == "moved to test"
    assert reported["4.png"] == (LEFT_OUT, f"an exact copy of {test / 'leak.png'}")
    sides = {Path(record.path).name: record.split for record in cleaning.records}
    assert (sides["one.jpg"], sides["three.jpg"], sides["leak.png"]) == ("train", "test", "test")
    table, _ = write_cleaning(cleaning, split_folders.parent / "fixed", config)
    enforce_audit(checked(config.model_copy(update={"source": str(table)}))[1])


def test_a_group_across_splits_is_brought_together(split_folders: Path, config_for: ConfigFor, tmp_path: Path) -> None:
    rows = ["file,kind,split,group,site"]
    rows += [
        f"{path.relative_to(tmp_path)},{path.parts[-2]},{path.parts[-3]},p{path.stem}{path.parts[-2]},north"
        for path in sorted(split_folders.rglob("*.png"))
    ]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    columns = {"path": "file", "label": "kind", "slices": ["site"]}
    config = config_for(tmp_path / "t.csv", columns=columns)
    cleaning = cleaned(config)
    assert {record.split for record in cleaning.records} == {"train"}
    assert len(cleaning.changes) == 24
    table, _ = write_cleaning(cleaning, tmp_path / "fixed", config)
    assert table.read_text().splitlines()[0] == "file,kind,split,group,site"
    enforce_audit(checked(config.model_copy(update={"source": str(table)}))[1])


def test_groups_of_the_source_keep_their_names(dirty: Path, config_for: ConfigFor) -> None:
    rows = ["path,label,group"]
    for number, path in enumerate(sorted(dirty.rglob("*.*"))):
        group = {"05.png": "shop b", "near.jpg": "shop a"}.get(path.name, "") if path.parent.name == "dog" else ""
        rows.append(
            f"{path.relative_to(dirty.parent)},{path.parent.name},{group or (f'g{number}' if number < 2 else '')}"
        )
    (dirty.parent / "t.csv").write_text("\n".join(rows))
    groups = {Path(r.path).name: r.group for r in cleaned(config_for(dirty.parent / "t.csv")).records if r.group}
    assert groups["05.png"] == groups["near.jpg"] == "shop a+shop b"
    assert groups["00.png"] == "g0"


def test_several_labels_and_odd_names_survive(class_folders: Path, config_for: ConfigFor, tmp_path: Path) -> None:
    odd = class_folders / "cat" / 'a, "quoted" name.png'
    (class_folders / "cat" / "00.png").rename(odd)
    blank = class_folders / "cat" / "ends in a blank.png "
    (class_folders / "cat" / "01.png").rename(blank)
    rows = [
        f'"{odd.relative_to(tmp_path)}"'.replace('"quoted"', '""quoted""') + ",cat;pet",
        "set/dog/00.png,",
        "set/dog/01.png,dog",
    ]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]))
    config = config_for(tmp_path / "t.csv", task="multi_label")
    table, _ = write_cleaning(cleaned(config), tmp_path / "fixed", config)
    again = read_catalog(config.model_copy(update={"source": str(table)}))
    assert [(record.path, record.label) for record in again.records] == [
        (str(odd), "cat;pet"),
        (str(class_folders / "dog" / "00.png"), ""),
        (str(class_folders / "dog" / "01.png"), "dog"),
    ]


def test_nothing_is_written_over_or_among_the_images(dirty: Path, config_for: ConfigFor, tmp_path: Path) -> None:
    config = config_for(dirty)
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in dirty.rglob("*") if path.is_file()}
    cleaning = cleaned(config)
    write_cleaning(cleaning, tmp_path / "fixed", config)
    first = (tmp_path / "fixed" / "cleaned.csv").read_bytes()
    with pytest.raises(DataError, match="already exists"):
        write_cleaning(cleaning, tmp_path / "fixed", config)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "changes.csv").write_text("mine")
    with pytest.raises(DataError, match=r"changes\.csv: already exists"):
        write_cleaning(cleaning, tmp_path / "half", config)
    assert not (tmp_path / "half" / "cleaned.csv").exists()
    with pytest.raises(DataError, match="imagetune never writes"):
        write_cleaning(cleaning, dirty / "cat" / "fixed", config)
    with pytest.raises(DataError, match="imagetune never writes"):
        require_outside_source(dirty / "page.html", config)
    assert (tmp_path / "fixed" / "cleaned.csv").read_bytes() == first
    after = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in dirty.rglob("*") if path.is_file()}
    assert after == before


def test_nothing_left_is_an_error(tmp_path: Path, config_for: ConfigFor) -> None:
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "set" / label / "same.png")
    with pytest.raises(DataError, match="would have no rows"):
        cleaned(config_for(tmp_path / "set"))
