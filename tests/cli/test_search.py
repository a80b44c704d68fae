"""`imagetune search` as a user meets it: what it refuses, what it finds, and what it survives."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import psutil
import pytest

from imagetune.recipe.loading import load_recipe

RATES = "train.stages.0.learning_rate={search: log_uniform, low: 1e-4, high: 1e-1}"
SMALL = ("-o", RATES, "-o", "train.stages=linear_probe", "-o", "train.epochs=1")
SPACES = (
    *("-o", RATES),
    *("-o", "data.augmentation={search: choice, values: [none, light]}"),
)
RECIPE = """\
name: colours
seed: 3
data: {{source: {source}, image_size: 32, workers: 0}}
model: {{backbone: efficientnet_lite0, weights: random}}
train:
  batch_size: 16
  stages:
    - {{name: head, unfreeze: none, epochs: 2, learning_rate: {{search: log_uniform, low: 1e-4, high: 1e-1}}}}
    - {{name: top, unfreeze: last 1 blocks, epochs: 1, learning_rate: 1e-3}}
evaluate: {{bootstrap_samples: 100}}
search: {{algorithm: random, trials: 2, finalists: 1, repeats: 2, parallel: 1}}
"""
WAIT_SECONDS = 300


def events(folder):
    path = folder / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def ended(folder):
    return [event["trial_id"] for event in events(folder) if event["event"] == "ended"]


def rows_of(folder):
    with (folder / "search.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def runs_of(store):
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{store}")
    return client.search_runs([client.get_experiment_by_name("colours").experiment_id])


def wait_until(condition, process, seconds=WAIT_SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def state_of(folder):
    try:
        return json.loads((folder / "status.json").read_text())
    except (OSError, ValueError):
        return {}


def content_of(folder):
    """Return content and time of every file of a folder, but those that the copy to MLflow keeps."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "tracking" not in path.name]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def test_a_recipe_without_spaces_has_nothing_to_search(recipe, workplace, imagetune):
    outcome = imagetune("search", recipe)
    assert outcome.code == 2
    assert "has nothing to search" in outcome.err
    assert not (workplace / "runs").exists()


def test_what_trials_are_compared_by_cannot_be_searched(recipe, imagetune):
    outcome = imagetune("search", recipe, "-o", "data.split.val={search: uniform, low: 0.1, high: 0.3}")
    assert outcome.code == 2
    assert "can't be searched" in outcome.err


def test_resuming_needs_the_folder_of_a_search(recipe, workplace, imagetune):
    outcome = imagetune("search", recipe, *SPACES, "--resume")
    assert outcome.code == 6
    assert "--run-dir" in outcome.err
    outcome = imagetune("search", recipe, *SPACES, "--resume", "--run-dir", "nowhere")
    assert outcome.code == 6
    assert "no search to go on with" in outcome.err
    assert not (workplace / "nowhere").exists()


def test_resuming_names_the_latest_search(recipe, workplace, imagetune):
    for number, name in enumerate(("older", "latest", "no-search")):
        folder = workplace / "runs" / name
        folder.mkdir(parents=True)
        if name != "no-search":
            (folder / "search.json").write_text("{}")
            os.utime(folder / "search.json", (number, number))
    outcome = imagetune("search", recipe, *SPACES, "--resume")
    assert outcome.code == 6
    assert "--run-dir runs/latest --resume" in outcome.err


@pytest.fixture(scope="module")
def found(tmp_path_factory, images):
    """A finished search, made once by a process of its own: its working folder and what was printed."""
    place = tmp_path_factory.mktemp("found")
    own = shutil.copytree(images, place / "images")
    (place / "colours.yaml").write_text(RECIPE.format(source=own), encoding="utf-8")
    # The second trial diverges.
    rates = "train.stages.0.learning_rate={search: choice, values: [1e-2, 1e9]}"
    command = [sys.executable, "-m", "imagetune", "search", "colours.yaml", "--run-dir", "search", "-o", rates]
    command += ["-o", "search.algorithm=grid", "-o", "train.optimizer.name=sgd", "-o", "train.stages.0.epochs=12"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return place, command[3:], done


@pytest.fixture
def again(found, tmp_path, monkeypatch, imagetune):
    """A copy of the finished search in a working folder of its own, and its command line gone on with."""
    place, command, _ = found
    shutil.copytree(place / "search", tmp_path / "search")
    text = (place / "colours.yaml").read_text()
    (tmp_path / "colours.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    offline = ("-o", "tracking.enabled=false")
    return lambda *more: imagetune(*command, *offline, "--resume", *more)


@pytest.mark.slow
def test_the_best_of_the_trials_is_refitted_and_tested_once(found):
    place, _, done = found
    folder = place / "search"
    rows = rows_of(folder)
    assert {row["trial"]: row["status"] for row in rows} == {
        "001": "completed",
        "002": "failed",
        "001-2": "completed",
    }
    assert "the loss is" in rows[1]["error"]
    best = load_recipe(folder / "best.yaml").recipe
    assert best.train.stages[0].learning_rate == 1e-2
    assert best == load_recipe(folder / "best" / "recipe.yaml").recipe
    mean = sum(float(row["objective"]) for row in rows if row["objective"]) / 2
    assert f"f1 {mean:.4f} on validation, the mean over 2 seeds" in (folder / "best.yaml").read_text()
    assert not list((folder / "trials").rglob("test.csv"))
    assert (folder / "best" / "predictions" / "test.csv").exists()
    assert "winner      trial 001" in done.stdout
    assert re.search(r"failed      002: diverged: .*the loss is", done.stdout)
    assert "best recipe" in done.stdout


@pytest.mark.slow
def test_a_search_is_verified_with_its_trials_and_its_winner(again, imagetune, tmp_path):
    told = imagetune("verify", "search", "--json")
    assert told.code == 0, told.out + told.err
    assert told.json()["verified"]["predictions"] > 0
    for name in ("journal.jsonl", "trials/trial-001/metrics.jsonl", "best/evaluation.json"):
        before = (tmp_path / "search" / name).read_bytes()
        (tmp_path / "search" / name).write_bytes(before + b" ")
        told = imagetune("verify", "search")
        assert told.code == 9
        assert name in told.err
        (tmp_path / "search" / name).write_bytes(before)


@pytest.mark.slow
def test_the_store_has_the_search_its_trials_and_its_best_run(found):
    place, _, _ = found
    runs = {run.info.run_name: run for run in runs_of(place / "mlflow.db")}
    assert {name: run.info.status for name, run in runs.items()} == {
        "search": "FINISHED",
        "trial-001": "FINISHED",
        "trial-002": "FAILED",
        "trial-001-2": "FINISHED",
        "best": "FINISHED",
    }
    parent = runs.pop("search")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert parent.data.tags["imagetune.best_trial"] == "001"
    assert parent.data.metrics["objective"] > 0
    assert "test/accuracy" in runs["best"].data.metrics
    assert not any(name.startswith("test") for name in runs["trial-001"].data.metrics)
    assert "the loss is" in runs["trial-002"].data.tags["mlflow.note.content"]


@pytest.mark.slow
def test_a_finished_search_has_nothing_left_to_do(again, tmp_path):
    before = {name: content_of(tmp_path / "search" / name) for name in ("trials", "best")}
    outcome = again()
    assert outcome.code == 0, outcome.err
    assert "nothing was left to do" in outcome.out
    assert {name: content_of(tmp_path / "search" / name) for name in before} == before


@pytest.mark.slow
def test_a_search_without_resume_does_not_touch_a_finished_one(found, again, imagetune):
    _, command, _ = found
    outcome = imagetune(*command)
    assert outcome.code == 6
    assert "the folder holds a run that is finished" in outcome.err


@pytest.mark.slow
def test_another_space_is_another_search(again, tmp_path):
    outcome = again("-o", "train.stages.0.learning_rate={search: choice, values: [1e-2, 1e-3]}")
    assert outcome.code == 6
    assert "train.stages[0].learning_rate" in outcome.err
    assert state_of(tmp_path / "search")["state"] == "finished"


@pytest.mark.slow
def test_other_images_are_another_search(again, found, tmp_path):
    place, _, _ = found
    first, second, *_ = sorted((place / "images" / "red").glob("*.png"))
    kept = first.read_bytes()
    try:
        first.write_bytes(second.read_bytes()[:-1] + b"\0" if len(kept) == 0 else _repainted(first))
        outcome = again()
    finally:
        first.write_bytes(kept)
    assert outcome.code == 6
    assert "the images changed since" in outcome.err
    assert "red/red00.png" in outcome.err


def _repainted(path):
    import cv2

    image = cv2.imread(str(path))
    image[:8, :8] = 0
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.mark.slow
def test_a_corrupted_line_of_the_journal_is_named(again, tmp_path):
    path = tmp_path / "search" / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1][:20] + "\n", *lines[2:]]))
    outcome = again()
    assert outcome.code == 6
    assert "journal.jsonl:2" in outcome.err


@pytest.mark.slow
def test_a_journal_whose_last_line_was_cut_short_goes_on(again, tmp_path):
    folder = tmp_path / "search"
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"event": "propo')
    outcome = again()
    assert outcome.code == 0, outcome.err
    assert "propo{" not in (folder / "journal.jsonl").read_text()
    assert ended(folder) == ["001", "002", "001-2"]


@pytest.mark.slow
def test_two_searches_do_not_share_a_folder(again, tmp_path):
    code = (
        "import pathlib, sys, time\n"
        "from imagetune.run_folder.folder import RunFolder\n"
        "from imagetune.search.resume import only_search\n"
        "folder = pathlib.Path('search').absolute()\n"
        "with only_search(folder):\n"
        "    RunFolder(folder).write_status('running')\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    outcome = again()
    assert outcome.code == 6
    assert f"process {holder.pid} is searching here" in outcome.err
    holder.kill()
    holder.communicate()
    assert again().code == 0


@pytest.mark.slow
def test_when_every_trial_fails_there_is_no_best(workplace, images, imagetune):
    (workplace / "colours.yaml").write_text(RECIPE.format(source=images), encoding="utf-8")
    rates = "train.stages.0.learning_rate={search: choice, values: [1e8, 1e9]}"
    steps = ("-o", "train.optimizer.name=sgd", "-o", "train.stages.0.epochs=12", "-o", "search.algorithm=grid")
    outcome = imagetune("search", "colours.yaml", "--run-dir", "search", "-o", rates, *steps)
    assert outcome.code == 8
    assert "all 2 trials failed" in outcome.err
    assert "diverged" in outcome.err
    assert not list((workplace / "search").glob("best*"))
    assert [row["status"] for row in rows_of(workplace / "search")] == ["failed", "failed"]
    states = {run.info.run_name: run.info.status for run in runs_of(workplace / "mlflow.db")}
    assert states == {"search": "FAILED", "trial-001": "FAILED", "trial-002": "FAILED"}


@pytest.mark.slow
def test_a_search_survives_ctrl_c_and_sigkill(start, workplace, images):
    """Ctrl-C in the first trial, SIGKILL in the second, SIGKILL in the refit: nothing that ended runs again."""
    (workplace / "colours.yaml").write_text(RECIPE.format(source=images), encoding="utf-8")
    folder = workplace / "search"
    command = ("search", "colours.yaml", "--run-dir", "search", "-o", "train.stages.0.epochs=6")
    first = folder / "trials" / "trial-001"

    process = start(*command)
    wait_until((first / "metrics.jsonl").exists, process)
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert time.monotonic() - asked < 60
    assert "stopped by SIGINT" in err
    assert not ended(folder)
    assert state_of(folder)["state"] == "killed"
    assert state_of(first)["state"] == "killed"

    process = start(*command, "--resume")
    second = folder / "trials" / "trial-002"
    wait_until((second / "metrics.jsonl").exists, process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive, "trials outlive their search"
    assert ended(folder) == ["001"]
    stands = content_of(first)

    process = start(*command, "--resume")
    best = folder / "best"
    wait_until((best / "metrics.jsonl").exists, process)
    process.kill()
    process.communicate()
    assert ended(folder)[:2] == ["001", "002"]
    assert len(ended(folder)) == 3
    assert content_of(first) == stands
    trials = content_of(folder / "trials")

    process = start(*command, "--resume")
    out, err = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, err
    assert content_of(folder / "trials") == trials
    assert state_of(best)["state"] == "finished"
    assert "winner      trial" in out

    states = sorted((run.info.run_name, run.info.status) for run in runs_of(workplace / "mlflow.db"))
    own = [status for name, status in states if name == "trial-001"]
    assert own == ["FINISHED", "KILLED"]
    assert [status for name, status in states if name == "trial-002"] == ["FINISHED", "KILLED"]
    assert [status for name, status in states if name == "search"] == ["FINISHED"]


@pytest.mark.slow
def test_a_finished_search_goes_on_when_more_trials_are_asked_for(start, workplace, images, imagetune):
    (workplace / "colours.yaml").write_text(RECIPE.format(source=images), encoding="utf-8")
    folder = workplace / "search"
    command = ("search", "colours.yaml", "--run-dir", "search", "-o", "tracking.enabled=false")
    command += ("-o", "search.finalists=0", "-o", "search.refit=train_and_val")
    outcome = imagetune(*command)
    assert outcome.code == 0, outcome.err
    best = load_recipe(folder / "best.yaml").recipe
    assert best.data.split.val == 0
    assert not (folder / "best" / "predictions" / "val.csv").exists()
    evaluation = json.loads((folder / "best" / "evaluation.json").read_text())
    assert set(evaluation["splits"]) == {"train", "test"}

    # best.yaml alone repeats the training and the test.
    repeated = imagetune("fit", folder / "best.yaml", "--run-dir", "repeated")
    assert repeated.code == 0, repeated.err
    assert (Path("repeated") / "predictions" / "test.csv").read_bytes() == (
        folder / "best" / "predictions" / "test.csv"
    ).read_bytes()

    stands = content_of(folder / "trials")
    outcome = imagetune(*command, "--resume", "-o", "search.trials=3")
    assert outcome.code == 0, outcome.err
    assert ended(folder) == ["001", "002", "003"]
    assert stands.items() <= content_of(folder / "trials").items()
    assert len(list(folder.glob("best*/report.html"))) in (1, 2)
