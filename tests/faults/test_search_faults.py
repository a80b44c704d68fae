"""Faults of a search (rows 44 to 49): finished trials are kept, and what can't be gone on with is refused."""

import json
import shutil
import signal

import pytest
from once import made_once
from tracking_helpers import wait_until

from imagetune.core.files import read_json_lines
from imagetune.recipe.loading import load_recipe
from tests.faults.commands import Commands

# Trials run in processes of their own, which know no smaller backbone.
pytestmark = pytest.mark.slow

RECIPE = """\
name: colours
seed: 3
data: {{source: {source}, image_size: 32, workers: 0}}
model: {{backbone: efficientnet_lite0, weights: random}}
train:
  batch_size: 16
  optimizer: {{name: sgd}}
  stages:
    - {{name: head, unfreeze: none, epochs: 12, learning_rate: {{search: choice, values: {rates}}}}}
evaluate:
  {{bootstrap_samples: 100, explain: 0, baselines: false, label_errors: false, slices: false}}
search: {{algorithm: grid, trials: 3, finalists: 0, repeats: 1, parallel: 1}}
tracking: {{enabled: false}}
"""
COMMAND = ("search", "colours.yaml", "--run-dir", "search")


def write_recipe(folder, images, rates="[1e-2, 1e9, 1e-3]"):
    (folder / "colours.yaml").write_text(RECIPE.format(source=images, rates=rates), encoding="utf-8")


def list_ended(folder):
    """Return the trials that the journal calls ended, with their status."""
    lines = (folder / "journal.jsonl").read_text().splitlines() if (folder / "journal.jsonl").is_file() else []
    return [(line["trial_id"], line["status"]) for line in map(json.loads, lines) if line["event"] == "ended"]


def read_files(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture(scope="session")
def _searched(tmp_path_factory, watcher, images):
    """A search whose second trial diverges, killed after its first and gone on with to its end; made once."""

    def make(folder):
        write_recipe(folder, images)
        commands = Commands(watcher, folder)
        began = commands.begin(*COMMAND)
        wait_until(lambda: list_ended(folder / "search") or not began.running, 200)
        began.signal(signal.SIGKILL)
        killed = began.wait()
        first = read_files(folder / "search/trials/trial-001")
        resumed = commands.run(*COMMAND, "--resume")
        again = read_files(folder / "search/trials/trial-001")
        found = {"killed": killed.code, "resumed": resumed.code, "same": first == again, "out": resumed.out}
        (folder / "found.json").write_text(json.dumps(found | {"err": resumed.err}))

    return made_once(tmp_path_factory, "searched", make)


@pytest.fixture
def searched(_searched, workplace):
    """A copy of that search, in the working folder."""
    shutil.copytree(_searched, workplace, dirs_exist_ok=True)
    return workplace / "search"


def test_row_47_trials_that_had_ended_before_a_kill_are_not_run_again(searched, workplace):
    found = json.loads((workplace / "found.json").read_text())
    assert (found["killed"], found["resumed"]) == (-signal.SIGKILL, 0), found["err"][-2000:]
    assert found["same"]
    assert [trial for trial, _ in list_ended(searched)] == ["001", "002", "003"]


def test_row_44_46_a_trial_that_diverges_is_failed_with_its_reason_and_is_never_best(searched, workplace):
    out = json.loads((workplace / "found.json").read_text())["out"]
    assert dict(list_ended(searched)) == {"001": "completed", "002": "failed", "003": "completed"}
    (lost,) = (line for line in read_json_lines(searched / "journal.jsonl") if line.get("status") == "failed")
    assert "the loss is" in lost["error"]
    assert "002: diverged" in out
    assert load_recipe(searched / "best.yaml").recipe.train.stages[0].learning_rate in (1e-2, 1e-3)


def test_row_48_a_journal_that_was_cut_short_goes_on(searched, imagetune):
    with (searched / "journal.jsonl").open("a") as file:
        file.write('{"event": "propo')
    outcome = imagetune(*COMMAND, "--resume")
    assert outcome.code == 0, outcome.err
    assert [trial for trial, _ in list_ended(searched)] == ["001", "002", "003"]


def test_row_48_a_journal_that_is_corrupted_in_its_middle_is_refused_by_line(searched, imagetune):
    path = searched / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1][:20] + "\n", *lines[2:]]))
    before = read_files(searched)
    outcome = imagetune(*COMMAND, "--resume")
    assert outcome.code == 6
    assert "journal.jsonl:2" in outcome.err
    assert read_files(searched) == before


def test_row_49_another_space_is_refused_by_name(searched, imagetune):
    before = read_files(searched)
    change = "train.stages.0.learning_rate={search: choice, values: [1e-2, 1e-3]}"
    outcome = imagetune(*COMMAND, "--resume", "-o", change)
    assert outcome.code == 6
    assert "train.stages[0].learning_rate" in outcome.err
    assert read_files(searched) == before


def test_row_45_when_all_trials_fail_there_is_no_best(commands, workplace, images):
    write_recipe(workplace, images, rates="[1e8, 1e9]")
    ended = commands.run(*COMMAND)
    assert ended.code == 8, ended.err[-2000:]
    assert "all 2 trials failed" in ended.err
    assert "diverged" in ended.err
    assert not list((workplace / "search").glob("best*"))
