"""Faults of tracking (rows 39 to 43): training ends with 0, and unsent records wait in the run folder."""

import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import mlflow
import pytest
from rude_servers import serve

from imagetune.core.files import read_json_lines, read_json_or_empty
from tests.faults.commands import QUICK_TEST

SECRET = "hunter2-secret"


def list_steps(store, run) -> list[int]:
    run_id = read_json_or_empty(run / "tracking.json")["run_id"]
    return [metric.step for metric in mlflow.MlflowClient(store).get_metric_history(run_id, "val/loss")]


def assert_sync_sends_the_rest_once(imagetune, run, store) -> None:
    first = imagetune("sync", run)
    assert first.code == 0, first.err
    assert ": sent " in first.out
    assert "everything was there already" in imagetune("sync", run).out
    assert list_steps(store, run) == [line["epoch"] for line in read_json_lines(run / "metrics.jsonl")]


def test_row_39_43_a_refused_server_is_said_and_its_password_is_nowhere(
    recipe, workplace, imagetune, empty_store, monkeypatch
):
    uri = f"tracking.uri=http://ann:{SECRET}@127.0.0.1:9"
    outcome = imagetune("fit", recipe, "--run-dir", "run", *QUICK_TEST, "-o", uri)
    assert outcome.code == 0, outcome.err
    assert "refused the connection" in outcome.err
    assert "to send them later: imagetune sync" in outcome.err
    assert SECRET not in outcome.out + outcome.err
    files = [path for path in workplace.rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    # The records have waited: another store gets all of them.
    store = f"sqlite:///{workplace / 'mlflow.db'}"
    tracking = read_json_or_empty(workplace / "run/tracking.json")
    assert tracking["lines_sent"] == 0
    (workplace / "run/tracking.json").unlink()
    text = (workplace / "run/recipe.yaml").read_text()
    (workplace / "run/recipe.yaml").write_text(text.replace(tracking["uri"], store))
    assert_sync_sends_the_rest_once(imagetune, workplace / "run", store)


@pytest.mark.parametrize("server", ["refused", "silent"])
def test_row_39_a_required_server_ends_the_run_within_15_seconds_and_before_training(
    recipe, workplace, imagetune, server
):
    with serve(lambda *_: time.sleep(20), healthy=False) as silent:
        uri = {"refused": "http://127.0.0.1:9", "silent": silent}[server]
        began = time.monotonic()
        outcome = imagetune("fit", recipe, "--run-dir", "run", "-o", f"tracking={{uri: '{uri}', required: true}}")
        assert time.monotonic() - began < 15
    assert outcome.code == 7
    assert "tracking is required" in outcome.err
    assert not (workplace / "run").exists()


def test_row_41_a_locked_sqlite_holds_nothing_up_and_loses_nothing(recipe, workplace, commands, imagetune):
    run, store = workplace / "run", workplace / "mlflow.db"
    with closing(sqlite3.connect(store, isolation_level=None)) as database:
        database.execute("begin exclusive")
        ended = commands.run("fit", "colours.yaml", "--run-dir", "run", *QUICK_TEST)
        late = time.time() - (run / "report.html").stat().st_mtime
        database.execute("rollback")
    assert ended.code == 0, ended.err[-2000:]
    assert late < 10
    assert "were not sent" in ended.err
    assert_sync_sends_the_rest_once(imagetune, run, f"sqlite:///{store}")


@pytest.mark.slow
def test_row_42_four_first_starts_on_one_sqlite_are_four_complete_runs(fitted, workplace):
    runs = [shutil.copytree(fitted[1], workplace / f"run{number}") for number in range(4)]
    for run in runs:
        (run / "tracking.json").unlink()
    command = [sys.executable, "-m", "imagetune", "sync"]
    starts = [subprocess.Popen([*command, str(run)], cwd=workplace) for run in runs]
    assert [process.wait(240) for process in starts] == [0] * 4
    store = f"sqlite:///{workplace / 'mlflow.db'}"
    assert [list_steps(store, run) for run in runs] == [[1, 2]] * 4
    client = mlflow.MlflowClient(store)
    ids = {read_json_or_empty(run / "tracking.json")["run_id"] for run in runs}
    assert {client.get_run(run_id).info.status for run_id in ids} == {"FINISHED"}
    assert len(ids) == 4
