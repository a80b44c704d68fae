"""A run's life, without any training."""

from __future__ import annotations

import signal

import pytest

from imagetune.core.files import read_json_lines
from imagetune.core.messages import say_nothing
from imagetune.core.stopping import check_stop
from imagetune.errors import CheckpointError, DivergedError, ResourceError, StoppedError, TrackingError
from imagetune.recipe.schema import Recipe
from imagetune.runs import run as lives
from imagetune.runs.run import start_run
from imagetune.training.setup.events import EpochRecord, SilentListener
from imagetune.training.setup.stopping import listen_for_stop

EPOCH = EpochRecord("head", 1, 3, {"loss": 0.5}, {"loss": 0.6}, 1e-3, 10.0)


class StubTracker:
    def __init__(self, message=None):
        self.pokes, self.finished, self.message = 0, 0, message

    def poke(self):
        self.pokes += 1

    def stop_sampling(self):
        pass

    def finish(self):
        self.finished += 1
        return self.message


@pytest.fixture
def recipe():
    return Recipe.model_validate({"name": "stub", "data": {"source": "x"}, "tracking": {"tensorboard": False}})


@pytest.fixture
def drawn(monkeypatch):
    """The state that each run was in when its pages were drawn."""
    states = []
    monkeypatch.setattr(lives, "write_pages", lambda folder: states.append(folder.read_status()["state"]))
    return states


@pytest.fixture
def tracker(monkeypatch):
    stub = StubTracker()
    monkeypatch.setattr(lives, "start_tracking", lambda *_, **__: stub)
    return stub


def test_a_run_that_ends_well_is_recorded_drawn_and_sent(recipe, tmp_path, drawn, tracker):
    said, heard = [], []

    class Heard(SilentListener):
        def epoch_done(self, record):
            heard.append(record)

    with start_run(recipe, tmp_path / "run", say=lambda *told: said.append(told), listener=Heard()) as run:
        assert run.folder.read_status()["state"] == "running"
        run.track()
        run.recorder.epoch_done(EPOCH)
        assert (tracker.pokes, tracker.finished) == (1, 0)
    assert said == [("run folder", str(tmp_path / "run"))]
    assert heard == [EPOCH]
    assert run.folder.recipe.is_file()
    assert read_json_lines(run.folder.metrics) == [EPOCH.as_json()]
    status = run.folder.read_status()
    assert (status["state"], status["epoch"], status["step"], status["error"]) == ("finished", 1, 3, None)
    assert not run.folder.debug_log.exists()
    assert (drawn, tracker.finished) == (["finished"], 1)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (DivergedError("the loss is NaN"), "failed"),
        (ZeroDivisionError("a bug"), "failed"),
        (KeyboardInterrupt(), "killed"),
        (StoppedError(signal.SIGTERM), "killed"),
    ],
)
def test_what_ends_a_run_early_is_recorded_and_goes_on(recipe, tmp_path, drawn, tracker, error, state):
    with pytest.raises(type(error)), start_run(recipe, tmp_path / "run", say=say_nothing) as run:
        run.track()
        raise error
    assert run.folder.read_status()["state"] == state
    assert type(error).__name__ in run.folder.debug_log.read_text()
    assert (drawn, tracker.finished) == ([state], 1)


def test_a_page_that_cannot_be_drawn_does_not_hide_why_the_run_failed(recipe, tmp_path, monkeypatch):
    def full(_folder):
        raise ResourceError("the disk is full")

    monkeypatch.setattr(lives, "write_pages", full)
    with pytest.raises(DivergedError), start_run(recipe, tmp_path / "run", say=say_nothing):
        raise DivergedError("the loss is NaN")
    with pytest.raises(ResourceError), start_run(recipe, tmp_path / "other", say=say_nothing) as run:
        pass
    assert run.folder.read_status()["state"] == "failed"


def test_a_signal_that_nothing_has_asked_for_kills_the_run_before_it_is_finished(recipe, tmp_path, drawn, tracker):
    with (
        pytest.raises(StoppedError) as caught,
        listen_for_stop(),
        start_run(recipe, tmp_path / "run", say=say_nothing) as run,
    ):
        run.track()
        signal.raise_signal(signal.SIGTERM)
    assert (caught.value.exit_code, run.folder.read_status()["state"]) == (143, "killed")
    assert (drawn, tracker.finished) == (["killed"], 1)


def test_a_signal_while_the_pages_are_drawn_leaves_a_finished_run_and_stops_the_command(recipe, tmp_path, monkeypatch):
    def draw(_folder):
        signal.raise_signal(signal.SIGINT)
        check_stop()

    monkeypatch.setattr(lives, "write_pages", draw)
    with (
        pytest.raises(StoppedError, match="this run is finished") as caught,
        listen_for_stop(),
        start_run(recipe, tmp_path / "run", say=say_nothing) as run,
    ):
        pass
    assert (caught.value.exit_code, run.folder.read_status()["state"]) == (130, "finished")


def test_an_error_that_a_signal_has_caused_is_reported_as_the_signal(recipe, tmp_path, drawn):
    with (
        pytest.raises(StoppedError),
        listen_for_stop(),
        start_run(recipe, tmp_path / "run", say=say_nothing) as run,
    ):
        signal.raise_signal(signal.SIGTERM)
        raise ResourceError("a worker process died")
    assert run.folder.read_status()["state"] == "killed"
    assert "a worker process died" in run.folder.debug_log.read_text()


def test_on_a_full_disk_the_first_error_stays_the_first_and_the_status_is_right(recipe, small_disk, monkeypatch):
    monkeypatch.setattr(lives, "write_pages", lambda _: (_ for _ in ()).throw(OSError("no room for pages")))
    with (
        pytest.raises(DivergedError, match="the loss is NaN"),
        start_run(recipe, small_disk / "run", say=say_nothing) as run,
    ):
        with pytest.raises(OSError, match="No space"), (small_disk / "other").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        raise DivergedError("the loss is NaN")
    status = run.folder.read_status()
    assert (status["state"], status["error"]) == ("failed", "the loss is NaN")
    assert not list(run.folder.path.glob(".tmp-*"))


def test_a_trial_has_no_pages_and_no_copy_of_its_own(recipe, tmp_path, drawn):
    with start_run(recipe, tmp_path / "run", say=say_nothing, pages=False) as run:
        run.recorder.epoch_done(EPOCH)
    with pytest.raises(DivergedError), start_run(recipe, tmp_path / "other", say=say_nothing, pages=False):
        raise DivergedError("the loss is NaN")
    assert (drawn, run.tracker) == ([], None)


def test_an_unavailable_tracker_fails_the_run(recipe, tmp_path, drawn, monkeypatch):
    def refuse(*_, **__):
        raise TrackingError("no prediction", where="https://mlflow.example")

    monkeypatch.setattr(lives, "start_tracking", refuse)
    with pytest.raises(TrackingError), start_run(recipe, tmp_path / "run", say=say_nothing) as run:
        run.track()
    status = run.folder.read_status()
    assert (status["state"], status["error"]) == ("failed", "https://mlflow.example: no prediction")


def test_what_could_not_be_sent_is_said(recipe, tmp_path, drawn, tracker):
    tracker.message = "3 records were not sent"
    said = []
    with start_run(recipe, tmp_path / "run", say=lambda *told: said.append(told)) as run:
        run.track()
    assert said[-1] == ("warning", "3 records were not sent")


def test_a_folder_that_holds_a_run_is_left_alone(recipe, tmp_path, drawn):
    with start_run(recipe, tmp_path / "run", say=say_nothing):
        pass
    with (
        pytest.raises(CheckpointError, match="a run that is finished"),
        start_run(recipe, tmp_path / "run", say=say_nothing),
    ):
        pytest.fail("the block must not begin")
