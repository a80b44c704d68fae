"""Searches of every kind cut short at all moments and gone on with, and searches that begin with what others found."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import mlflow
import psutil
import pytest
from small_search import RATES, RECIPE

RANGE = "train.stages.0.learning_rate={search: log_uniform, low: 1e-5, high: 1e-1}"
MODELS = (
    "model={search: choice, values: [{backbone: mobilenet_v3_small, weights: random}, "
    "{backbone: efficientnet_lite0, weights: random}]}"
)
ONE = "objective: loss, parallel: 1"
KINDS = {
    "sweep": ("-o", RATES, "-o", f"search={{algorithm: sweep, repeats: 2, {ONE}}}"),
    "bakeoff": ("-o", MODELS, "-o", f"search={{algorithm: bakeoff, finalists: 1, repeats: 2, {ONE}}}"),
    "folds": ("-o", RANGE, "-o", f"search={{algorithm: random, trials: 2, folds: 3, finalists: 0, {ONE}}}"),
    "finalists": ("-o", RANGE, "-o", f"search={{algorithm: random, trials: 2, finalists: 2, repeats: 2, {ONE}}}"),
}
WAIT_SECONDS = 300


def begins(name):
    return lambda folder: (folder / "trials" / f"trial-{name}" / "status.json").exists()


def ends(count):
    return lambda folder: len(named("ended", folder)) >= count


def has(name):
    return lambda folder: (folder / name).exists()


def refit_finished(folder):
    return state_of(folder / "best") == "finished"


# When each kind is cut short, and how.
CUTS = {
    "sweep": [
        (signal.SIGINT, ends(1)),
        (signal.SIGKILL, begins("003")),
        (signal.SIGKILL, has("best/metrics.jsonl")),
        (signal.SIGKILL, refit_finished),
    ],
    "bakeoff": [
        (signal.SIGINT, begins("001")),
        (signal.SIGKILL, begins("002")),
        (signal.SIGKILL, lambda folder: any(folder.glob("trials/trial-00?-2/status.json"))),
        (signal.SIGKILL, has("bakeoff.csv")),
    ],
    "folds": [
        (signal.SIGKILL, has("trials/trial-001/folds/fold-2/status.json")),
        (signal.SIGINT, begins("002")),
    ],
    "finalists": [
        (signal.SIGINT, lambda folder: any(folder.glob("trials/trial-00?-2/status.json"))),
        (signal.SIGKILL, ends(3)),
        (signal.SIGKILL, has("best.yaml")),
    ],
}


def lines_of(folder):
    path = folder / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def named(event, folder):
    return [line["trial_id"] for line in lines_of(folder) if line["event"] == event]


def metrics_of(folder):
    with (folder / "search.csv").open(newline="") as file:
        return {
            row["trial"]: (row["error"] or row["status"], row["objective"], row["seed"]) for row in csv.DictReader(file)
        }


def state_of(folder):
    try:
        return json.loads((folder / "status.json").read_text())["state"]
    except (OSError, ValueError, KeyError):
        return None


def content_of(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "tracking" not in path.name]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def wait_until(condition, process):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def write_recipe(place, images, *, tracked=False):
    text = RECIPE.format(source=images, tracked=str(tracked).lower())
    (place / "colours.yaml").write_text(text, encoding="utf-8")


def cut_short(process, sent):
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(sent)
    out, err = process.communicate(timeout=WAIT_SECONDS)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive, "trials outlive their search"
    assert process.returncode == (-9 if sent == signal.SIGKILL else 128 + sent), err
    assert "Traceback" not in out + err


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_search_that_is_cut_short_ends_as_one_that_is_not(kind, start, workplace, images, imagetune):
    write_recipe(workplace, images)
    folder, command = workplace / "cut", ("search", "colours.yaml", *KINDS[kind], "--run-dir")
    whole = imagetune(*command, "whole")
    assert whole.code == 0, whole.err
    for number, (sent, moment) in enumerate(CUTS[kind]):
        process = start(*command, "cut", *(["--resume"] if number else []))
        wait_until(lambda moment=moment: moment(folder), process)
        cut_short(process, sent)
    stands = {name: content_of(folder / "trials" / f"trial-{name}") for name in named("ended", folder)}
    best = content_of(folder / "best" / "model") if refit_finished(folder) else None

    outcome = imagetune(*command, "cut", "--resume")
    assert outcome.code == 0, outcome.err
    # What had ended wasn't run again, and nothing is proposed twice.
    assert {name: content_of(folder / "trials" / f"trial-{name}") for name in stands} == stands
    assert best is None or content_of(folder / "best" / "model") == best
    for event in ("proposed", "ended"):
        assert named(event, folder) == named(event, workplace / "whole")
    assert metrics_of(folder) == metrics_of(workplace / "whole")
    for name in ("best.yaml", "best/recipe.yaml", "best/predictions/test.csv"):
        found, expected = ((place / name).read_text() for place in (folder, workplace / "whole"))
        assert found.replace(str(folder), "") == expected.replace(str(workplace / "whole"), "")
    assert (folder / "report.html").exists()
    assert (folder / "best" / "report.html").exists()
    assert state_of(folder) == "finished"


@pytest.fixture(scope="module")
def found(tmp_path_factory, images):
    """A finished search in a real store, made once by a process of its own: its working folder and command line."""
    place = tmp_path_factory.mktemp("found")
    write_recipe(place, shutil.copytree(images, place / "images"), tracked=True)
    command = ["search", "colours.yaml", "--run-dir", "search", "-o", RANGE]
    command += ["-o", f"search={{algorithm: random, trials: 2, finalists: 0, {ONE}}}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
    line = [sys.executable, "-m", "imagetune", *command]
    done = subprocess.run(line, cwd=place, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return place, command


@pytest.fixture
def again(found, workplace, imagetune):
    """A copy of the finished search in a working folder of its own, and its command line gone on with."""
    place, command = found
    shutil.copytree(place / "search", workplace / "search")
    shutil.copy(place / "colours.yaml", workplace)
    return lambda *more: imagetune(*command, "-o", "tracking.enabled=false", "--resume", *more)


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["report.html", "search.csv", "best.yaml", "best/report.html", "trials/trial-001"])
def test_what_can_be_made_again_is_and_no_trial_runs(again, workplace, lost):
    folder = workplace / "search"
    metrics, path = metrics_of(folder), folder / lost
    shutil.rmtree(path) if path.is_dir() else path.write_bytes(b"\0\xff") if lost == "search.csv" else path.unlink()
    before = content_of(folder / "trials")
    outcome = again()
    assert outcome.code == 0, outcome.err
    assert "nothing was left to do" in outcome.out
    assert content_of(folder / "trials") == before
    assert metrics_of(folder) == metrics
    assert path.exists() or lost.startswith("trials")
    assert not (folder / "best-1").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("search.json", '{"algor', "search.json: can't be read"),
        ("search.json", None, "there is no search to go on with"),
        ("journal.jsonl", None, "journal.jsonl: says nothing of trial-001, trial-002"),
        ("lock.json", None, "lock.json: No such file or directory; it records the images of the earlier session"),
    ],
)
def test_missing_or_corrupted_records_of_what_was_tried_are_refused(again, workplace, name, text, told):
    folder = workplace / "search"
    (folder / name).unlink() if text is None else (folder / name).write_text(text)
    before = content_of(folder / "trials")
    outcome = again()
    assert outcome.code == 6
    assert told in outcome.err
    assert outcome.err.count("error[") == 1
    assert content_of(folder / "trials") == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.stages.0.epochs=3", "the recipe changed since: train.stages[0].epochs was 2, now it is 3"),
        ("search.folds=3", "the search changed since: folds was None, now it is 3"),
        ("train.batch_size={search: choice, values: [8, 16]}", "the search changed since: train.batch_size"),
    ],
)
def test_another_training_is_another_search(again, workplace, override, told):
    before = content_of(workplace / "search")
    outcome = again("-o", override)
    assert outcome.code == 6
    assert told in outcome.err
    assert {path: seen for path, seen in content_of(workplace / "search").items() if "lock" not in path} == {
        path: seen for path, seen in before.items() if "lock" not in path
    }


@pytest.mark.slow
def test_images_may_move_between_sessions(again, found, workplace):
    place, _ = found
    moved = shutil.copytree(place / "images", workplace / "moved")
    for _session in range(2):
        outcome = again("-o", f"data.source={moved}")
        assert outcome.code == 0, outcome.err


def runs_of(place):
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{place / 'mlflow.db'}")
    return client.search_runs([client.get_experiment_by_name("colours").experiment_id])


@pytest.fixture
def warmed(found, workplace, imagetune):
    """Search with the store of the finished search at hand, beginning with what another one found."""
    place, command = found
    shutil.copy(place / "colours.yaml", workplace)
    store = f"tracking.uri=sqlite:///{place / 'mlflow.db'}"
    one = ("-o", "search.trials=3", "-o", "search.budget.trials=1", "-o", store)

    def warmed(source, *more):
        return imagetune(
            *command[:2], "--run-dir", "warmed", *command[4:], *one, "-o", f"search.warm_start={source}", *more
        )

    return warmed


def searched_run(place):
    (run,) = [run for run in runs_of(place) if run.info.run_name == "search"]
    return run.info.run_id


@pytest.mark.slow
def test_a_search_begins_with_what_one_in_mlflow_found(found, warmed, workplace, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(workplace / "cache"))
    place, _ = found
    earlier = {trial: float(objective) for trial, (_, objective, _) in metrics_of(place / "search").items()}
    source = f"runs:/{searched_run(place)}"
    outcome = warmed(source)
    assert outcome.code == 0, outcome.err
    assert f"warm start  2 of 2 settings of {source}" in outcome.err
    kept = json.loads((workplace / "warmed" / "warm_start.json").read_text())
    assert {each["source"].split()[-1]: each["objective"] for each in kept["known"]} == earlier
    # The best of them is trained again, so that it can win.
    assert [float(row[1]) for row in metrics_of(workplace / "warmed").values()] == [min(earlier.values())]

    # Gone on with, it needs neither the store's files nor the other folder.
    shutil.rmtree(workplace / "cache")
    again = warmed(source, "--resume", "-o", "tracking.enabled=false", "-o", "tracking.uri=http://127.0.0.1:9")
    assert again.code == 0, again.err
    other = warmed(str(place / "search"), "--resume", "-o", "tracking.enabled=false")
    assert other.code == 6
    assert "the search began with warm_start" in other.err


@pytest.mark.slow
def test_what_is_no_search_of_these_images_is_refused_before_anything_is_made(found, warmed, workplace, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(workplace / "cache"))
    place, _ = found
    names = {run.info.run_name: run.info.run_id for run in runs_of(place)}
    for source, told in (
        ("runs:/" + "0" * 32, "is not in MLflow"),
        ("runs:/what is this", "is no address of a run"),
        (f"runs:/{names['trial-001']}", f"runs:/{names['trial-001']}: is no search: it has no search.json"),
        (f"runs:/{names['best']}", "is no search"),
        ("nowhere", "is no search"),
    ):
        outcome = warmed(source)
        assert outcome.code != 0
        assert told in outcome.err
        assert outcome.err.count("error[") == 1
    own = searched_run(place)
    narrow = "train.stages.0.learning_rate={search: log_uniform, low: 0.5, high: 0.9}"
    outcome = warmed(f"runs:/{own}", "-o", narrow)
    assert outcome.code == 2
    assert "isn't among the values searched" in outcome.err

    # Other images under the same names.
    others = shutil.copytree(place / "images", workplace / "others")
    for path in sorted((others / "red").glob("*.png")):
        path.write_bytes(path.read_bytes() + b"\0")
    outcome = warmed(f"runs:/{own}", "-o", f"data.source={others}")
    assert outcome.code == 2
    assert "has other images or splits: 10 differ, such as red/red00.png" in outcome.err
    assert not (workplace / "warmed").exists()
