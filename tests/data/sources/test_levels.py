"""Class folders on the wrong level: splits and parts of a data set are no classes, and what we write isn't, either."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from imagetune.core import run_files
from imagetune.data.sources.read import find_images, read_catalog
from imagetune.errors import DataError
from imagetune.recipe.sections.data import DataConfig

MakeImage = Callable[..., Path]
ConfigFor = Callable[..., DataConfig]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ("seg_train/seg_train/{}/1.png", "seg_test/seg_test/{}/1.png", "seg_pred/seg_pred/1.png"),
            r"seg_test, seg_train hold the same folders \(forest, sea\).*set data.source to .*/seg_train/seg_train, or",
        ),
        (("colour/{}/1.png", "grey/{}/1.png"), r"colour, grey hold the same folders.*set data.source to .*/colour, or"),
        (("train/1.png", "test/1.png"), "test, train are called like splits.*put each class into a folder"),
        (("my_train/1.png", "my_val/1.png", "rest/1.png"), "my_train, my_val are called like splits"),
        (("{}/1.png", "again/{}/1.png"), r"again holds forest, sea again, .*remove one of both, or .*/set/again"),
        (
            ("photos/all/{}/1.png",),
            r"has one folder, photos, which holds forest, sea; set data.source to .*/photos/all",
        ),
        (("train/train/{}/1.png", "test/test/{}/1.png"), r"has one folder, train.*set data.source to .*/train/train"),
    ],
)
def test_the_folder_that_is_meant_is_named(
    tmp_path: Path, make_image: MakeImage, config_for: ConfigFor, names: tuple[str, ...], words: str
) -> None:
    for name in names:
        for label in ("forest", "sea"):
            make_image(f"set/{name.format(label)}")
    with pytest.raises(DataError, match=words):
        read_catalog(config_for(tmp_path / "set"))


@pytest.mark.parametrize(
    "names",
    [
        ("cat/1.png", "cat/close/1.png", "cat/far/1.png", "dog/1.png", "dog/close/1.png", "dog/far/1.png"),
        ("train/1.png", "bus/1.png"),
        ("cat/first/1.png", "cat/second/1.png", "dog/1.png"),
        ("cat/cat/1.png", "dog/dog/1.png"),
        ("train station/1.png", "test site/1.png"),
    ],
)
def test_folders_inside_of_classes_are_still_read(
    tmp_path: Path, make_image: MakeImage, config_for: ConfigFor, names: tuple[str, ...]
) -> None:
    for place, name in enumerate(names):
        make_image(f"set/{name}", place)
    assert len(read_catalog(config_for(tmp_path / "set")).records) == len(names)


def test_classes_that_the_recipe_names_are_taken_as_they_are(
    tmp_path: Path, make_image: MakeImage, config_for: ConfigFor
) -> None:
    for name in ("colour/a/1.png", "colour/b/1.png", "grey/a/1.png", "grey/b/1.png"):
        make_image(f"set/{name}")
    assert read_catalog(config_for(tmp_path / "set", classes=["colour", "grey"])).labels == ("colour", "grey")


def write_run(folder: Path, make_image: MakeImage) -> None:
    make_image(f"{folder}/plots/curves.png")
    for name in (run_files.RECIPE, run_files.STATUS, run_files.LOCK):
        (folder / name).write_text("{}")


def test_what_imagetune_wrote_is_no_class_and_no_image(
    class_folders: Path, make_image: MakeImage, config_for: ConfigFor
) -> None:
    write_run(class_folders / "runs" / "one", make_image)
    write_run(class_folders / "mlruns" / "exp" / "12ab" / "artifacts", make_image)
    write_run(class_folders / "cat" / "run", make_image)
    make_image("set/explained/1.png")
    (class_folders / "explained" / run_files.WRITTEN).write_text("")
    catalog = read_catalog(config_for(class_folders))
    assert catalog.labels == ("cat", "dog", "owl")
    assert len(catalog.records) == 36
    (finding,) = catalog.findings
    assert (finding.code, finding.title) == ("own-output", "3 folders left out that imagetune wrote")
    assert len(find_images([str(class_folders)])) == 36


def test_runs_beside_the_only_split_folder_change_nothing(
    tmp_path: Path, make_image: MakeImage, config_for: ConfigFor
) -> None:
    for name in ("train/a/1.png", "train/b/1.png"):
        make_image(f"set/{name}")
    before = read_catalog(config_for(tmp_path / "set"))
    write_run(tmp_path / "set" / "runs" / "one", make_image)
    assert read_catalog(config_for(tmp_path / "set")) == before


def test_a_run_inside_a_folder_of_images_can_be_predicted_when_it_is_named(tmp_path: Path, make_image: MakeImage):
    write_run(tmp_path / "run", make_image)
    assert len(find_images([str(tmp_path / "run")])) == 1


def test_files_without_a_suffix_are_told_by_their_first_bytes(class_folders: Path, config_for: ConfigFor) -> None:
    (class_folders / "cat" / "00.png").rename(class_folders / "cat" / "00")
    (class_folders / "cat" / "README").write_text("cats")
    catalog = read_catalog(config_for(class_folders))
    assert len(catalog.records) == 36
    assert [finding.title for finding in catalog.findings] == [
        "1 file left out that is not an image (1 without suffix)"
    ]


def test_what_is_passed_over_is_said(class_folders: Path) -> None:
    said: list[str] = []
    (class_folders / "cat" / "note.txt").write_text("x")
    (class_folders / "cat" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    found = find_images([str(class_folders)], say=lambda _, text: said.append(text))
    assert len(found) == 37
    assert said == [f"1 file left out that is not an image (1 .txt): {class_folders / 'cat' / 'note.txt'}"]


def test_images_whose_names_are_not_utf8_are_found_for_predictions(class_folders: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(class_folders / "cat") + b"/\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    assert len(find_images([str(class_folders)])) == 37


def test_sources_and_sidecars_are_found_in_both_normal_forms(
    tmp_path: Path, make_image: MakeImage, config_for: ConfigFor
) -> None:
    decomposed, composed = (unicodedata.normalize(form, "gemälde") for form in ("NFD", "NFC"))
    for label in ("a", "b"):
        make_image(f"{decomposed}/{label}/1.png")
    assert read_catalog(config_for(tmp_path / composed)).labels == ("a", "b")
    assert len(find_images([str(tmp_path / composed)])) == 2
    make_image(f"flat/{decomposed}.png")
    (tmp_path / "flat" / f"{composed}.json").write_text('{"value": 1}')
    assert len(read_catalog(config_for(tmp_path / "flat", task="regression")).records) == 1
