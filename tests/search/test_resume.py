"""Resuming a search: which changes of recipe, journal and images are refused, and with which message."""

import json
import shutil

import pytest

from imagetune.core.messages import say_nothing
from imagetune.errors import CheckpointError
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.printing import format_searchable_recipe
from imagetune.run_folder.folder import RunFolder
from imagetune.runs.prepare import read_data
from imagetune.search.records.journal import Proposed
from imagetune.search.records.trial import Trial
from imagetune.search.resume import check_journal, check_same_training, record_images

RECIPE = """\
seed: 3
data: {{source: {source}, image_size: 32, workers: 0}}
train:
  batch_size: 16
  stages: [{{name: head, epochs: 4, learning_rate: {{search: log_uniform, low: 1e-4, high: 1e-1}}}}]
search: {{algorithm: sweep, seed: 1}}
"""


@pytest.fixture
def loaded(tmp_path, images):
    def loaded(*overrides, source=images):
        path = tmp_path / "colours.yaml"
        path.write_text(RECIPE.format(source=source), encoding="utf-8")
        return load_recipe(path, overrides)

    return loaded


@pytest.fixture
def folder(tmp_path, loaded):
    """The folder of a search that has begun with these images."""
    folder = RunFolder(tmp_path / "search")
    folder.path.mkdir()
    folder.recipe.write_text(format_searchable_recipe(loaded()), encoding="utf-8")
    record_images(folder, loaded().recipe, read(loaded()), begun=False)
    return folder


def read(loaded):
    return read_data(loaded.recipe, say=say_nothing)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stages.0.epochs=8", "train.stages[0].epochs was 4, now it is 8"),
        ("train.batch_size=8", "train.batch_size was 16, now it is 8"),
        ("model.backbone=mobilenet_v2", 'model.backbone was "efficientnet_lite0", now it is "mobilenet_v2"'),
        ("data.augmentation=none", "data.augmentation"),
        # The seed of the trainings, where that of the proposals is another.
        ("seed=4", "seed was 3, now it is 4"),
    ],
)
def test_trials_that_would_be_trained_otherwise_are_another_search(folder, loaded, override, message):
    with pytest.raises(CheckpointError, match="the recipe changed since") as caught:
        check_same_training(folder, loaded(override).recipe)
    assert message in str(caught.value)
    assert caught.value.where == str(folder.recipe)


@pytest.mark.parametrize(
    "override",
    [
        *("search.repeats=5", "search.parallel=2", "search.budget={hours: 1}", "search.refit=train_and_val"),
        *("name=other", "tracking.enabled=false", "evaluate.bootstrap_samples=150", "data.workers=1"),
        *("data.cache=off", "train.jit_compile=true"),
    ],
)
def test_what_does_not_change_a_training_may_change(folder, loaded, override):
    check_same_training(folder, loaded(override).recipe)


def test_a_journal_that_has_lost_finished_trials_is_refused(folder):
    trials = {"001": "finished", "002": "failed", "003": "killed", "004": "running"}
    for name, state in trials.items():
        place = folder.path / "trials" / f"trial-{name}"
        place.mkdir(parents=True)
        RunFolder(place).write_status(state)
    (folder.path / "trials" / "trial-005").mkdir()
    check_journal(folder, [Proposed(Trial("001", {})), Proposed(Trial("002", {}))])
    with pytest.raises(CheckpointError, match=r"says nothing of trial-002 below .*trials, which ended") as caught:
        check_journal(folder, [Proposed(Trial("001", {}))])
    assert caught.value.where == str(folder.path / "journal.jsonl")
    with pytest.raises(CheckpointError, match="trial-001, trial-002"):
        check_journal(folder, [])


def test_images_that_moved_as_they_are_are_the_same(folder, loaded, images, tmp_path):
    elsewhere = shutil.copytree(images, tmp_path / "moved" / "colours")
    record_images(folder, loaded().recipe, read(loaded(source=elsewhere)), begun=True)
    # The source that the search began with need not be there any more.
    there = json.loads((folder.path / "lock.json").read_text())["images"]
    assert all(str(elsewhere) in path for path in there)


def test_an_image_that_changed_is_reported(folder, loaded, images, tmp_path):
    elsewhere = shutil.copytree(images, tmp_path / "moved")
    first, second, *_ = sorted((elsewhere / "red").glob("*.png"))
    first.write_bytes(second.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match=r"1 with another content \(such as red/red00\.png\)"):
        record_images(folder, loaded().recipe, read(loaded(source=elsewhere)), begun=True)


@pytest.mark.parametrize("name", ["lock.json", "splits.csv"])
def test_without_the_record_of_the_images_a_search_is_not_resumed(folder, loaded, name):
    (folder.path / name).unlink()
    with pytest.raises(CheckpointError, match="No such file") as caught:
        record_images(folder, loaded().recipe, read(loaded()), begun=True)
    assert caught.value.where == str(folder.path / name)
    # Before the first trial nothing is lost.
    record_images(folder, loaded().recipe, read(loaded()), begun=False)
    assert (folder.path / name).exists()


@pytest.mark.parametrize("text", ["", "[]", '{"images": 3}', "{"])
def test_a_corrupted_record_of_the_images_is_reported(folder, loaded, text):
    (folder.path / "lock.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"lock.json: (can't be read|isn't what imagetune writes)"):
        record_images(folder, loaded().recipe, read(loaded()), begun=True)
