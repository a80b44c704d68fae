import importlib
import json
import threading
import time

import pytest
from plugin_packages import install_module

from imagetune.recipe.sections.tracking import TrackingConfig
from imagetune.tracking.tracker import start_tracking

SOURCE = """
heard = []

class Good:
    def __init__(self, run_dir):
        heard.append(run_dir.name)

    def epoch(self, record):
        heard.append(record["epoch"])

    def end(self, state):
        heard.append(state)

class Bad(Good):
    def epoch(self, record):
        raise OSError("no network")

def unable(run_dir):
    raise KeyError("token")

class Slow(Good):
    def end(self, state):
        import time
        time.sleep(1.5)
"""


@pytest.fixture
def heard(tmp_path, monkeypatch, request):
    """Calls that the trackers of a package of this test's own have received, in order."""
    name = f"trackers_of_{request.node.originalname}"
    points = {"good": "Good", "bad": "Bad", "unable": "unable", "slow": "Slow"}
    monkeypatch.syspath_prepend(install_module(tmp_path / "site", name, "imagetune.trackers", points, SOURCE))
    return importlib.import_module(name).heard


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def track(run_dir, *names):
    said = []
    config = TrackingConfig.model_validate({"tracker": names if len(names) > 1 else names[0]})
    return start_tracking(run_dir, config, recipe_name="any", warn=said.append), said


def add_epoch(run_dir, tracker, epoch):
    with (run_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"epoch": epoch}) + "\n")
    tracker.poke()


def end(run_dir, tracker, state, **options):
    (run_dir / "status.json").write_text(json.dumps({"state": state}), encoding="utf-8")
    return tracker.finish(**options)


def test_a_tracker_hears_of_start_epochs_and_end_in_order(heard, run_dir):
    tracker, said = track(run_dir, "good")
    add_epoch(run_dir, tracker, 1)
    add_epoch(run_dir, tracker, 2)
    assert end(run_dir, tracker, "failed") is None
    assert heard == ["run", 1, 2, "failed"]
    assert said == []


def test_instead_of_mlflow_nothing_is_made_for_mlflow(heard, run_dir):
    tracker, _ = track(run_dir, "good")
    assert tracker.run_id is None
    end(run_dir, tracker, "finished")
    assert not (run_dir / "tracking.json").exists()


def test_a_tracker_that_raises_is_left_out_with_a_warning(heard, run_dir):
    tracker, said = track(run_dir, "bad", "unable", "good")
    add_epoch(run_dir, tracker, 1)
    add_epoch(run_dir, tracker, 2)
    assert end(run_dir, tracker, "finished") is None
    assert heard == ["run", "run", 1, 2, "finished"]
    unable, bad = said
    assert "the tracker 'unable' of the package trackers_of_test_a_tracker_that_raises" in unable
    assert "KeyError: 'token'" in unable
    assert "OSError: no network" in bad
    assert "training goes on without it" in bad


def test_a_tracker_that_hangs_at_the_end_is_not_waited_for(heard, run_dir):
    tracker, _ = track(run_dir, "slow")
    began = time.monotonic()
    message = end(run_dir, tracker, "finished", timeout_seconds=0.3)
    assert time.monotonic() - began < 1.4
    assert message == "the trackers (slow) did not finish within 0 s; the run folder is complete"


def test_no_thread_runs_where_tracking_is_off(heard, run_dir):
    config = TrackingConfig.model_validate({"enabled": False, "tracker": "good"})
    before = threading.active_count()
    tracker = start_tracking(run_dir, config, recipe_name="any")
    assert threading.active_count() == before
    assert tracker.finish() is None
    assert heard == []
