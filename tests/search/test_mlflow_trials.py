"""The trials of a search in the real MLflow store: parent, children, states, best."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from imagetune.core.files import append_json_line, write_json
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.sections.search import BudgetConfig
from imagetune.run_folder.folder import RunFolder
from imagetune.search.budget import Budget
from imagetune.search.executors.protocol import Task
from imagetune.search.forecast import Expected
from imagetune.search.listeners import SearchPlan
from imagetune.search.mlflow_trials import TrialCopies, set_aside, sync_search
from imagetune.search.proposers.finalists import Candidate
from imagetune.search.records.journal import Ended, Journal, Proposed
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.tracking.store import open_client, prepare_environment
from imagetune.tracking.tracker import start_tracking

RATE = ("train", "stages", 0, "learning_rate")
RECIPE = """\
name: drawings
data: {source: images}
tracking: {tags: {team: images}}
train:
  stages:
    - {name: head, unfreeze: none, epochs: 4, learning_rate: 1e-3}
search: {algorithm: random, trials: 3}
"""


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A migrated sqlite store: making one takes seconds, copying it none."""
    prepare_environment()
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_client(f"sqlite:///{path}")
    return path


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch, empty_store):
    for name in list(os.environ):
        if name.startswith("MLFLOW_TRACKING") or name.startswith("MLFLOW_EXPERIMENT"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


class Scene:
    """A search whose trials are played: their folders are written as a trial's process writes them."""

    def __init__(self, place: Path) -> None:
        (place / "drawings.yaml").write_text(RECIPE, encoding="utf-8")
        self.folder = place / "runs" / "search"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.recipe = load_recipe(place / "drawings.yaml").recipe
        (self.folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
        write_json(self.folder / "search.json", {"algorithm": "random", "objective": "f1", "spaces": {}})
        RunFolder(self.folder).write_status("running")
        self.copies = TrialCopies(self.recipe)
        self.journal = Journal(self.folder / "journal.jsonl")
        self.warnings: list[str] = []

    def open(self, **tracking):
        config = self.recipe.tracking.model_copy(update={"log_model": False, **tracking})
        self.tracker = start_tracking(
            self.folder, config, recipe_name="drawings", children=self.copies, warn=self.warnings.append
        )
        self.copies.poke = self.tracker.poke
        plan = SearchPlan(self.folder, self.recipe, (RATE,), "max", 1, Expected(3, None, 0), Budget(BudgetConfig()), ())
        self.copies.search_started(plan)
        return self

    def task(self, name):
        return Task(name, self.folder / "trials" / f"trial-{name}", self.recipe)

    def start(self, name, rate=0.003, **about):
        trial = Trial(name, {RATE: rate}, **about)
        task = self.task(name)
        self.journal.add(Proposed(trial))
        self.copies.trial_started(trial, task)
        shutil.rmtree(task.folder, ignore_errors=True)
        task.folder.mkdir(parents=True)
        (task.folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
        RunFolder(task.folder).write_status("running", stage="head", epoch=1)
        return trial

    def epoch(self, name, number, f1):
        line = {"stage": "head", "epoch": number, "step": number, "train": {"loss": 1.0}, "val": {"f1": f1}}
        append_json_line(self.task(name).folder / "metrics.jsonl", line)
        self.copies.tick()

    def end(self, trial, objective, status="completed", state="finished", error=""):
        RunFolder(self.task(trial.trial_id).folder).write_status(state, stage="head", epoch=2, error=error or None)
        result = TrialResult(trial, status, objective, 0.0, 1.0, 2, 2, error=error)
        self.journal.add(Ended(result))
        self.copies.trial_ended(result, self.task(trial.trial_id))

    def close(self, state="finished"):
        RunFolder(self.folder).write_status(state)
        self.copies.trials_stopped()
        return self.tracker.finish()


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


def found(store):
    """Return the runs of the experiment by name, newest last."""
    client = open_client(store)
    experiment = client.get_experiment_by_name("drawings")
    runs = client.search_runs([experiment.experiment_id], order_by=["attribute.start_time"]) if experiment else []
    named: dict[str, list] = {}
    for run in runs:
        named.setdefault(run.info.run_name, []).append(run)
    return named


def test_trials_are_children_of_the_search_with_their_states_and_metrics(scene, store):
    scene.open()
    good, bad = scene.start("001"), scene.start("002", rate=0.5)
    for number, f1 in ((1, 0.4), (2, 0.8)):
        scene.epoch("001", number, f1)
    scene.end(good, 0.8)
    scene.end(bad, None, status="failed", state="failed", error="diverged: the loss is nan")
    early = scene.start("003", rate=1e-6)
    scene.epoch("003", 1, 0.3)
    scene.end(early, 0.3, status="stopped")
    again = scene.start("001-2", phase="final", seed=8, repeats="001")
    scene.end(again, 0.7)
    assert scene.close() is None

    runs = found(store)
    assert {name: [run.info.status for run in same] for name, same in runs.items()} == {
        "search": ["FINISHED"],
        "trial-001": ["FINISHED"],
        "trial-002": ["FAILED"],
        "trial-003": ["FINISHED"],
        "trial-001-2": ["FINISHED"],
    }
    parent = runs["search"][0]
    children = [run for same in runs.values() for run in same if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.data.tags["team"] for run in children} == {"images"}

    first = runs["trial-001"][0].data
    assert first.metrics["objective"] == 0.8
    assert first.metrics["val/f1"] == 0.8
    assert first.tags["imagetune.trial"] == "001"
    assert first.tags["imagetune.phase"] == "search"
    assert first.tags["imagetune.search.train.stages_0_.learning_rate"] == "0.003"
    assert first.params["train.stages.0.learning_rate"] == "0.001"
    failed = runs["trial-002"][0].data
    assert "diverged: the loss is nan" in failed.tags["mlflow.note.content"]
    assert "objective" not in failed.metrics
    assert runs["trial-003"][0].data.tags["imagetune.trial_status"] == "stopped"
    assert runs["trial-001-2"][0].data.tags["imagetune.repeats"] == "001"
    assert runs["trial-001-2"][0].data.tags["imagetune.seed"] == "8"

    assert parent.data.tags["imagetune.best_trial"] == "001"
    assert parent.data.metrics["objective"] == pytest.approx(0.75)
    assert "trial 001**, with a validation f1 of **0.7500" in parent.data.tags["mlflow.note.content"]


def test_a_trial_is_in_mlflow_while_it_still_trains(scene, store):
    scene.open()
    scene.start("001")
    scene.epoch("001", 1, 0.4)
    for _ in range(100):
        scene.copies._looked = 0.0
        scene.copies.tick()
        runs = found(store)
        if "trial-001" in runs and runs["trial-001"][0].data.metrics:
            break
    assert runs["trial-001"][0].info.status == "RUNNING"
    assert runs["trial-001"][0].data.metrics["val/f1"] == 0.4
    scene.close("killed")


def test_the_metric_of_a_search_falls_where_other_seeds_are_less_lucky(scene, store):
    def sent(count):
        for _ in range(200):
            scene.copies._looked = 0.0
            scene.copies.tick()
            client, run = open_client(store), found(store).get("search", [None])[0]
            if run is not None and len(client.get_metric_history(run.info.run_id, "objective")) == count:
                return client.get_run(run.info.run_id).data.metrics["objective"]
            time.sleep(0.02)
        return None

    scene.open()
    scene.end(scene.start("001"), 0.8)
    assert sent(1) == 0.8
    scene.end(scene.start("001-2", phase="final", repeats="001", seed=8), 0.4)
    assert sent(2) == pytest.approx(0.6)
    scene.close()
    assert found(store)["search"][0].data.metrics["objective"] == pytest.approx(0.6)


def test_a_search_has_the_test_metrics_of_its_winner(scene, store):
    scene.open()
    scene.end(scene.start("001"), 0.8)
    (scene.folder / "best").mkdir()
    metrics = {"accuracy": {"value": 0.75, "low": 0.5, "high": 0.9}}
    write_json(scene.folder / "best" / "evaluation.json", {"splits": {"test": {"images": 8, "metrics": metrics}}})
    scene.close()
    found_metrics = found(store)["search"][0].data.metrics
    assert (found_metrics["test/accuracy"], found_metrics["objective"]) == (0.75, 0.8)


def test_an_interrupted_trial_ends_as_killed_and_its_next_attempt_is_a_new_run(scene, store, tmp_path):
    scene.open()
    scene.start("001")
    scene.epoch("001", 1, 0.4)
    RunFolder(scene.task("001").folder).write_status("killed", stage="head", epoch=1)
    scene.close("killed")
    assert found(store)["trial-001"][0].info.status == "KILLED"
    assert found(store)["search"][0].info.status == "KILLED"

    resumed = Scene(tmp_path).open()
    trial = resumed.start("001")
    resumed.epoch("001", 1, 0.5)
    resumed.end(trial, 0.5)
    assert resumed.close() is None
    first, second = found(store)["trial-001"]
    assert (first.info.status, second.info.status) == ("KILLED", "FINISHED")
    assert (first.data.metrics["val/f1"], second.data.metrics["val/f1"]) == (0.4, 0.5)
    assert found(store)["search"][0].info.status == "FINISHED"


def test_a_trial_whose_search_was_killed_at_once_ends_as_killed_too(scene, store, tmp_path):
    scene.open()
    scene.start("001")
    scene.epoch("001", 1, 0.4)
    scene.close("running")  # what the folders say after SIGKILL: everything seems to run
    for folder in (scene.folder, scene.task("001").folder):
        status = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps({**status, "state": "running", "pid": 2**22 + 1}))
    resumed = Scene(tmp_path).open()
    resumed.end(resumed.start("001"), 0.5)
    resumed.close()
    assert [run.info.status for run in found(store)["trial-001"]] == ["KILLED", "FINISHED"]


def test_nothing_is_set_aside_of_an_attempt_that_mlflow_never_saw(scene):
    scene.start("001")
    assert set_aside(scene.task("001").folder, scene.folder) is None
    assert not (scene.folder / "interrupted").exists()


@pytest.mark.parametrize("state", ["running", "killed"])
def test_an_interrupted_refit_ends_as_killed(scene, store, state):
    scene.open()
    trial = scene.start("001")
    scene.end(trial, 0.5)
    best = scene.folder / "best"
    best.mkdir()
    (best / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    RunFolder(best).write_status("running", stage="head", epoch=1)
    config = scene.recipe.tracking.model_copy(update={"log_model": False})
    parent = scene.tracker.wait_for_run()
    tracker = start_tracking(best, config, recipe_name="drawings", parent_run_id=parent)
    assert tracker.wait_for_run()
    tracker.finish()
    assert found(store)["best"][0].info.status == "RUNNING"
    RunFolder(best).write_status(state, stage="head", epoch=1)

    scene.copies.refit_started(Candidate(trial, ()))
    shutil.rmtree(best)
    assert scene.close() is None
    (ended,) = found(store)["best"]
    assert (ended.info.status, ended.data.tags["mlflow.parentRunId"]) == ("KILLED", parent)


def test_a_finished_refit_stands_in_mlflow(scene):
    scene.open()
    best = scene.folder / "best"
    best.mkdir()
    (best / "tracking.json").write_text("{}")
    RunFolder(best).write_status("finished")
    scene.copies.refit_started(Candidate(Trial("001", {}), ()))
    assert scene.close() is None
    assert not (scene.folder / "interrupted").exists()


def test_a_server_that_is_down_holds_nothing_up_and_sync_sends_all_of_it_later(scene, store):
    scene.open(uri="http://127.0.0.1:9")
    trial = scene.start("001")
    scene.epoch("001", 1, 0.4)
    scene.end(trial, 0.4)
    message = scene.close()
    assert message is not None
    assert f"imagetune sync {scene.folder}" in message
    assert len(scene.warnings) == 1
    assert not found(store)

    for path in (scene.folder / "tracking.json", scene.task("001").folder / "tracking.json"):
        if path.exists():
            path.write_text(path.read_text().replace("http://127.0.0.1:9", store))
    assert "sent" in sync_search(scene.folder)
    runs = found(store)
    assert [run.info.status for run in (runs["search"][0], runs["trial-001"][0])] == ["FINISHED", "FINISHED"]
    assert runs["trial-001"][0].data.tags["mlflow.parentRunId"] == runs["search"][0].info.run_id
    assert runs["trial-001"][0].data.metrics["objective"] == 0.4
    assert runs["search"][0].data.tags["imagetune.best_trial"] == "001"
    assert "everything was there already" in sync_search(scene.folder)


def test_without_tracking_nothing_is_sent(scene, store):
    scene.open(enabled=False)
    scene.end(scene.start("001"), 0.4)
    assert scene.close() is None
    assert not found(store)
    assert not list(scene.folder.rglob("tracking.json"))


def test_a_trial_without_a_folder_is_no_run(scene, store):
    scene.open()
    trial = Trial("001", {RATE: 0.003})
    scene.copies.trial_ended(TrialResult(trial, "failed", None, 0.0, 0.0, error="recipe: no"), None)
    scene.copies.trial_started(trial, scene.task("002"))
    scene.copies.trial_ended(replace(TrialResult(trial, "failed", None, 0.0, 0.0), error="died"), scene.task("002"))
    assert scene.close() is None
    assert set(found(store)) == {"search"}
