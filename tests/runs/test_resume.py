"""Which runs are gone on with, and what must be as it was."""

import json

import pytest

from imagetune.errors import CheckpointError, ModelFileError
from imagetune.model.load_weights import WeightsReport
from imagetune.recipe.schema import Recipe
from imagetune.run_folder.folder import RunFolder
from imagetune.run_folder.lock import list_versions
from imagetune.runs.resume import BegunRun, check_same_weights, find_begun_run

WEIGHTS = WeightsReport("weights.pth", "ab" * 32, 98, (), "all 98 layers found")


@pytest.fixture
def begun(tmp_path):
    def begun(**lock):
        folder = RunFolder(tmp_path)
        document = {"weights": {"source": "weights.pth", "sha256": "ab" * 32}, "versions": list_versions()} | lock
        folder.lock.write_text(json.dumps(document))
        return BegunRun(folder, Recipe.model_validate({"data": {"source": "images"}}))

    return begun


def test_the_same_weights_and_libraries_are_passed_in_silence(begun):
    said = []
    check_same_weights(begun(), WEIGHTS, say=lambda *line: said.append(line))
    assert said == []


def test_other_weights_are_refused(begun):
    run = begun(weights={"source": "weights.pth", "sha256": "cd" * 32})
    with pytest.raises(CheckpointError, match="the pretrained weights are others now: weights.pth"):
        check_same_weights(run, WEIGHTS, say=print)


def test_another_version_of_a_library_is_said(begun):
    said = []
    versions = list_versions() | {"keras": "3.0.0"}
    check_same_weights(begun(versions=versions), WEIGHTS, say=lambda *line: said.append(line))
    ((label, text),) = said
    assert label == "warning"
    assert text.startswith(f"this run began with keras 3.0.0, now {list_versions()['keras']}: ")


def test_an_empty_or_missing_folder_holds_no_run(tmp_path):
    assert find_begun_run(None, resume=True) is None
    assert find_begun_run(tmp_path, resume=True) is None
    assert find_begun_run(tmp_path / "nowhere", resume=True) is None


def test_a_run_that_was_killed_in_its_first_moment_begins_anew(tmp_path):
    folder = RunFolder(tmp_path)
    folder.status.write_text("{}")
    found = find_begun_run(tmp_path, resume=True)
    assert found == BegunRun(folder, recipe=None)
    assert find_begun_run(tmp_path, resume=False) is None


def test_a_run_whose_checkpoints_lie_elsewhere_is_refused(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.write_status("killed")
    (tmp_path / "elsewhere").mkdir()
    folder.checkpoints.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelFileError, match="link out of the run folder"):
        find_begun_run(folder.path, resume=True)


def test_a_search_is_not_gone_on_with_as_a_run(tmp_path):
    RunFolder(tmp_path).write_status("killed")
    (tmp_path / "search.json").write_text("{}")
    with pytest.raises(CheckpointError, match="the folder holds a search"):
        find_begun_run(tmp_path, resume=True)
