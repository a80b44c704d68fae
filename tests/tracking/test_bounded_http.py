"""Whatever a server answers costs a bounded number of bytes and seconds."""

from __future__ import annotations

import gzip
import resource
import time

import pytest
from mlflow import MlflowClient
from rude_servers import body, drip, lose_answers, say, say_json, send_endlessly, serve

from imagetune.errors import TrackingError
from imagetune.recipe.sections.tracking import TrackingConfig
from imagetune.tracking import store
from imagetune.tracking.artifacts import fetch_artifacts, open_artifacts
from imagetune.tracking.store import check_id, open_client, store_errors
from imagetune.tracking.sync import sync_run
from imagetune.tracking.tracker import start_tracking


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A request may take a second."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(send_endlessly, "no end", id="endless"),
        pytest.param(drip(body(b"{}" * 500)), "timed out", id="dripping headers"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 500), "timed out", id="one long header"),
        pytest.param(say(body(gzip.compress(bytes(10**8)), "Content-Encoding: gzip")), "compressed", id="compressed"),
        pytest.param(say(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10**5), "more than 100 headers", id="many headers"),
        pytest.param(
            say(body(b"", "Location: file:///etc/passwd", status="302 Found")), "No connection adapters", id="redirect"
        ),
        pytest.param(say_json({"experiments": 3}), "", id="wrong type"),
        pytest.param(say(body(b"<h1>Welcome</h1>")), "", id="HTML"),
        pytest.param(say(body(b"[" * 10**5)), "", id="nested"),
        pytest.param(say(body(bytes(range(256)) * 50_000)), "", id="many bytes of no encoding"),
        pytest.param(
            say(body(b"\x1b[2Jgone", "Retry-After: 100000", status="403 \x1b[31mNo")), "gone", id="error with escapes"
        ),
    ],
)
def test_an_answer_is_read_within_bounds_and_refused_in_words(answer, says):
    began, peak = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with serve(answer) as uri, pytest.raises(TrackingError) as caught:
        open_client(uri)
    assert says in caught.value.what
    assert "\x1b" not in caught.value.what
    assert time.monotonic() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300_000


def test_the_first_question_to_a_server_is_bounded_too(monkeypatch):
    monkeypatch.setattr(store, "_PROBE_SECONDS", (0.5, 0.5))
    with serve(drip(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 5000), healthy=False) as uri:
        began = time.monotonic()
        with pytest.raises(TrackingError):
            open_client(uri)
    assert time.monotonic() - began < 5


def test_requests_of_the_users_own_code_have_no_such_bounds():
    with serve(say(body(bytes(20 * 2**20)))) as uri:
        with pytest.raises(TrackingError), store_errors(uri):
            MlflowClient(uri).search_experiments()
        from mlflow.utils.request_utils import _get_http_response_with_retries as get

        assert len(get("GET", uri, 0, 0, 0, ()).content) == 20 * 2**20


def test_a_server_that_answers_without_end_does_not_hold_up_the_end_of_a_run(run_dir):
    with serve(send_endlessly) as uri:
        tracker = start_tracking(run_dir, TrackingConfig(uri=uri), recipe_name="endless")
        began = time.monotonic()
        message = tracker.finish(2.0)
    assert time.monotonic() - began < 5
    assert "were not sent" in message


def test_a_lost_answer_makes_no_second_run(server, run_dir):
    lost = []

    def is_first(line):
        if b"/runs/create" not in line or lost:
            return False
        lost.append(line)
        return True

    with lose_answers(server.port, is_first) as uri:
        result = sync_run(run_dir, uri=uri, experiment="lost answers")
    assert lost
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("lost answers")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.run_id for run in runs] == [result.run_id]


@pytest.mark.parametrize("text", ["../../etc", "a/b", "", "x" * 200, "a\nb", "a.b"])
def test_an_id_that_would_lead_elsewhere_is_refused(text):
    with pytest.raises(TrackingError, match="answers with the id"):
        check_id(text, "http://x")


@pytest.mark.parametrize("location", ["file:///home/ann/.ssh", "/etc", "file:///x/mlruns/../../etc", "relative"])
def test_a_server_does_not_choose_where_on_this_machine_files_are_written(location):
    with pytest.raises(TrackingError, match="a folder of this machine"):
        open_artifacts("http://127.0.0.1:5000", location)


def test_a_folder_of_mlflow_on_this_machine_is_used_when_a_server_names_it(tmp_path):
    (tmp_path / "mlruns").mkdir()
    location = f"file://{tmp_path}/mlruns/1/abc/artifacts"
    assert open_artifacts("http://127.0.0.1:5000", location).artifact_uri == location


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt"])
def test_a_listing_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    listing = say_json({"files": [{"path": name, "is_dir": False, "file_size": 3}]})
    with serve(listing) as uri, pytest.raises(TrackingError), store_errors(uri):
        fetch_artifacts(open_artifacts(uri, "mlflow-artifacts:/1/abc/artifacts"), tmp_path)
    assert not list(tmp_path.rglob("out.txt"))


def test_a_listing_without_end_is_refused(tmp_path):
    listing = say_json({"files": [{"path": "again", "is_dir": True}]})
    with serve(listing) as uri, pytest.raises(TrackingError, match="without end"), store_errors(uri):
        fetch_artifacts(open_artifacts(uri, "mlflow-artifacts:/1/abc/artifacts"), tmp_path)


def test_a_file_that_is_larger_than_was_said_is_not_taken_whole(tmp_path):
    def answer(sock, line, request):
        if b"path=" in line:
            say_json({"files": [{"path": "x.bin", "is_dir": False, "file_size": 10}]})(sock, line, request)
        else:
            send_endlessly(sock, line, request)

    with serve(answer) as uri, pytest.raises(TrackingError, match="no end"), store_errors(uri):
        fetch_artifacts(open_artifacts(uri, "mlflow-artifacts:/1/abc/artifacts"), tmp_path)
    assert (tmp_path / "x.bin").stat().st_size < 2 * 2**20
