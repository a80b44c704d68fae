"""A run that was stopped goes on to the same result, or says what keeps it from that (rows 32 to 38 of the faults)."""

import hashlib
import json
import os
import shutil
from itertools import pairwise

import pytest

from imagetune.commands.fit import fit
from imagetune.core.files import read_json_lines
from imagetune.core.leftovers import name_temporary
from imagetune.errors import StoppedError
from imagetune.run_folder.claim import hold_run_folder
from imagetune.run_folder.folder import RunFolder
from imagetune.training.setup.events import SilentListener
from imagetune.training.setup.stopping import StopWhen
from tests.faults.killer import Killer


class InSecondStage(SilentListener):
    """Listener that knows when the second stage has made a step."""

    reached = False

    def step_done(self, event):
        self.reached |= event.stage == "top"


@pytest.fixture(scope="module")
def _stopped(_fitted, tiny, tmp_path_factory):
    """The run of `fitted`, stopped in its second stage; made once."""
    place = tmp_path_factory.mktemp("stopped")
    shutil.copy(_fitted / "colours.yaml", place)
    settings = {"train.commit_minutes": 1e-9, "tracking.enabled": False}
    listener = InSecondStage()
    stop = StopWhen(lambda: listener.reached)
    with pytest.raises(StoppedError):
        fit(place / "colours.yaml", settings, run_dir=place / "run", listener=listener, stop=stop)
    return place


COMMAND = ("fit", "colours.yaml", "--run-dir", "run", "-o", "train.commit_minutes=1e-9", "-o", "tracking.enabled=false")


@pytest.fixture
def stopped(_stopped, workplace):
    """A copy of the stopped run, in the working folder."""
    shutil.copytree(_stopped, workplace, dirs_exist_ok=True)
    return workplace / "run"


def hash_files(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def read_epochs(run):
    return [{**line, "images_per_second": 0} for line in read_json_lines(run / "metrics.jsonl")]


def assert_same_result(run, other):
    assert read_epochs(run) == read_epochs(other)
    for split in ("train", "val", "test"):
        assert (run / f"predictions/{split}.csv").read_bytes() == (other / f"predictions/{split}.csv").read_bytes()
    weights = (json.loads((one / "model/manifest.json").read_text())["weights_sha256"] for one in (run, other))
    assert len(set(weights)) == 1


def test_row_32_36_37_a_stopped_run_goes_on_to_the_same_result(stopped, fitted, imagetune):
    status = json.loads((stopped / "status.json").read_text())
    assert (status["state"], status["stage"]) == ("killed", "top")
    outcome = imagetune(*COMMAND, "--resume")
    assert outcome.code == 0, outcome.err
    assert "resumed" in outcome.err
    assert_same_result(stopped, fitted[1])
    assert [line["name"] for line in read_json_lines(stopped / "stages.jsonl")] == ["head", "top"]
    assert not (stopped / "debug.log").exists()

    # The same command again has nothing to do, with or without --resume.
    before = hash_files(stopped)
    again = imagetune(*COMMAND)
    assert again.code == 0, again.err
    assert "nothing is left to do" in again.err
    assert "accuracy" in again.out
    assert hash_files(stopped) == before

    # It was killed between its end and its report.
    (stopped / "report.html").unlink()
    dead = name_temporary().replace(str(os.getpid()), "4194303")
    (stopped / "plots" / f"{dead}.png").write_bytes(b"half")
    assert imagetune(*COMMAND).code == 0
    assert hash_files(stopped).keys() == before.keys()


def test_row_33_a_truncated_checkpoint_is_passed_over_and_said(stopped, fitted, imagetune):
    newest = sorted((stopped / "checkpoints").glob("step-*"))[-1] / "resume.npz"
    newest.write_bytes(newest.read_bytes()[:100])
    outcome = imagetune(*COMMAND, "--resume")
    assert outcome.code == 0, outcome.err
    assert f"{newest.parent}: resume.npz is missing or corrupted" in outcome.err.replace("\n", " ")
    assert_same_result(stopped, fitted[1])


def test_row_33_without_a_sound_checkpoint_nothing_is_begun_in_silence(stopped, imagetune):
    for path in (stopped / "checkpoints").glob("step-*"):
        (path / "changed.npz").write_bytes(b"")
    before = hash_files(stopped)
    outcome = imagetune(*COMMAND, "--resume")
    assert outcome.code == 6
    assert "changed.npz is missing or corrupted" in outcome.err
    assert hash_files(stopped) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("train.batch_size=4", "train.batch_size was 16, now it is 4"),
        ("seed=4", "seed was 3, now it is 4"),
        ("evaluate.tta=[horizontal_flip]", "evaluate.tta"),
    ],
)
def test_row_35_another_recipe_is_refused_by_name(stopped, imagetune, change, named):
    before = hash_files(stopped)
    outcome = imagetune(*COMMAND, "--resume", "-o", change)
    assert outcome.code == 6
    assert named in outcome.err
    assert hash_files(stopped) == before


def test_row_35_other_images_are_refused_by_name(stopped, images, imagetune, workplace):
    shutil.copytree(images, workplace / "changed")
    first, second = next(pairwise(sorted((workplace / "changed/red").iterdir())))
    first.write_bytes(second.read_bytes() + b"\0")
    before = hash_files(stopped)
    outcome = imagetune(*COMMAND, "--resume", "-o", "data.source=changed")
    assert outcome.code == 6
    assert f"1 with another content (such as red/{first.name})" in outcome.err
    assert hash_files(stopped) == before


def test_row_38_a_run_that_another_process_writes_is_left_alone(stopped, imagetune):
    with hold_run_folder(RunFolder(stopped)):
        outcome = imagetune(*COMMAND, "--resume")
    assert outcome.code == 6
    assert "is writing this run" in outcome.err


def test_a_stopped_run_is_not_begun_again_by_mistake(stopped, imagetune):
    outcome = imagetune(*COMMAND)
    assert outcome.code == 6
    assert "holds a run that is killed" in outcome.err
    assert "the same command with --run-dir run --resume" in outcome.err


def test_resume_says_which_option_it_needs(workplace, imagetune):
    outcome = imagetune("fit", "colours.yaml", "--resume")
    assert outcome.code == 2
    assert "--resume needs --run-dir" in outcome.err


@pytest.mark.parametrize(("kills", "folds"), [(10, None), pytest.param(200, 2, marks=pytest.mark.slow)])
def test_row_32_killed_runs_come_to_the_same_result_bit_for_bit(tmp_path, kills, folds):
    killer = Killer(tmp_path, seed=kills, folds=folds)
    try:
        events = list(killer.kill(kills))
    finally:
        killer.stop()
    assert [event for event in events if isinstance(event, str)] == []
    assert len(events) >= kills // 2
