"""What a trial's process does, called in this process."""

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from tiny_backbones import TINY

from imagetune.core.files import read_json_lines
from imagetune.core.messages import say_nothing
from imagetune.errors import DataError
from imagetune.recipe.schema import Recipe
from imagetune.run_folder.folder import RunFolder
from imagetune.runs.prepare import read_data
from imagetune.search.executors.protocol import Task
from imagetune.search.trial_process.early_stop import MedianStopping
from imagetune.search.trial_process.folds import check_folds
from imagetune.search.trial_process.probe_file import write_probe
from imagetune.search.trial_process.run import run_trial
from imagetune.search.trial_process.shared import Shared
from imagetune.training.loop.checkpoints import list_checkpoints
from imagetune.training.setup.events import EpochRecord


def head(epochs, learning_rate=1e-2, **values):
    return {"name": "head", "epochs": epochs, "learning_rate": learning_rate, **values}


@pytest.fixture(scope="module")
def recipe(images, tiny):
    return Recipe.model_validate(
        {
            "seed": 3,
            "data": {"source": str(images), "image_size": 32, "workers": 0, "augmentation": "light"},
            "model": {"backbone": TINY, "weights": "random", "head": {"dropout": 0.2}},
            "train": {"batch_size": 8, "stages": [head(5)]},
            # Its trials may be continued, so that they keep their checkpoints.
            "search": {"objective": "loss", "algorithm": "hyperband"},
        }
    )


@pytest.fixture(scope="module")
def shared(recipe):
    return Shared(read_data(recipe, say=say_nothing), recipe.search)


@pytest.fixture
def task(recipe, tmp_path):
    def make(name, *, stages=None, train=None, **values):
        own = recipe
        if stages is not None:
            train = recipe.train.model_validate({**recipe.train.model_dump(), "stages": stages, **(train or {})})
            own = recipe.model_copy(update={"train": train})
        return Task(name, tmp_path / name, own, **values)

    return make


def losses(folder):
    return [line["val"]["loss"] for line in read_json_lines(folder / "metrics.jsonl")]


def made_trial(folder, metrics, *, state="finished"):
    """Write the folder of an earlier trial with these losses."""
    folder.mkdir(parents=True, exist_ok=True)
    made = RunFolder(folder)
    for number, metric in enumerate(metrics, start=1):
        made.append_metrics({"stage": "head", "epoch": number, "val": {"loss": metric}})
    made.write_status(state)
    return folder


def test_a_rung_goes_on_where_the_lower_one_ended(shared, task, tmp_path):
    whole = run_trial(shared, task("whole"))
    lower = run_trial(shared, task("lower", epochs=2))
    upper = run_trial(shared, task("upper", epochs=5, continues=tmp_path / "lower"))
    assert (whole.status, lower.status, upper.status) == ("completed",) * 3
    assert (whole.epochs, lower.epochs, upper.epochs) == (5, 2, 3)
    assert losses(tmp_path / "lower") == pytest.approx(losses(tmp_path / "whole")[:2], abs=1e-6)
    assert losses(tmp_path / "upper") == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)
    assert upper.objective == pytest.approx(whole.objective, abs=1e-6)
    assert upper.best_epoch == whole.best_epoch
    assert [line["name"] for line in read_json_lines(tmp_path / "upper" / "stages.jsonl")] == ["head"]
    lock = json.loads((tmp_path / "upper" / "lock.json").read_text())
    assert lock["versions"]["keras"]
    assert "source" in lock["weights"]
    assert RunFolder(tmp_path / "upper").read_status()["state"] == "finished"


def test_the_best_epoch_of_a_lower_rung_counts(shared, task, tmp_path):
    stages = [head(2), {**head(1, learning_rate=9.0), "name": "wild"}]
    lower = run_trial(shared, task("lower", stages=stages, epochs=2))
    upper = run_trial(shared, task("upper", stages=stages, epochs=3, continues=tmp_path / "lower"))
    assert losses(tmp_path / "upper")[2] > lower.objective
    assert (upper.objective, upper.best_epoch, upper.epochs) == (lower.objective, lower.best_epoch, 1)


def test_the_epoch_that_is_kept_counts_not_a_luckier_one(shared, task, tmp_path):
    by_f1 = replace(shared, config=shared.config.model_copy(update={"objective": "f1"}))
    outcome = run_trial(by_f1, task("trial"))
    lines = read_json_lines(tmp_path / "trial" / "metrics.jsonl")
    kept = min(lines, key=lambda line: line["val"]["loss"])
    assert (outcome.objective, outcome.best_epoch) == (kept["val"]["f1"], kept["epoch"])


def test_a_lower_rung_that_is_missing_or_corrupted_is_the_reason_of_the_failure(shared, task, tmp_path):
    missing = run_trial(shared, task("first", epochs=3, continues=tmp_path / "nowhere"))
    assert (missing.status, missing.objective) == ("failed", None)
    assert "no checkpoint" in missing.error
    run_trial(shared, task("lower", epochs=1))
    (list_checkpoints(tmp_path / "lower" / "checkpoints")[-1] / "resume.npz").write_bytes(b"")
    corrupted = run_trial(shared, task("second", epochs=3, continues=tmp_path / "lower"))
    assert corrupted.status == "failed"
    assert "corrupted" in corrupted.error
    assert RunFolder(tmp_path / "second").read_status()["state"] == "failed"
    assert "CheckpointError" in (tmp_path / "second" / "debug.log").read_text()


def test_a_trial_that_falls_behind_ends_early_and_keeps_what_it_has(shared, task, tmp_path):
    earlier = tuple(made_trial(tmp_path / f"good {number}", [1e-6] * 5) for number in range(5))
    outcome = run_trial(shared, task("poor", compared=earlier))
    assert (outcome.status, outcome.epochs) == ("stopped", 2)
    assert outcome.objective == min(losses(tmp_path / "poor"))
    assert RunFolder(tmp_path / "poor").read_status()["state"] == "finished"
    assert list_checkpoints(tmp_path / "poor" / "checkpoints")


@pytest.mark.parametrize("folds", [None, 2])
def test_a_trial_that_nothing_goes_on_from_leaves_no_checkpoints(shared, task, tmp_path, folds):
    config = shared.config.model_copy(update={"algorithm": "random", "folds": folds})
    outcome = run_trial(replace(shared, config=config), task("alone", epochs=1))
    assert outcome.status == "completed"
    assert not list((tmp_path / "alone").rglob("*.npz"))
    assert outcome.objective is not None


def test_a_loss_that_is_no_number_is_a_failure_with_its_reason(shared, task):
    outcome = run_trial(
        shared, task("wild", stages=[head(12, learning_rate=1e9)], train={"optimizer": {"name": "sgd"}})
    )
    assert (outcome.status, outcome.objective) == ("failed", None)
    assert outcome.error.startswith("diverged: stage 'head'")


def test_a_bug_is_a_failure_with_a_traceback(shared, task, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr("imagetune.runs.prepare.build_pretrained", broken)
    outcome = run_trial(shared, task("broken"))
    assert outcome.status == "failed"
    assert "ZeroDivisionError: no such luck" in outcome.error
    assert "Traceback" in (tmp_path / "broken" / "debug.log").read_text()


def test_memory_that_runs_out_is_a_failure_with_advice(shared, task, monkeypatch):
    def greedy(*_, **__):
        raise MemoryError

    monkeypatch.setattr("imagetune.runs.prepare.build_pretrained", greedy)
    outcome = run_trial(shared, task("greedy"))
    assert outcome.status == "failed"
    assert "train.batch_size=4" in outcome.error


def test_folds_judge_by_their_mean_and_never_open_the_test(shared, task, tmp_path):
    folded = Shared(shared.data, shared.config.model_copy(update={"folds": 3}))
    outcome = run_trial(folded, task("folded", stages=[head(2)]))
    assert (outcome.status, outcome.epochs, outcome.best_epoch) == ("completed", 6, None)
    document = json.loads((tmp_path / "folded" / "trial.json").read_text())
    metrics = [fold["metric"] for fold in document["folds"]]
    assert outcome.objective == document["mean"] == pytest.approx(np.mean(metrics))
    assert document["standard_deviation"] == pytest.approx(np.std(metrics, ddof=1))
    judged = []
    for fold in document["folds"]:
        folder = tmp_path / "folded" / fold["folder"]
        assert fold["metric"] == min(losses(folder))
        rows = [line.split(",") for line in (folder / "splits.csv").read_text().splitlines()[1:]]
        judged += [row[0] for row in rows if row[2] == "val"]
        assert "test" not in {row[2] for row in rows}
    known = {record.path for record in (*shared.data.splits.train, *shared.data.splits.val)}
    assert sorted(judged) == sorted(known)


def test_more_folds_than_images_can_make_are_refused_before_a_trial(shared, task):
    recipe = task("none").recipe

    def asked(folds, algorithm="random"):
        search = recipe.search.model_copy(update={"folds": folds, "algorithm": algorithm})
        check_folds(shared.data, recipe.model_copy(update={"search": search}))

    asked(3)
    asked(None)
    asked(None, "bakeoff")
    for algorithm in ("random", "bakeoff"):
        with pytest.raises(DataError, match="search.folds is 1000, but only"):
            asked(1000, algorithm)


def test_folds_of_a_rung_go_on_fold_by_fold(shared, task, tmp_path):
    folded = Shared(shared.data, shared.config.model_copy(update={"folds": 2}))
    whole = run_trial(folded, task("whole", epochs=3))
    run_trial(folded, task("lower", epochs=1))
    upper = run_trial(folded, task("upper", epochs=3, continues=tmp_path / "lower"))
    assert upper.objective == pytest.approx(whole.objective, abs=1e-6)
    assert upper.epochs == 4


def asked(compared, recipe, metrics, **values):
    """Ask median stopping after each of these epochs; return its last decision."""
    rule = MedianStopping(compared, "loss", recipe.train.stages, lambda: None, **values)
    decision = False
    for number, metric in enumerate(metrics, start=1):
        decision = rule(EpochRecord("head", number, number, {}, {"loss": metric}, 1e-3, 1.0))
    return decision


def test_earlier_trials_that_still_run_are_waited_for(recipe, tmp_path):
    earlier = [made_trial(tmp_path / f"{number}", [0.1] * 5) for number in range(4)]
    slow = tmp_path / "slow"

    def work():
        time.sleep(0.5)
        made_trial(slow, [0.1], state="running")
        time.sleep(0.5)
        RunFolder(slow).append_metrics({"stage": "head", "epoch": 2, "val": {"loss": 0.1}})

    thread = threading.Thread(target=work)
    thread.start()
    assert asked([*earlier, slow], recipe, [0.5, 0.5])
    thread.join()


@pytest.mark.parametrize(("reached", "counts"), [([0.1, 0.1], True), ([0.1], False)])
def test_a_failed_trial_counts_where_it_had_come_so_far(recipe, tmp_path, reached, counts):
    earlier = [made_trial(tmp_path / f"{number}", [0.1] * 5) for number in range(4)]
    failed = made_trial(tmp_path / "failed", reached, state="failed")
    assert asked([*earlier, failed], recipe, [0.5, 0.5]) is counts


def test_a_trial_that_died_without_a_word_is_left_out_in_the_end(recipe, tmp_path):
    earlier = [made_trial(tmp_path / f"{number}", [0.1] * 5) for number in range(5)]
    dead = made_trial(tmp_path / "dead", [0.1], state="running")
    began = time.monotonic()
    # Each of the two is waited for once, not after every epoch.
    assert not asked([*earlier, dead, tmp_path / "never"], recipe, [0.05] * 4, silent_seconds=1.0)
    assert 2.0 < time.monotonic() - began < 3.5
    assert asked([*earlier, dead, tmp_path / "never"], recipe, [0.5, 0.5], silent_seconds=0.1)


def test_waiting_ends_when_the_trial_is_to_stop(recipe, tmp_path):
    def stop():
        raise KeyboardInterrupt

    rule = MedianStopping([tmp_path / "never"], "loss", recipe.train.stages, stop)
    record = EpochRecord("head", 1, 1, {}, {"loss": 0.1}, 1e-3, 1.0)
    rule(record)
    with pytest.raises(KeyboardInterrupt):
        rule(replace(record, epoch=2))


@pytest.mark.slow
def test_fit_repeats_a_trial_alone_with_its_seed(shared, task, tmp_path, monkeypatch):
    from imagetune.cli.main import run

    monkeypatch.chdir(tmp_path)
    first = task("first", stages=[head(2), {**head(1, 1e-3, unfreeze="last 1 blocks"), "name": "top"}])
    again = replace(task("second"), recipe=first.recipe.model_copy(update={"seed": 11}))
    for one in (first, again):
        # A repeat with another seed keeps its splits.
        split = one.recipe.data.split.model_copy(update={"seed": 3})
        data = one.recipe.data.model_copy(update={"split": split})
        evaluate = one.recipe.evaluate.model_copy(update={"bootstrap_samples": 100})
        trial = replace(one, recipe=one.recipe.model_copy(update={"data": data, "evaluate": evaluate}))
        outcome = run_trial(shared, trial)
        alone = tmp_path / f"alone {one.trial_id}"
        assert run(["fit", str(trial.folder / "recipe.yaml"), "--run-dir", str(alone)]) == 0
        assert min(losses(alone)) == pytest.approx(outcome.objective, abs=1e-6)


def test_a_fine_tuning_is_judged_by_its_probe_and_what_it_gained_over_the_solved_head(shared, task, tmp_path):
    probed = tmp_path / "probed"
    probed.mkdir()
    write_probe(probed, {"value": 1.5})
    top = {"name": "top", "unfreeze": "all", "epochs": 2, "learning_rate": 1e-3}
    outcome = run_trial(shared, task("001-1", stages=[head(1, solve=True), top], probed=probed))
    assert outcome.status == "completed", outcome.error
    losses = [line["val"]["loss"] for line in read_json_lines(RunFolder(tmp_path / "001-1").metrics)]
    assert outcome.objective == pytest.approx(1.5 + min(losses) - losses[0])


def test_without_a_solved_head_a_fine_tuning_is_judged_on_validation(shared, task, tmp_path):
    probed = tmp_path / "probed"
    probed.mkdir()
    write_probe(probed, {"value": 1.5})
    outcome = run_trial(shared, task("001-1", stages=[head(2)], probed=probed))
    losses = [line["val"]["loss"] for line in read_json_lines(RunFolder(tmp_path / "001-1").metrics)]
    assert outcome.objective == pytest.approx(min(losses))
