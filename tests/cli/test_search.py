import csv
import json

import mlflow
import pytest

from imagetune.recipe.loading import load_recipe

SPACES = (
    "-o",
    "train.stages.0.learning_rate={search: log_uniform, low: 1e-4, high: 1e-1}",
    "-o",
    "data.augmentation={search: choice, values: [none, light]}",
    "-o",
    "search={algorithm: random, trials: 2}",
)


def test_a_recipe_without_spaces_has_nothing_to_search(recipe, workplace, imagetune):
    outcome = imagetune("search", recipe)
    assert outcome.code == 2
    assert "has nothing to search" in outcome.err
    assert not (workplace / "runs").exists()


def test_what_trials_are_compared_by_cannot_be_searched(recipe, imagetune):
    outcome = imagetune("search", recipe, "-o", "data.split.val={search: uniform, low: 0.1, high: 0.3}")
    assert outcome.code == 2
    assert "can't be searched" in outcome.err


@pytest.mark.slow
def test_trials_are_recorded_and_the_best_is_tested_once(recipe, workplace, imagetune):
    outcome = imagetune("search", recipe, "--run-dir", "found", *SPACES)
    assert outcome.code == 0, outcome.err
    found = workplace / "found"
    with (found / "search.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["completed", "completed"]
    best = max(rows, key=lambda row: float(row["objective"]))
    recipe = load_recipe(found / "best.yaml").recipe
    assert recipe.train.stages[0].learning_rate == pytest.approx(float(best["train.stages[0].learning_rate"]))
    assert recipe.data.augmentation == best["data.augmentation"]
    assert not list((found / "trials").rglob("test.csv"))
    assert (found / "best" / "predictions" / "test.csv").exists()

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{workplace / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("colours").experiment_id])
    parent = json.loads((found / "tracking.json").read_text())["run_id"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent]
    assert len(runs) == 4
    assert len(children) == 3
    assert all(run.info.status == "FINISHED" for run in runs)


@pytest.mark.slow
def test_a_trial_that_fails_does_not_end_the_search(recipe, workplace, imagetune):
    rates = "train.stages.0.learning_rate={search: choice, values: [1e30, 1e-2]}"
    steps = ("-o", "train.optimizer.name=sgd", "-o", "train.stages.0.epochs=20")
    outcome = imagetune("search", recipe, "--run-dir", "found", "-o", rates, "-o", "search={algorithm: grid}", *steps)
    assert outcome.code == 0, outcome.err
    with (workplace / "found" / "search.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["status"] for row in rows) == ["completed", "failed"]
    assert "the loss is" in next(row["error"] for row in rows if row["status"] == "failed")
