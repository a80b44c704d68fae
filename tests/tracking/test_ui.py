from __future__ import annotations

import signal
import socket
import sqlite3
import subprocess
import sys
import webbrowser

import psutil
import pytest
import requests
from mlflow import MlflowClient

from imagetune.errors import RecipeError, TrackingError
from imagetune.tracking import ui
from imagetune.tracking.sync import sync_run
from imagetune.tracking.ui import PAGE, build_server_command, build_server_environment, has_browser, run_ui


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_the_ui_serves_the_store_and_ends_cleanly(store, free_port, number):
    script = f"import sys; from imagetune.tracking.ui import run_ui; sys.exit(run_ui(None, port={free_port}))"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == f"MLflow's UI: http://127.0.0.1:{free_port}/{PAGE}\n"
        assert "MLflow" in requests.get(f"http://127.0.0.1:{free_port}/", timeout=20).text
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert process.wait(15) == 0
        assert not [child for child in started if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    finally:
        process.kill()


def test_the_ui_opens_with_the_test_metrics_of_the_newest_experiment(server, run_dir):
    sync_run(run_dir, uri=server.uri, experiment="newest")
    number = MlflowClient(server.uri).get_experiment_by_name("newest").experiment_id
    assert ui._find_page(server.uri) == (
        f"#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey=imagetune"
    )


def test_a_run_that_failed_later_does_not_hide_the_newest_one(server, run_dir):
    sync_run(run_dir, uri=server.uri, experiment="good")
    client = MlflowClient(server.uri)
    failed = client.create_experiment("failed", tags={ui.VIEW_TAG: "yes"})
    client.set_terminated(client.create_run(failed).info.run_id, "FAILED")
    # Made first and changed last: what counts is the newest run.
    client.set_experiment_tag(failed, "touched", "now")
    number = client.get_experiment_by_name("good").experiment_id
    assert ui._find_page(server.uri).startswith(f"#/experiments/{number}/runs?")


def test_no_store_yet_is_said(tmp_path):
    with pytest.raises(TrackingError, match=r"mlflow.db: there is no MLflow store here yet; `imagetune fit"):
        run_ui(None, port=1)
    assert not (tmp_path / "mlflow.db").exists()


def test_a_port_in_use_is_said(store):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(RecipeError, match=f"can't listen on 127.0.0.1:{port}: Address already in use"):
            run_ui(None, port=port)


def test_a_store_of_another_mlflow_is_said(store, free_port):
    with sqlite3.connect(store.removeprefix("sqlite:///")) as database:
        database.execute("update alembic_version set version_num = '451aebb31d03'")
    with pytest.raises(TrackingError, match=r"MLflow's server ended: .*out-of-date database schema.*mlflow db upgrade"):
        run_ui(None, port=free_port)


def test_a_server_shows_its_runs_itself(capsys):
    assert run_ui("http://ann:secret@host:5000") == 0
    assert capsys.readouterr().out == "The tracking server has its own UI: http://***@host:5000\n"


def test_a_password_is_not_on_the_command_line():
    uri = "postgresql://ann:secret@db/mlflow"
    assert build_server_environment(uri)["MLFLOW_BACKEND_STORE_URI"] == uri
    assert "secret" not in " ".join(build_server_command("127.0.0.1", 5000))


@pytest.mark.parametrize(
    ("browser", "opens"),
    [(webbrowser.BackgroundBrowser("firefox"), True), (webbrowser.GenericBrowser("lynx"), False)],
)
def test_only_a_browser_with_windows_is_opened(browser, opens, monkeypatch):
    monkeypatch.setattr(webbrowser, "get", lambda: browser)
    assert has_browser() is opens


def test_a_machine_without_a_browser_has_none(monkeypatch):
    def fail():
        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(webbrowser, "get", fail)
    assert not has_browser()
