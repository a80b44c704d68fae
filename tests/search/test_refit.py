from __future__ import annotations

import csv
import json
import shutil

import keras
import numpy as np
import pytest

from imagetune.core.messages import say_nothing
from imagetune.data.splits.holdout import open_holdout
from imagetune.errors import DataError
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.schema import Recipe
from imagetune.run_folder.folder import RunFolder, write_recipe
from imagetune.runs.prepare import read_data
from imagetune.search.proposers.finalists import Candidate
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.search.refit import (
    build_refit_recipe,
    compute_best_epochs,
    cut_to_epochs,
    find_finished_refit,
    make_room,
    write_best,
)
from imagetune.training.loop.checkpoints import commit_checkpoint
from imagetune.training.loop.state import StageState, TrainingState

RECIPE = """\
name: colours
seed: 3
data: {{source: {source}, image_size: 32, workers: 0{data}}}
model: {{backbone: efficientnet_lite0, weights: random}}
train:
  batch_size: 16
  early_stopping: {{metric: f1, patience: 2}}
  stages:
    - {{name: head, unfreeze: none, epochs: 4, learning_rate: 1e-2, early_stopping: {{patience: 1}}}}
    - {{name: top, unfreeze: last 1 blocks, epochs: 6, learning_rate: 1e-3}}
search: {{refit: {refit}}}
"""


def winner(*ends, epochs=None):
    trial = Trial("004", {}, epochs=epochs)
    results = [TrialResult(trial, "completed", metric, 0.0, 1.0, best_epoch=epoch) for metric, epoch in ends]
    return Candidate(trial, tuple(results))


@pytest.fixture
def recipe_of(tmp_path):
    def recipe_of(source, *, refit="train_and_val", data=""):
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE.format(source=source, refit=refit, data=data), encoding="utf-8")
        return load_recipe(path).recipe

    return recipe_of


def refitted(recipe, best, folder):
    data = read_data(recipe, say=say_nothing)
    said: list[str] = []
    made, merged, fitted = build_refit_recipe(
        recipe, best, data, folder=folder, say=lambda *message: said.append(message)
    )
    return data, made, merged, fitted


def names(records):
    return {record.path for record in records}


def test_stages_are_cut_where_the_epochs_end(recipe_of, images):
    recipe = recipe_of(images)
    for epochs, expected in ((3, [3]), (4, [4]), (7, [4, 3]), (10, [4, 6]), (99, [4, 6])):
        assert [stage.epochs for stage in cut_to_epochs(recipe, epochs).train.stages] == expected


def test_the_median_of_the_seeds_says_how_many_epochs_are_best():
    assert compute_best_epochs(winner((0.8, 3), (0.9, 9), (0.7, 5))) == 5
    assert compute_best_epochs(winner((0.8, 3), (0.9, 9))) == 3
    assert compute_best_epochs(winner((0.8, None))) is None


def test_the_refit_on_training_images_is_the_winner_as_it_is(recipe_of, images, tmp_path):
    recipe = recipe_of(images, refit="train")
    data, made, merged, _ = refitted(recipe, winner((0.8, 3)), tmp_path)
    assert made is recipe
    assert merged is data


@pytest.mark.parametrize("method", ["hash", "stratified"])
def test_validation_images_join_training_and_the_test_stays(recipe_of, images, tmp_path, method):
    recipe = recipe_of(images, data=f", split: {{method: {method}, val: 0.3, test: 0.2}}")
    data, made, merged, fitted = refitted(recipe, winner((0.8, 6), (0.7, 8), (0.9, 5)), tmp_path)
    assert merged.splits.val == ()
    assert names(merged.splits.train) == names(data.splits.train) | names(data.splits.val)
    assert names(open_holdout(merged.splits)) == names(open_holdout(data.splits))
    assert [stage.epochs for stage in made.train.stages] == [4, 2]
    assert made.train.early_stopping.patience is None
    assert made.train.early_stopping.keep == "last"
    assert all(stage.early_stopping is None for stage in made.train.stages)
    assert "6 epochs" in fitted

    write_recipe(made, tmp_path / "best.yaml")
    again = read_data(load_recipe(tmp_path / "best.yaml").recipe, say=say_nothing)
    assert names(again.splits.train) == names(merged.splits.train)
    assert names(open_holdout(again.splits)) == names(open_holdout(data.splits))


def test_splits_that_a_table_gives_are_written_into_the_search(recipe_of, images, tmp_path):
    source = tmp_path / "mine.csv"
    files = sorted(images.rglob("*.png"))
    sides = ["train", "train", "val", "train", "test"]
    with source.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "colour", "part", "camera"])
        writer.writerows((path, path.parent.name, sides[at % 5], f"camera {at % 2}") for at, path in enumerate(files))
    before = source.read_bytes()
    folder = tmp_path / "search"
    folder.mkdir()
    columns = "{path: file, label: colour, split: part, slices: [camera]}"
    recipe = recipe_of(source, data=f", columns: {columns}")
    data, made, merged, _ = refitted(recipe, winner((0.8, 3)), folder)
    assert source.read_bytes() == before
    assert made.data.source == str(folder / "images.csv")
    assert merged.splits.val == ()
    assert names(merged.splits.train) == names(data.splits.train) | names(data.splits.val)
    assert names(open_holdout(merged.splits)) == names(open_holdout(data.splits))
    assert {record.slices for record in merged.splits.train} == {record.slices for record in data.splits.train}


def test_an_image_that_changed_since_stops_the_refit(recipe_of, images, tmp_path):
    images = shutil.copytree(images, tmp_path / "drawn")
    recipe = recipe_of(images)
    data = read_data(recipe, say=say_nothing)
    first = sorted(images.rglob("*.png"))[0]
    first.write_bytes(sorted(images.rglob("*.png"))[-1].read_bytes())
    with pytest.raises(DataError, match="changed since"):
        build_refit_recipe(recipe, winner((0.8, 3)), data, folder=tmp_path, say=say_nothing)


def test_the_best_recipe_carries_its_score_and_reads_back(recipe_of, images, tmp_path):
    recipe = recipe_of(images)
    write_best(recipe, winner((0.8, 3), (0.6, 4)), folder=tmp_path, objective="f1", fitted="Trained on all")
    text = (tmp_path / "best.yaml").read_text()
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert f"# The best settings of the search in {tmp_path}" in head
    assert "# Trial 004: f1 0.7000 on validation, the mean over 2 seeds, standard deviation 0.1414" in head
    assert load_recipe(tmp_path / "best.yaml").recipe == recipe


def finished(folder, recipe, state="finished"):
    folder.mkdir()
    run = RunFolder(folder)
    write_recipe(recipe, run.recipe)
    run.write_status(state)
    run.evaluation.write_text(json.dumps({"splits": {"test": {}}, "requirements": []}))
    return run


def test_a_refit_that_is_finished_stands_and_no_other(recipe_of, images, tmp_path):
    recipe = recipe_of(images)
    assert find_finished_refit(tmp_path / "best", recipe) is None
    run = finished(tmp_path / "best", recipe)
    assert find_finished_refit(run.path, recipe).fresh is False
    settled = recipe.model_copy(update={"data": recipe.data.model_copy(update={"workers": "auto"})})
    assert find_finished_refit(run.path, settled) is not None
    assert find_finished_refit(run.path, recipe.model_copy(update={"seed": 4})) is None
    run.write_status("killed")
    assert find_finished_refit(run.path, recipe) is None


def test_a_refit_whose_head_was_solved_by_auto_stands(images, tmp_path):
    def recipe_with(**stage):
        head = {"name": "head", "unfreeze": "none", "epochs": 8, "learning_rate": 3e-3, **stage}
        return Recipe.model_validate({"data": {"source": str(images)}, "train": {"stages": [head]}})

    run = finished(tmp_path / "best", recipe_with(solve=True))
    assert find_finished_refit(run.path, recipe_with(solve="auto")) is not None
    assert find_finished_refit(run.path, recipe_with(solve=False)) is None


@pytest.mark.parametrize(("name", "text"), [("evaluation.json", '{"spl'), ("recipe.yaml", "train: [")])
def test_a_refit_whose_files_are_corrupted_is_made_again(recipe_of, images, tmp_path, name, text):
    recipe = recipe_of(images)
    run = finished(tmp_path / "best", recipe)
    (run.path / name).write_text(text)
    assert find_finished_refit(run.path, recipe) is None
    (run.path / name).unlink()
    assert find_finished_refit(run.path, recipe) is None


def test_an_unfinished_refit_goes_and_a_finished_one_moves_aside(recipe_of, images, tmp_path):
    recipe, best = recipe_of(images), tmp_path / "best"
    make_room(best, recipe)
    finished(best, recipe, state="running")
    make_room(best, recipe)
    assert not list(tmp_path.glob("best*"))
    for expected in ("best-1", "best-2"):
        finished(best, recipe)
        make_room(best, recipe)
        assert (tmp_path / expected / "evaluation.json").exists()
    assert not best.exists()


def test_a_stopped_refit_of_the_same_recipe_stays_to_be_gone_on_with(recipe_of, images, tmp_path):
    recipe = recipe_of(images)
    run = finished(tmp_path / "best", recipe, state="killed")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    state = TrainingState(0, 1, stage=StageState("head", 0, 0, 1e-2), arrays={"optimizer/0": np.ones(1)})
    checkpoint = commit_checkpoint(run.checkpoints, model, state)
    make_room(run.path, recipe)
    assert checkpoint.is_dir()
    # More trials, or another seed of them, train no other winner.
    make_room(run.path, recipe.model_copy(update={"search": recipe.search.model_copy(update={"trials": 99})}))
    assert checkpoint.is_dir()
    make_room(run.path, recipe.model_copy(update={"seed": 4}))
    assert not run.path.exists()


def test_a_stopped_refit_without_a_sound_checkpoint_begins_anew(recipe_of, images, tmp_path):
    recipe = recipe_of(images)
    run = finished(tmp_path / "best", recipe, state="killed")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    state = TrainingState(0, 1, stage=StageState("head", 0, 0, 1e-2), arrays={"optimizer/0": np.ones(1)})
    (commit_checkpoint(run.checkpoints, model, state) / "resume.npz").write_bytes(b"")
    make_room(run.path, recipe)
    assert not run.path.exists()
