from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tracking_helpers import Server, add_epoch, end_run, start_run, wait_until

from imagetune.errors import TrackingError
from imagetune.recipe.sections.tracking import TrackingConfig
from imagetune.tracking.state import read_state
from imagetune.tracking.sync import sync_run
from imagetune.tracking.tracker import start_tracking

SECRET = "hunter2-secret"


def train(run_dir: Path, tracker, epochs: int = 3) -> None:
    """Write a run as `fit` does, poking after each epoch."""
    for epoch in range(1, epochs + 1):
        add_epoch(run_dir, epoch)
        tracker.poke()
    end_run(run_dir)


def steps_in(store: str, run_dir: Path) -> list[int]:
    return [metric.step for metric in MlflowClient(store).get_metric_history(read_state(run_dir).run_id, "val/loss")]


def test_a_tracked_run_is_complete_when_it_ends(store, tmp_path):
    run_dir = start_run(tmp_path / "run")
    tracker = start_tracking(run_dir, TrackingConfig(), recipe_name="clipart", parent_run_id="abc123")
    wait_until(lambda: tracker.run_id)
    train(run_dir, tracker)
    assert tracker.finish() is None
    run = MlflowClient(store).get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == "abc123"
    assert steps_in(store, run_dir) == [1, 2, 3]
    assert run.data.metrics["system/process_memory_usage_megabytes"] > 10
    assert sync_run(run_dir).sent == 0


def test_starting_and_poking_take_no_time(store, tmp_path):
    run_dir = start_run(tmp_path / "run")
    started = time.monotonic()
    tracker = start_tracking(run_dir, TrackingConfig(), recipe_name="clipart")
    add_epoch(run_dir, 1)
    tracker.poke()
    assert time.monotonic() - started < 0.1
    assert tracker.finish() is None


def test_tracking_that_is_off_does_nothing(tmp_path):
    run_dir = start_run(tmp_path / "run")
    tracker = start_tracking(run_dir, TrackingConfig(enabled=False), recipe_name="clipart")
    train(run_dir, tracker)
    assert tracker.finish() is None
    assert not (run_dir / "tracking.json").exists()
    assert not (tmp_path / "mlflow.db").exists()


def test_a_refused_server_is_said_once_and_the_records_wait(tmp_path, free_port):
    run_dir, said = start_run(tmp_path / "run"), []
    config = TrackingConfig(uri=f"http://127.0.0.1:{free_port}")
    tracker = start_tracking(run_dir, config, recipe_name="clipart", warn=said.append)
    train(run_dir, tracker)
    started = time.monotonic()
    message = tracker.finish()
    assert time.monotonic() - started < 10
    assert "refused the connection" in message
    assert "14 records were not sent" in message
    assert message.endswith(f"to send them later: imagetune sync {run_dir}")
    assert len(said) == 1
    assert "training goes on, the records wait in the run folder" in said[0]
    assert len(read_state(run_dir).line_times) == 3


def test_required_tracking_fails_at_once_when_refused(tmp_path, free_port):
    config = TrackingConfig(uri=f"http://ann:{SECRET}@127.0.0.1:{free_port}", required=True)
    with pytest.raises(TrackingError, match="tracking is required, but: the MLflow server refused") as caught:
        start_tracking(start_run(tmp_path / "run"), config, recipe_name="clipart")
    assert caught.value.exit_code == 7
    assert SECRET not in str(caught.value)


def test_required_tracking_fails_within_15_seconds_when_there_is_no_answer(tmp_path, silent_server):
    started = time.monotonic()
    with pytest.raises(TrackingError, match="tracking is required, but"):
        start_tracking(
            start_run(tmp_path / "run"), TrackingConfig(uri=silent_server, required=True), recipe_name="clipart"
        )
    assert time.monotonic() - started < 15


def test_required_tracking_starts_with_the_run_in_place(store, tmp_path):
    tracker = start_tracking(start_run(tmp_path / "run"), TrackingConfig(required=True), recipe_name="clipart")
    assert MlflowClient(store).get_run(tracker.run_id).info.status == "RUNNING"
    assert tracker.finish() is None


def test_a_search_gets_the_run_that_its_trials_belong_to(store, tmp_path, free_port):
    tracker = start_tracking(start_run(tmp_path / "search"), TrackingConfig(), recipe_name="clipart")
    assert MlflowClient(store).get_run(tracker.wait_for_run()).info.run_name == "search"
    assert tracker.finish() is None
    config = TrackingConfig(uri=f"http://127.0.0.1:{free_port}")
    assert start_tracking(start_run(tmp_path / "other"), config, recipe_name="clipart").wait_for_run() is None


def test_what_is_wrong_before_the_start_stops_only_a_recipe_that_requires_tracking(tmp_path):
    run_dir, said = start_run(tmp_path / "run"), []
    config = TrackingConfig(uri="http://***@host")
    assert start_tracking(run_dir, config, recipe_name="clipart", warn=said.append).finish() is None
    assert "the password of this address is not kept in files" in said[0]
    with pytest.raises(TrackingError, match="the password of this address"):
        start_tracking(run_dir, TrackingConfig(uri="http://***@host", required=True), recipe_name="clipart")


def test_a_locked_database_loses_nothing(store, tmp_path):
    run_dir = start_run(tmp_path / "run")
    tracker = start_tracking(run_dir, TrackingConfig(), recipe_name="clipart")
    wait_until(lambda: "status" in tracker.sent)
    with sqlite3.connect(store.removeprefix("sqlite:///"), isolation_level=None) as database:
        database.execute("begin exclusive")
        train(run_dir, tracker)
        started = time.monotonic()
        message = tracker.finish(1.0)
        assert time.monotonic() - started < 4
        assert "imagetune sync" in message
        database.execute("rollback")
    wait_until(lambda: tracker._thread is None or not tracker._thread.is_alive(), 40)
    sync_run(run_dir)
    assert steps_in(store, run_dir) == [1, 2, 3]
    assert MlflowClient(store).get_run(tracker.run_id).info.status == "FINISHED"


def test_a_server_gets_a_run_with_its_artifacts(server: Server, tmp_path):
    run_dir = start_run(tmp_path / "run")
    tracker = start_tracking(run_dir, TrackingConfig(uri=server.uri), recipe_name="over-http")
    train(run_dir, tracker)
    assert tracker.finish() is None
    client = MlflowClient(server.uri)
    assert steps_in(server.uri, run_dir) == [1, 2, 3]
    assert client.get_run(tracker.run_id).info.status == "FINISHED"
    assert "report.html" in [item.path for item in client.list_artifacts(tracker.run_id)]
    page = sync_run(run_dir).page
    assert page.startswith(f"{server.uri}/#/experiments/")


def test_a_server_that_freezes_mid_run_holds_nothing_up_and_gets_the_rest_later(server: Server, tmp_path):
    """The whole process must end: MLflow's threads and exit handlers must not wait for the server either."""
    run_dir = start_run(tmp_path / "run")
    script = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from tracking_helpers import add_epoch, end_run, wait_until
from imagetune.recipe.sections.tracking import TrackingConfig
from imagetune.tracking.tracker import start_tracking
run_dir = Path({str(run_dir)!r})
tracker = start_tracking(run_dir, TrackingConfig(uri={server.uri!r}), recipe_name="frozen")
add_epoch(run_dir, 1)
tracker.poke()
wait_until(lambda: "status" in tracker.sent)
print("sent", flush=True)
sys.stdin.readline()
add_epoch(run_dir, 2)
tracker.poke()
end_run(run_dir)
print(time.time(), tracker.finish(3.0), flush=True)
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", script], text=True, **pipes)
    try:
        assert process.stdout.readline() == "sent\n"
        server.signal(signal.SIGSTOP)
        process.stdin.write("go\n")
        process.stdin.flush()
        line = process.stdout.readline()
        process.wait(10)
        ended = time.time()
    finally:
        server.signal(signal.SIGCONT)
        process.kill()
    assert process.returncode == 0
    assert ended - float(line.split()[0]) < 10
    assert "records were not sent" in line
    assert sync_run(run_dir).sent > 0
    assert steps_in(server.uri, run_dir) == [1, 2]
    assert sync_run(run_dir).sent == 0


def test_a_password_in_the_address_is_nowhere(server: Server, tmp_path, caplog, capfd):
    caplog.set_level("DEBUG")
    uri = f"http://ann:{SECRET}@127.0.0.1:{server.port}"
    run_dir = start_run(tmp_path / "run")
    tracker = start_tracking(run_dir, TrackingConfig(uri=uri), recipe_name="secret")
    train(run_dir, tracker)
    assert tracker.finish() is None
    refused = start_tracking(
        start_run(tmp_path / "other"), TrackingConfig(uri=uri.replace(str(server.port), "1")), recipe_name="secret"
    )
    message = refused.finish()
    files = [path for folder in (tmp_path, server.folder) for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert SECRET not in message + caplog.text + "".join(capfd.readouterr())
    assert read_state(run_dir).uri == f"http://***@127.0.0.1:{server.port}"


@pytest.mark.slow
def test_four_first_starts_on_one_database_are_four_complete_runs(tmp_path):
    script = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from tracking_helpers import add_epoch, end_run, start_run
from imagetune.recipe.sections.tracking import TrackingConfig
from imagetune.tracking.tracker import start_tracking
run_dir = start_run(Path(sys.argv[1]))
tracker = start_tracking(run_dir, TrackingConfig(uri="sqlite:///mlflow.db"), recipe_name="clipart")
for epoch in (1, 2, 3):
    add_epoch(run_dir, epoch)
    tracker.poke()
end_run(run_dir)
sys.exit(tracker.finish())
"""
    here = str(Path(__file__).parent)
    folders = [tmp_path / f"run{number}" for number in range(4)]
    starts = [subprocess.Popen([sys.executable, "-c", script, str(folder), here]) for folder in folders]
    assert [process.wait(120) for process in starts] == [0, 0, 0, 0]
    store = f"sqlite:///{tmp_path}/mlflow.db"
    for folder in folders:
        assert steps_in(store, folder) == [1, 2, 3]
        assert MlflowClient(store).get_run(read_state(folder).run_id).info.status == "FINISHED"
        assert sync_run(folder).sent == 0


def test_two_processes_do_not_copy_one_run_at_once(store, run_dir, monkeypatch):
    from imagetune.tracking import sync

    monkeypatch.setattr(sync, "_BUSY_SECONDS", 0.3)
    script = "import sys, time; from pathlib import Path; from imagetune.tracking.sync import run_lock\n"
    script += "with run_lock(Path(sys.argv[1]), wait_seconds=1): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", script, str(run_dir)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TrackingError, match="another process is copying this run to MLflow"):
            sync_run(run_dir)
    finally:
        holder.kill()
        holder.wait()
    assert sync_run(run_dir).sent > 0


def test_importing_tracking_is_light():
    modules = ", ".join(f"imagetune.tracking.{name}" for name in ("tracker", "resolve", "ui", "tensorboard"))
    heavy = ("mlflow", "keras", "tensorflow", "pandas", "tensorboard")
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
