"""Faults of a training (rows 27 to 31): the last checkpoint and the best are kept, and the exit code says why."""

import json
import re
import signal
import time

import mlflow
import pytest

from tests.faults.commands import OFFLINE

LONG = ("-o", "train.stages.0.epochs=2000", "-o", "data.augmentation=none", *OFFLINE)


def read_state(run):
    return json.loads((run / "status.json").read_text())


def test_row_27_a_loss_that_is_no_number_ends_with_4_and_keeps_finite_weights(recipe, workplace, imagetune):
    rate = ("-o", "train.stages.0.learning_rate=1e9", "-o", "train.optimizer.name=sgd")
    outcome = imagetune("fit", recipe, "--run-dir", "run", *rate, "-o", "train.stages.0.epochs=30")
    assert outcome.code == 4
    assert re.search(r"stage 'head': the loss is \S+ .*step \d+.*learning rate", outcome.err), outcome.err
    assert read_state(workplace / "run")["state"] == "failed"
    assert "Traceback" in (workplace / "run/debug.log").read_text()
    assert list((workplace / "run/checkpoints").glob("step-*"))
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{workplace / 'mlflow.db'}")
    (recorded,) = client.search_runs([client.get_experiment_by_name("colours").experiment_id])
    assert recorded.info.status == "FAILED"


@pytest.mark.slow
def test_row_28_a_batch_that_memory_does_not_hold_ends_with_5_and_a_smaller_one(commands, workplace):
    large = ("-o", "data.image_size=2048", "-o", "train.stages=full", "-o", "train.batch_size=16", *OFFLINE)
    ended = commands.run("fit", "colours.yaml", "--run-dir", "run", *large, limits={"RLIMIT_AS": 5 << 30})
    assert ended.code == 5, ended.err[-2000:]
    assert "out of memory at a batch size of 16" in ended.err
    assert "-o train.batch_size=8" in ended.err
    assert read_state(workplace / "run")["state"] == "failed"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_row_29_30_a_signal_commits_a_checkpoint_and_says_killed(commands, workplace, number, code):
    run = workplace / "run"
    began = commands.begin("fit", "colours.yaml", "--run-dir", "run", *LONG)
    began.await_file(run / "metrics.jsonl")
    asked = time.monotonic()
    began.signal(number)
    ended = began.wait()
    assert ended.code == code, ended.err[-2000:]
    assert time.monotonic() - asked < 30
    status = read_state(run)
    assert status["state"] == "killed"
    newest = max((run / "checkpoints").glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
    assert int(newest.name.removeprefix("step-")) == status["step"]
    assert not list(run.rglob(".tmp-*"))


def test_row_30_a_second_signal_ends_at_once_and_the_checkpoint_is_sound(commands, workplace):
    run = workplace / "run"
    # Checkpoints come at the end of epochs, and these have steps enough for the second signal to fall into one.
    command = ("fit", "colours.yaml", "--run-dir", "run", *LONG, "-o", "train.batch_size=1")
    began = commands.begin(*command)
    began.await_file(run / "metrics.jsonl", 2)
    began.signal(signal.SIGINT)
    # Later than signals that mean the same one.
    time.sleep(0.35)
    if began.running:
        began.signal(signal.SIGINT)
    assert began.wait().code == 130
    # The next command finds a complete checkpoint, however the first one ended.
    again = commands.run(*command, "--resume", "--max-time", "1s")
    assert again.code == 75, again.err[-2000:]
    assert "resumed" in again.err


def test_row_31_missing_weights_stop_before_anything_is_written(recipe, workplace, imagetune):
    before = sorted(workplace.rglob("*"))
    outcome = imagetune("fit", recipe, "-o", "model.weights=nowhere.h5")
    assert outcome.code == 5
    assert "nowhere.h5" in outcome.err
    assert sorted(workplace.rglob("*")) == before


def test_row_31_truncated_weights_stop_before_anything_is_written(recipe, workplace, imagetune, fitted):
    weights = workplace / "weights.h5"
    weights.write_bytes((fitted[1] / "model/model.weights.h5").read_bytes()[:2000])
    before = sorted(workplace.rglob("*"))
    outcome = imagetune("fit", recipe, "-o", "model.weights=weights.h5")
    assert outcome.code in (5, 9), outcome.err
    assert "weights.h5" in outcome.err
    assert sorted(workplace.rglob("*")) == before
