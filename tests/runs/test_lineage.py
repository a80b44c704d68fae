"""What finished runs have in common and have seen, from run folders without weights."""

from __future__ import annotations

import csv
import json
import shutil

import cv2
import pytest

from imagetune.data.sources.records import Record
from imagetune.errors import DataError, ModelFileError
from imagetune.model.manifest import Manifest
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.data import ImageSettings
from imagetune.recipe.sections.model import ModelConfig
from imagetune.run_folder.folder import RunFolder, write_recipe
from imagetune.runs.lineage import (
    check_seen_images,
    choose_tested_images,
    count_different_images,
    count_seen_images,
    find_leaked_images,
    hash_images,
    open_members,
)

SPLITS = {"train": ["a0", "b0"], "val": ["a1"], "test": ["a2", "b2"]}


@pytest.fixture
def run(tmp_path):
    """Make a finished run: its name, then what sets it apart."""

    def run(name, *, classes=("a", "b"), task="single_label", splits=SPLITS, hashes=None):
        folder = RunFolder(tmp_path / name)
        folder.model.mkdir(parents=True)
        (tmp_path / "set").mkdir(exist_ok=True)
        manifest = Manifest(
            imagetune="0.1.0",
            keras="3.15.1",
            config=ModelConfig(),
            precision="float32",
            task=task,
            class_names=classes,
            image=ImageSettings(height=32, width=32, resize="pad", background=(0, 0, 0)),
            max_pixels=1_000_000,
            weights_sha256="0",
        )
        (folder.model / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
        write_recipe(Recipe.model_validate({"data": {"source": str(tmp_path / "set")}}), folder.recipe)
        folder.write_status("finished")
        with folder.splits.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "label", "split", "group"))
            writer.writerows((f"{one}.png", one[0], split, "") for split, ones in splits.items() for one in ones)
        if hashes is not None:
            images = {str(tmp_path / "set" / f"{one}.png"): value for one, value in hashes.items()}
            folder.lock.write_text(json.dumps({"images": images}), encoding="utf-8")
        return str(folder.path)

    return run


def test_runs_are_read_with_their_recipe_splits_and_hashes(run):
    (member,) = open_members([run("one", hashes={"a0": "f00"})])
    assert member.manifest.class_names == ("a", "b")
    assert [record.label for record in member.splits.train] == ["a", "b"]
    assert list(member.hashes.values()) == ["f00"]
    (bare,) = open_members([run("two")])
    assert (bare.lock, dict(bare.hashes)) == ({}, {})


def test_classes_in_another_order_go_together_and_others_do_not(run):
    assert len(open_members([run("one"), run("two", classes=("b", "a"))])) == 2
    with pytest.raises(ModelFileError, match="it lacks b and has c besides"):
        open_members([run("three"), run("four", classes=("a", "c"))])
    with pytest.raises(ModelFileError, match="it is a model for ordinal"):
        open_members([run("five"), run("six", task="ordinal")])


def test_an_image_is_known_by_its_place_and_as_a_copy_by_its_content(run, tmp_path):
    (member,) = open_members([run("one", hashes={"a0": "f00", "b0": "f01", "a2": "f02"})])
    tested = [Record(str(tmp_path / "set" / f"{name}.png"), "a") for name in ("a1", "a2", "new")]
    assert count_seen_images(member, tested, {}) == 1
    # Its own test images are not among what it learned from.
    assert count_seen_images(member, tested, {tested[2].path: "f01", tested[1].path: "f02"}) == 2
    with pytest.raises(DataError, match="1 of 3 test images is among its training or validation images"):
        check_seen_images([member], tested, {})
    assert not check_seen_images([member], tested[1:], {}).paths
    assert check_seen_images([member, member], tested, {}, policy="allow").to_dict()["images"] == 1


def test_an_image_of_the_training_is_known_by_its_looks_in_another_size(run, images, tmp_path):
    files = sorted((images / "red").glob("*.png"))[:5]
    (member,) = open_members([run("one")])
    for name, file in zip(("a0", "b0", "a1", "a2", "b2"), files, strict=True):
        shutil.copy(file, tmp_path / "set" / f"{name}.png")
    tested = []
    for name in ("a0", "a2"):
        large = cv2.resize(cv2.imread(str(tmp_path / "set" / f"{name}.png")), (48, 48))
        tested.append(Record(str(tmp_path / f"{name}-large.png"), "a"))
        cv2.imwrite(tested[-1].path, large)
    found = check_seen_images([member], tested, hash_images(tested), policy="allow")
    # The second is a test image of the run, which it may be tested on in any size.
    assert (found.copies, found.near_duplicates) == (frozenset(), {tested[0].path})
    (tmp_path / "set" / "a0.png").unlink()
    gone = check_seen_images([member], tested, hash_images(tested), policy="allow")
    assert (gone.paths, "1 of 3 images of the training can't be read" in gone.notes[0]) == (frozenset(), True)


def test_images_of_the_training_are_known_after_the_source_is_gone(run, tmp_path):
    (member,) = open_members([run("one", hashes={"a0": "f00"})])
    (tmp_path / "set").rmdir()
    assert count_seen_images(member, [Record("copy.png", "a")], {"copy.png": "f00"}) == 1


def test_what_a_run_has_seen_its_descendants_have_seen(run, tmp_path):
    (first,) = open_members([run("first", hashes={"a0": "f00"})])
    (second,) = open_members([run("second", splits={"train": ["b2"], "val": [], "test": []})])
    recipe = Recipe.model_validate({"data": {"source": str(tmp_path / "set")}, "model": {"weights": first.name}})
    write_recipe(recipe, second.folder.recipe)
    (second,) = open_members([second.name])
    assert count_seen_images(second, [Record("copy.png", "a")], {"copy.png": "f00"}) == 1
    shutil.rmtree(first.folder.model)
    found = check_seen_images([second], [Record("copy.png", "a")], {"copy.png": "f00"})
    assert any("can't be read" in note for note in found.notes)


def test_a_run_without_its_splits_cannot_be_trusted(run):
    (member,) = open_members([run("one")])
    member.folder.splits.unlink()
    with pytest.raises(DataError, match=r"has no splits\.csv"):
        check_seen_images([member], [], {})
    assert check_seen_images([member], [], {}, policy="allow").to_dict()["images"] is None


def test_the_images_of_two_runs_differ_by_content_label_and_split(run):
    same, other = {"a1": "f1", "a2": "f2", "b2": "f3"}, {"a1": "f1", "a2": "f2", "b2": "other"}
    first, second, third = open_members([run("one", hashes=same), run("two", hashes=same), run("three", hashes=other)])
    assert count_different_images(first, second, "test") == count_different_images(first, third, "val") == 0
    assert count_different_images(first, third, "test") == 2


def test_an_image_that_cannot_be_read_has_no_hash(tmp_path):
    (tmp_path / "here.png").write_bytes(b"x")
    records = [Record(str(tmp_path / name), "a") for name in ("here.png", "gone.png")]
    assert list(hash_images(records)) == [records[0].path]


def test_images_that_a_run_has_seen_are_left_out_and_counted(run, tmp_path):
    (member,) = open_members([run("one", hashes={"a0": "f00"})])
    tested = [Record(str(tmp_path / "set" / f"{name}.png"), "a") for name in ("a1", "a2", "new")]
    kept, told = choose_tested_images([member], tested, {}, policy="skip")
    assert kept == tuple(tested[1:])
    # None of those that are tested was seen, so that the requirements may be met.
    assert told["images"] == 0
    assert (told["left_out"]["images"], told["left_out"]["paths"]) == (1, [tested[0].path])
    with pytest.raises(DataError, match="all of 1 test image"):
        choose_tested_images([member], tested[:1], {}, policy="skip")
    member.folder.splits.unlink()
    with pytest.raises(DataError, match=r"has no splits\.csv"):
        choose_tested_images([member], tested, {}, policy="skip")


def test_what_a_soups_members_have_seen_the_soup_has_seen(run):
    (kept,) = open_members([run("kept", hashes={"a0": "f00"})])
    (dropped,) = open_members([run("dropped", hashes={"b0": "f01"})])
    (soup,) = open_members([run("soup", splits={"train": ["b2"], "val": [], "test": []})])
    members = [{"run": one.folder.path.name, "folder": one.name, "kept": one is kept} for one in (kept, dropped)]
    soup.folder.soup.write_text(json.dumps({"members": members}), encoding="utf-8")
    tested = [Record("copy.png", "a"), Record("other.png", "b")]
    found = check_seen_images([soup], tested, {"copy.png": "f00", "other.png": "f01"}, policy="allow")
    assert found.paths == {"copy.png"}


def test_test_images_that_leak_are_found_in_the_check_of_the_images(run, tmp_path):
    (member,) = open_members([run("one")])
    paths = [str(tmp_path / "set" / f"{name}.png") for name in ("a0", "a2", "b0", "b2")]
    finding = {"code": "leak", "paths": paths}
    member.folder.audit.write_text(json.dumps({"findings": [finding], "allowed": []}), encoding="utf-8")
    tested = [Record(path, "a") for path in (paths[1], paths[3], "new.png")]
    hashes = {paths[0]: "f00", paths[1]: "f00", paths[2]: "f01", paths[3]: "f02"}
    found = find_leaked_images(member.folder, member.recipe, tested, hashes)
    assert (found.copies, found.near_duplicates) == ({paths[1]}, {paths[3]})
