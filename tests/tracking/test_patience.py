import time

import pytest

from imagetune.errors import TrackingError
from imagetune.recipe.sections.tracking import TrackingConfig
from imagetune.tracking.patience import call_patiently, require_store

SECRET = "s3cr%2Fet%40x"
DATABASE = "postgresql://ann:hunter2-secret@database.example/mlflow"


def call(work, **settings):
    return call_patiently(work, uri=DATABASE, patience_seconds=1.0, **settings)


def test_what_the_work_returns_and_raises_comes_back():
    assert call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        call(lambda: 1 / 0)


def test_work_that_waits_without_end_is_given_up_and_its_password_not_shown():
    began = time.monotonic()
    with pytest.raises(TrackingError, match="no answer within 1 s") as caught:
        call(lambda: time.sleep(30))
    assert time.monotonic() - began < 3
    assert "hunter2" not in str(caught.value)


def test_work_that_moves_is_waited_for():
    steps = []

    def work():
        for _ in range(6):
            time.sleep(0.4)
            steps.append(None)
        return len(steps)

    assert call(work, count_steps=lambda: len(steps)) == 6


def test_work_that_computes_is_waited_for():
    def work():
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            sum(range(1000))
        return "computed"

    assert call(work) == "computed"


def test_a_required_server_that_refuses_is_found_at_once(free_port):
    config = TrackingConfig(uri=f"http://ann:{SECRET}@127.0.0.1:{free_port}", required=True)
    with pytest.raises(TrackingError, match="tracking is required, but: the MLflow server refused") as caught:
        require_store(config)
    assert SECRET not in str(caught.value)


def test_a_required_server_that_does_not_answer_is_waited_for_no_longer_than_said(silent_server):
    with pytest.raises(TrackingError, match="tracking is required, but"):
        require_store(TrackingConfig(uri=silent_server, required=True), timeout_seconds=0.5)


def test_nothing_is_asked_where_nothing_is_required(free_port):
    require_store(TrackingConfig(uri=f"http://127.0.0.1:{free_port}"))
    require_store(TrackingConfig(uri=f"http://127.0.0.1:{free_port}", required=True, enabled=False))
