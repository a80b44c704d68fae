"""`imagetune search` on a Ray cluster of three nodes, one of which is lost."""

import csv
import json
import signal
import time

import mlflow
import psutil
import pytest
from ray_clusters import remove_node, three_nodes

from imagetune.recipe.loading import load_recipe
from imagetune.search.executors.ray_cluster import AGAIN

RATE = ("-o", "train.stages.0.learning_rate={search: log_uniform, low: 1e-3, high: 1e-1}")
SECONDS = 400


@pytest.fixture(scope="module")
def cluster():
    with three_nodes() as started:
        yield started


@pytest.fixture(autouse=True)
def _quiet_machine(monkeypatch):
    """One thread a trial, here as there, so that both compute the same."""
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")


def on_ray(cluster, **search):
    ray = {"address": cluster.address, "cpus": 1}
    return (
        "-o",
        "search=" + json.dumps({"finalists": 0, "objective": "loss", **search, "executor": "ray", "ray": ray}),
    )


def rows(folder):
    with (folder / "search.csv").open(newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: row["trial"])


def states(workplace):
    """Return how the runs in MLflow ended."""
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{workplace / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("colours").experiment_id])
    return sorted(run.info.status for run in runs)


def eventually(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)


def training(folder, count=1):
    """Tell whether so many trials have trained an epoch."""
    return len(list(folder.glob("trials/trial-*/metrics.jsonl"))) >= count


@pytest.mark.slow
def test_a_search_that_loses_a_machine_ends_as_one_on_this_machine(real_recipe, workplace, start, cluster):
    settings = {"algorithm": "random", "trials": 4}
    found = workplace / "there"
    longer = ("-o", "train.stages.1.epochs=6")
    driver = start("search", real_recipe, "--run-dir", found, *RATE, *longer, *on_ray(cluster, **settings))
    eventually(lambda: training(found, 3) or driver.poll() is not None)
    remove_node(cluster, cluster.list_all_nodes()[-1].node_id)
    out, err = driver.communicate(timeout=SECONDS)
    assert driver.returncode == 0, err
    assert "raylet" not in out + err

    assert states(workplace) == ["FINISHED"] * 6 + ["KILLED"]  # the search, 4 trials, the best; the lost attempt

    alone = json.dumps({"finalists": 0, "objective": "loss", "parallel": 1, **settings})
    local = start("search", real_recipe, "--run-dir", "here", *RATE, *longer, "-o", f"search={alone}")
    _, err = local.communicate(timeout=SECONDS)
    assert local.returncode == 0, err
    name = "train.stages[0].learning_rate"
    lost = [(row["trial"], row["status"], row[name], float(row["objective"])) for row in rows(found)]
    kept = [(row["trial"], row["status"], row[name], float(row["objective"])) for row in rows(workplace / "here")]
    assert lost == kept
    assert all(row["place"] for row in rows(found))
    again = [log for log in found.glob("trials/*/trial.log") if AGAIN in log.read_text()]
    assert len(again) == 1
    there, here = (load_recipe(workplace / name / "best.yaml").recipe.train for name in ("there", "here"))
    assert there == here


@pytest.mark.slow
def test_hyperband_goes_on_from_checkpoints_of_other_machines(real_recipe, workplace, imagetune, cluster):
    settings = {"algorithm": "hyperband", "max_epochs": 2, "factor": 2}
    outcome = imagetune("search", real_recipe, "--run-dir", "found", *RATE, *on_ray(cluster, **settings))
    assert outcome.code == 0, outcome.err
    journal = [json.loads(line) for line in (workplace / "found" / "journal.jsonl").read_text().splitlines()]
    assert any(line.get("continues") for line in journal)
    assert {row["status"] for row in rows(workplace / "found")} <= {"completed", "repeated"}


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_running(real_recipe, workplace, start, cluster):
    found = workplace / "found"
    longer = ("-o", "train.stages.1.epochs=500")
    driver = start("search", real_recipe, "--run-dir", found, *RATE, *longer, *on_ray(cluster, algorithm="random"))
    eventually(lambda: training(found) or driver.poll() is not None)
    pids = [json.loads(path.read_text())["pid"] for path in found.glob("trials/*/status.json")]
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 130, err
    assert "stopped by SIGINT" in err
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_a_cluster_that_cannot_be_reached_is_reported_before_any_work(recipe, workplace, imagetune):
    search = json.dumps({"executor": "ray", "ray": {"address": "127.0.0.1:1"}})
    outcome = imagetune("search", recipe, *RATE, "-o", f"search={search}")
    assert outcome.code == 5
    assert outcome.err.startswith("error[resources] 127.0.0.1:1: no Ray cluster answers")
    assert not (workplace / "runs").exists()
