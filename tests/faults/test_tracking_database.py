"""A real MLflow server on a real PostgreSQL that stops, stalls and starts again while a run is recorded there."""

import json
import shutil
import time
from collections.abc import Iterator

import pytest
from postgres import Postgres, needs_postgres
from tracking_helpers import Server, find_port, wait_until

from imagetune.core.files import read_json_lines, read_json_or_empty
from tests.faults.commands import QUICK_TEST

pytestmark = needs_postgres

# Hundreds of short epochs: long enough for a database to go and to come back.
LONG = ("train.stages=full", "train.epochs=200", "train.batch_size=32", "data.augmentation=none")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    database = Postgres()
    database.start()
    yield database
    database.remove()


@pytest.fixture(scope="module")
def server(postgres, tmp_path_factory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("mlflow"), find_port(), postgres.uri)
    running.start()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def awake(postgres):
    """Each test finds the database answering."""
    yield
    postgres.wake()
    if postgres.process is None:
        postgres.start()


def count_sent(run) -> int:
    return int(read_json_or_empty(run / "tracking.json").get("lines_sent", 0))


def assert_each_epoch_is_there_once_and_in_order(postgres, run) -> None:
    """Compare the table of metrics with metrics.jsonl; what the database has twice, or in another order, differs."""
    run_id = json.loads((run / "tracking.json").read_text())["run_id"]
    rows = postgres.query(
        f"select value, step, timestamp from metrics where run_uuid = '{run_id}' and key = 'train/loss' order by step"
    )
    lines = read_json_lines(run / "metrics.jsonl")
    assert [(value, step) for value, step, _ in rows] == [(line["train"]["loss"], line["epoch"]) for line in lines]
    times = [when for _, _, when in rows]
    assert times == sorted(times)


def assert_sync_sends_the_rest_once(commands, postgres, run, uri) -> None:
    first = commands.run("sync", run, environment=name_store(uri))
    assert first.code == 0, first.err
    assert "sent " in first.out
    rows = postgres.count_rows()
    again = commands.run("sync", run, environment=name_store(uri))
    assert "everything was there already" in again.out
    assert postgres.count_rows() == rows


def name_store(uri: str) -> dict[str, str]:
    return {"MLFLOW_TRACKING_URI": uri}


def begin_fit(commands, uri):
    # One experiment a store: a server's artifacts lie where only it can put them.
    experiment = f"tracking.experiment={uri.partition(':')[0]}"
    overrides = [word for override in (*LONG, experiment) for word in ("-o", override)]
    return commands.begin(
        "fit", "colours.yaml", "--run-dir", "run", *QUICK_TEST, *overrides, environment=name_store(uri)
    )


def assert_ended_in_time(ended, run) -> None:
    # The report is the last file that a run writes.
    late = time.time() - (run / "report.html").stat().st_mtime
    assert ended.code == 0, ended.err[-2000:]
    assert late < 10
    assert "were not sent" in ended.err
    assert json.loads((run / "status.json").read_text())["state"] == "finished"


def stop_start_and_stall(commands, postgres, run, uri) -> None:
    """Fit while the database stops, starts again, and stalls at last; then send the rest."""
    began = begin_fit(commands, uri)
    wait_until(lambda: count_sent(run) >= 3 or not began.running)
    postgres.stop()
    missed = count_sent(run) + 20
    began.await_file(run / "metrics.jsonl", missed)
    postgres.start()
    wait_until(lambda: count_sent(run) >= missed or not began.running)
    assert began.running
    postgres.stall()
    assert_ended_in_time(began.wait(), run)
    postgres.wake()
    assert_sync_sends_the_rest_once(commands, postgres, run, uri)
    assert_each_epoch_is_there_once_and_in_order(postgres, run)


def test_row_40_a_database_that_stops_starts_and_stalls_mid_run_gets_every_record_once(
    commands, postgres, server, workplace
):
    stop_start_and_stall(commands, postgres, workplace / "run", server.uri)


@pytest.mark.slow
def test_row_40_a_database_without_a_server_gets_every_record_once(commands, postgres, server, workplace):
    stop_start_and_stall(commands, postgres, workplace / "run", postgres.uri)


@pytest.mark.slow
def test_row_40_a_server_that_stops_and_starts_mid_run_gets_every_record_once(commands, postgres, server, workplace):
    run = workplace / "run"
    began = begin_fit(commands, server.uri)
    wait_until(lambda: count_sent(run) >= 3 or not began.running)
    server.stop()
    try:
        assert_ended_in_time(began.wait(), run)
    finally:
        server.start()
    assert_sync_sends_the_rest_once(commands, postgres, run, server.uri)
    assert_each_epoch_is_there_once_and_in_order(postgres, run)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["server", "database"])
def test_row_40_sync_gives_up_on_a_database_that_stalls(commands, postgres, server, workplace, fitted, place):
    shutil.copytree(fitted[1], workplace / "run")
    (workplace / "run/tracking.json").unlink()
    postgres.stall()
    uri = {"server": server.uri, "database": postgres.uri}[place]
    ended = commands.run("sync", "run", environment=name_store(uri))
    assert ended.code == 7, ended.err
    assert ended.seconds < 60
