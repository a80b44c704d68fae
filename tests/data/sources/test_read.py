from __future__ import annotations

import hashlib
import os
import resource
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from imagetune.data.sources.read import find_images, read_catalog
from imagetune.data.sources.records import Record
from imagetune.data.sources.split_names import parse_split_name
from imagetune.errors import DataError
from imagetune.recipe.sections.data import DataConfig

MakeImage = Callable[..., Path]
ConfigFor = Callable[..., DataConfig]


def codes(catalog) -> list[str]:
    return [finding.code for finding in catalog.findings]


def test_class_folders_are_labels_in_a_stable_order(class_folders: Path, config_for: ConfigFor) -> None:
    catalog = read_catalog(config_for(class_folders))
    assert catalog.labels == ("cat", "dog", "owl")
    assert len(catalog.records) == 36
    assert catalog.records[0] == Record(str(class_folders / "cat" / "00.png"), "cat")
    assert not any(record.split for record in catalog.records)
    assert catalog == read_catalog(config_for(class_folders))


def test_reading_leaves_the_source_as_it_was(class_folders: Path, config_for: ConfigFor) -> None:
    def state() -> list[tuple[str, int, str]]:
        files = sorted(path for path in class_folders.rglob("*") if path.is_file())
        return [(str(path), path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]

    before = state()
    read_catalog(config_for(class_folders))
    assert state() == before


@pytest.mark.parametrize(
    ("names", "others"),
    [
        (("train", "val", "test"), ()),
        (("Training", "Validation", "Testing"), ()),
        (("TRAIN", "dev", "test_set"), ()),
        (("train_images", "valid", "01-Test"), ("annotations",)),
        (("trn", "VALID_DATA", "holdout"), ()),
    ],
)
def test_split_folders_in_any_spelling(
    tmp_path: Path,
    make_image: MakeImage,
    config_for: ConfigFor,
    names: tuple[str, ...],
    others: tuple[str, ...],
) -> None:
    for place, name in enumerate((*names, *others)):
        for label in ("a", "b"):
            make_image(f"set/{name}/{label}/1.png", place)
    catalog = read_catalog(config_for(tmp_path / "set"))
    assert Counter(record.split for record in catalog.records) == {"train": 2, "val": 2, "test": 2}
    assert catalog.labels == ("a", "b")
    assert codes(catalog) == ["folder-left-out"] * len(others)


def test_a_class_may_be_called_train(tmp_path: Path, make_image: MakeImage, config_for: ConfigFor) -> None:
    for label in ("train", "bus", "car"):
        make_image(f"set/{label}/1.png")
    assert read_catalog(config_for(tmp_path / "set")).labels == ("bus", "car", "train")


def test_unlabelled_test_folder_is_explained(tmp_path: Path, make_image: MakeImage, config_for: ConfigFor) -> None:
    for name in ("train/a/1.png", "train/b/1.png", "test/1.png"):
        make_image(f"set/{name}")
    with pytest.raises(DataError, match=r"1 image but no class folders.*point data\.source at the training"):
        read_catalog(config_for(tmp_path / "set"))


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("Train", "train"),
        ("valid", "val"),
        ("DEV", "val"),
        ("testing", "test"),
        ("test_images", "test"),
        *((word, None) for word in ("cats", "", "contest", "trainers", "data")),
    ],
)
def test_split_words(word: str, split: str | None) -> None:
    assert parse_split_name(word) == split


def test_hidden_names_are_ignored_and_others_noted(class_folders: Path, config_for: ConfigFor) -> None:
    (class_folders / ".cache" / "x").mkdir(parents=True)
    (class_folders / "cat" / "._00.png").write_bytes(b"x")
    (class_folders / "cat" / "Thumbs.db").write_bytes(b"x")
    (class_folders / "cat" / "note.txt").write_text("x")
    (class_folders / "stray.png").write_bytes(b"x")
    catalog = read_catalog(config_for(class_folders))
    assert len(catalog.records) == 36
    assert codes(catalog) == ["stray-image", "not-an-image"]
    assert catalog.findings[0].paths == (str(class_folders / "stray.png"),)
    assert "1 file left out that is not an image (1 .txt)" in catalog.notes


def test_empty_class_folder_is_an_error_unless_it_is_not_wanted(class_folders: Path, config_for: ConfigFor) -> None:
    (class_folders / "yak").mkdir()
    with pytest.raises(DataError, match=r"1 class folder without images: .*yak"):
        read_catalog(config_for(class_folders))
    catalog = read_catalog(config_for(class_folders, classes=["owl", "cat"]))
    assert catalog.labels == ("cat", "owl")
    assert catalog.findings[-1].title == "12 images of 1 class left out by data.classes"


def test_lookalike_labels_are_a_warning(class_folders: Path, make_image: MakeImage, config_for: ConfigFor) -> None:
    make_image("set/Dog/1.png")
    finding = read_catalog(config_for(class_folders)).findings[-1]
    assert (finding.code, finding.severity) == ("lookalike-labels", "warning")
    assert "'Dog' and 'dog'" in finding.title
    assert len(finding.paths) == 13


def test_labels_that_only_look_the_same_are_a_warning(tmp_path: Path, config_for: ConfigFor) -> None:
    rows = ["path,label", "a.png,\ufb01g", "b.png,fig", "c.png,bar"]
    (tmp_path / "t.csv").write_text("\n".join(rows), encoding="utf-8")
    finding = read_catalog(config_for(tmp_path / "t.csv")).findings[-1]
    assert finding.code == "lookalike-labels"
    assert [Path(path).name for path in finding.paths] == ["a.png", "b.png"]


def test_unknown_wanted_class_has_a_suggestion(class_folders: Path, config_for: ConfigFor) -> None:
    with pytest.raises(DataError, match=r"data\.classes names 'cats', which has no images; did you mean 'cat'"):
        read_catalog(config_for(class_folders, classes=["cats", "dog"]))


def test_symlink_loop_ends_and_dangling_link_is_kept_to_be_named(class_folders: Path, config_for: ConfigFor) -> None:
    (class_folders / "cat" / "again").symlink_to(class_folders, target_is_directory=True)
    (class_folders / "cat" / "self").symlink_to(class_folders / "cat", target_is_directory=True)
    (class_folders / "dog" / "gone.png").symlink_to(class_folders / "nowhere.png")
    catalog = read_catalog(config_for(class_folders, classes=["dog", "owl"]))
    assert str(class_folders / "dog" / "gone.png") in {record.path for record in catalog.records}
    assert "link-loop" in codes(catalog)


def test_linked_class_folder_is_followed(class_folders: Path, tmp_path: Path, config_for: ConfigFor) -> None:
    elsewhere = tmp_path / "elsewhere"
    (class_folders / "cat").rename(elsewhere)
    (class_folders / "cat").symlink_to(elsewhere, target_is_directory=True)
    assert len(read_catalog(config_for(class_folders)).records) == 36


def test_unicode_spaces_and_suffixes(tmp_path: Path, make_image: MakeImage, config_for: ConfigFor) -> None:
    decomposed = unicodedata.normalize("NFD", "käse")
    for name in ("zwei wörter/ä b.PNG", f"{decomposed}/猫 1.JPeG", "日本/a;b,c.png"):
        make_image(f"set/{name}")
    catalog = read_catalog(config_for(tmp_path / "set"))
    assert catalog.labels == ("käse", "zwei wörter", "日本")
    assert len(catalog.records) == 3


def test_name_that_is_not_utf8_is_left_out_and_named(class_folders: Path, config_for: ConfigFor) -> None:
    try:
        Path(os.fsdecode(os.fsencode(class_folders / "cat") + b"/\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    catalog = read_catalog(config_for(class_folders))
    assert codes(catalog) == ["name-not-utf8"]
    assert catalog.findings[0].paths[0].endswith(r"\xff.png")


def test_missing_source_names_what_is_close(class_folders: Path, config_for: ConfigFor) -> None:
    with pytest.raises(DataError, match="no such file or folder; did you mean 'set'") as caught:
        read_catalog(config_for(class_folders.parent / "sett"))
    assert caught.value.exit_code == 3
    with pytest.raises(DataError, match="nowhere does not exist either"):
        read_catalog(config_for(class_folders.parent / "nowhere" / "set"))


def test_empty_single_and_wrong_sources(tmp_path: Path, make_image: MakeImage, config_for: ConfigFor) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="contains no images and no class folders"):
        read_catalog(config_for(tmp_path / "empty"))
    make_image("flat/1.png")
    with pytest.raises(DataError, match=r"1 image but no class folders.*put each class into a folder of its own"):
        read_catalog(config_for(tmp_path / "flat"))
    make_image("wrapped/set/1.png")
    with pytest.raises(DataError, match="has only the class 'set'; a classifier needs at least 2"):
        read_catalog(config_for(tmp_path / "wrapped"))
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DataError, match=r"is a \.json file; expected a folder, \.csv or \.parquet"):
        read_catalog(config_for(tmp_path / "a.json"))


def test_table_labels_stay_text(tmp_path: Path, config_for: ConfigFor) -> None:
    (tmp_path / "t.csv").write_text("path,label\na.png,00123\nb.png,NA\nc.png,yes\nd.png,1e-4\n/x/e.png,true\n")
    catalog = read_catalog(config_for(tmp_path / "t.csv"))
    assert [record.label for record in catalog.records] == ["00123", "NA", "yes", "1e-4", "true"]
    assert catalog.records[0].path == str(tmp_path / "a.png")
    assert catalog.records[4].path == "/x/e.png"


def test_table_with_split_group_and_other_column_names(tmp_path: Path, config_for: ConfigFor) -> None:
    rows = ["\ufeffid;file;class;part;patient", "1;x/../a.png;cat;Training;p1", "2;sub\\b.png;dog;VALID;"]
    (tmp_path / "t.csv").write_text("\n".join([*rows, "3; c.png ;dog;test;p2"]), encoding="utf-8")
    columns = {"path": "file", "label": "class", "split": "part", "group": "patient"}
    records = read_catalog(config_for(tmp_path / "t.csv", columns=columns)).records
    assert records == (
        Record(str(tmp_path / "a.png"), "cat", "train", "p1"),
        Record(str(tmp_path / "sub/b.png"), "dog", "val", None),
        Record(str(tmp_path / "c.png"), "dog", "test", "p2"),
    )


def test_parquet_is_read_as_csv(tmp_path: Path, config_for: ConfigFor) -> None:
    columns = {"path": ["a.png", "b.png"], "label": [7, 8], "split": [None, None]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    catalog = read_catalog(config_for(tmp_path / "t.parquet"))
    assert catalog.labels == ("7", "8")
    assert not any(record.split for record in catalog.records)
    parquet.write_table(pyarrow.table({"path": ["a.png"], "label": [0.5]}), tmp_path / "f.parquet")
    with pytest.raises(DataError, match="column 'label' is of type double; expected text or whole numbers"):
        read_catalog(config_for(tmp_path / "f.parquet"))
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a readable table"):
        read_catalog(config_for(tmp_path / "bad.parquet"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\na.png,x\n", "has no column 'path'; its columns are 'file', 'label'; .*data.columns.path"),
        ("path,labels\na.png,x\n", "has no column 'label'.*did you mean 'labels'"),
        ("path,label\na.png,x\nb.png,\n", "line 3 has no label"),
        ("path,label\n,x\n", "line 2 has no path"),
        (
            "path,label,split\na.png,x,train\nb.png,y,tset\n",
            "line 3 has the split 'tset'; expected",
        ),
        ("path,label,split\na.png,x,train\nb.png,y,\n", "line 3 has the split ''"),
        ("path,label\n", "has a header but no rows"),
        ("", "is empty; expected a header line"),
        ("path,label\na.png,x,z,1\n", "line 2 has 4 cells, and the first row has 2; write cells"),
    ],
)
def test_table_mistakes_name_the_place(tmp_path: Path, config_for: ConfigFor, text: str, words: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_catalog(config_for(tmp_path / "t.csv"))
    assert caught.value.where == str(tmp_path / "t.csv")


def test_table_in_another_encoding_is_refused(tmp_path: Path, config_for: ConfigFor) -> None:
    (tmp_path / "t.csv").write_bytes("path,label\na.png,käse\n".encode("latin-1"))
    with pytest.raises(DataError, match="line 2 is not UTF-8; as Windows-1252 it would be 'a.png,käse'; save .* UTF-8"):
        read_catalog(config_for(tmp_path / "t.csv"))


def test_repeated_rows_are_left_out_and_said(tmp_path: Path, config_for: ConfigFor) -> None:
    (tmp_path / "t.csv").write_text("path,label\na.png,x\na.png,x\na.png,y\n")
    catalog = read_catalog(config_for(tmp_path / "t.csv"))
    assert len(catalog.records) == 2
    assert codes(catalog) == ["repeated-row"]


def test_hugging_face_metadata(tmp_path: Path, make_image: MakeImage, config_for: ConfigFor) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "metadata.csv").write_text("file_name,label\ntrain/1.png,a\ntrain/2.png,b\ntest/3.png,a\n")
    records = read_catalog(config_for(tmp_path / "hf")).records
    assert [(record.label, record.split) for record in records] == [("a", "train"), ("b", "train"), ("a", "test")]
    assert records[0].path == str(tmp_path / "hf" / "train" / "1.png")
    for split in ("train", "validation"):
        (tmp_path / "hf2" / split).mkdir(parents=True)
        (tmp_path / "hf2" / split / "metadata.csv").write_text("file_name,label\n1.png,a\n2.png,b\n")
    records = read_catalog(config_for(tmp_path / "hf2")).records
    assert Counter(record.split for record in records) == {"train": 2, "val": 2}
    (tmp_path / "hf" / "metadata.csv").write_text("path,label\n1.png,a\n")
    with pytest.raises(DataError, match="has no column 'file_name'"):
        read_catalog(config_for(tmp_path / "hf"))


def test_find_images_takes_files_folders_and_globs(class_folders: Path) -> None:
    found = find_images([str(class_folders / "cat"), str(class_folders / "*" / "0[01].png")])
    assert len(found) == 16
    assert found[0] == str(class_folders / "cat" / "00.png")
    odd = class_folders / "x.dat"
    odd.write_bytes(b"x")
    assert find_images([str(odd)]) == (str(odd),)
    assert len(find_images([str(class_folders / "**" / "*.png")])) == 36
    with pytest.raises(DataError, match="no such file or folder; did you mean 'cat'"):
        find_images([str(class_folders / "catt")])
    with pytest.raises(DataError, match="no images found"):
        find_images([str(class_folders / "*.jpg")])


@pytest.mark.slow
def test_a_million_rows_are_read_quickly(tmp_path: Path, config_for: ConfigFor) -> None:
    with (tmp_path / "t.csv").open("w") as file:
        file.write("path,label,group\n")
        file.writelines(f"images/{n // 1000:04}/{n:08}.jpg,{n % 1000:05},g{n // 7}\n" for n in range(1_000_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    catalog = read_catalog(config_for(tmp_path / "t.csv"))
    assert len(catalog.records) == 1_000_000
    assert time.perf_counter() - started < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000


def test_a_link_to_the_source_brings_no_images_of_other_classes(class_folders: Path, config_for: ConfigFor) -> None:
    before = {(record.path, record.label) for record in read_catalog(config_for(class_folders)).records}
    (class_folders / "cat" / "again").symlink_to(class_folders, target_is_directory=True)
    (class_folders / "dog" / "further up").symlink_to(class_folders.parent, target_is_directory=True)
    catalog = read_catalog(config_for(class_folders))
    assert {(record.path, record.label) for record in catalog.records} == before
    (loops,) = [finding for finding in catalog.findings if finding.code == "link-loop"]
    assert loops.paths == (str(class_folders / "cat" / "again"), str(class_folders / "dog" / "further up"))
    assert loops.title == "2 symbolic links left out that lead back to a folder above"


def test_a_pattern_is_what_was_typed_and_not_the_name_of_the_working_folder(class_folders: Path, monkeypatch) -> None:
    folder = class_folders.rename(class_folders.with_name("images[1] 50%?"))
    monkeypatch.chdir(folder)
    assert find_images(["cat/0[01].png"]) == (str(folder / "cat/00.png"), str(folder / "cat/01.png"))
