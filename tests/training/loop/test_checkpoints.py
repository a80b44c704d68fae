import errno
import json
import os
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest

from imagetune.errors import CheckpointError, ResourceError
from imagetune.training.loop.checkpoints import (
    commit_checkpoint,
    copy_checkpoint,
    find_resume_point,
    link_initial_weights,
    list_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    reopen_checkpoint,
)
from imagetune.training.loop.state import BestEpoch, StageState, TrainingState
from imagetune.training.optimization.optimizer import Slots
from imagetune.training.optimization.schedules import PlateauState
from imagetune.training.setup.events import EpochRecord


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def state(step, **values):
    return TrainingState(step // 10, step, stage=StageState("head", 0, 0, 1e-3), **values)


def test_a_checkpoint_brings_weights_and_place_back(tmp_path, model):
    path = commit_checkpoint(tmp_path, model, state(10))
    before = model.get_weights()
    model.set_weights([np.zeros_like(weight) for weight in before])
    assert load_checkpoint(path, model) == state(10)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", ["start.npz", "changed.npz"])
def test_a_corrupted_checkpoint_is_refused(tmp_path, model, name):
    path = commit_checkpoint(tmp_path, model, state(10))
    weights = path / name
    weights.write_bytes(weights.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="missing or corrupted"):
        load_checkpoint(path, model)


def test_a_failed_write_leaves_earlier_checkpoints_and_nothing_temporary(tmp_path, model, monkeypatch):
    first = commit_checkpoint(tmp_path, model, state(10))

    def full(path, **_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("imagetune.training.loop.checkpoints.np.savez", full)
    with pytest.raises(ResourceError, match="No space left"):
        commit_checkpoint(tmp_path, model, state(20))
    assert list(tmp_path.iterdir()) == [first]
    assert load_checkpoint(first, model).step == 10


def test_only_what_has_changed_is_written_again(tmp_path, model):
    first = commit_checkpoint(tmp_path, model, state(0))
    start = link_initial_weights(first, model)
    shutil.rmtree(first)
    model.weights[1].assign([5.0, 6.0])
    second = commit_checkpoint(tmp_path, model, state(10), start)
    with np.load(second / "changed.npz") as changed:
        assert changed.files == ["1"]
    assert (second / "start.npz").samefile(tmp_path / "start.npz")
    kept = model.get_weights()
    model.set_weights([np.zeros_like(weight) for weight in kept])
    load_checkpoint(second, model)
    for old, new in zip(kept, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_where_links_cannot_be_made_the_start_is_copied(tmp_path, model, monkeypatch):
    first = commit_checkpoint(tmp_path, model, state(0))
    start = link_initial_weights(first, model)

    def refused(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    second = commit_checkpoint(tmp_path, model, state(10), start)
    assert not (second / "start.npz").samefile(first / "start.npz")
    assert load_checkpoint(second, model).step == 10


def test_the_same_step_may_be_committed_again(tmp_path, model):
    commit_checkpoint(tmp_path, model, state(10))
    commit_checkpoint(tmp_path, model, state(10))
    assert len(list_checkpoints(tmp_path)) == 1


def test_the_best_and_the_last_two_are_kept(tmp_path, model):
    record = EpochRecord("head", 1, 10, {"loss": 0.1}, {}, 1e-3, 12.5)
    best = BestEpoch(record, tmp_path / "step-00000010")
    paths = [commit_checkpoint(tmp_path, model, state(step, best=best)) for step in (10, 20, 30, 40)]
    prune_checkpoints(tmp_path)
    assert list_checkpoints(tmp_path) == [paths[0], paths[2], paths[3]]


def test_what_an_older_checkpoint_needs_is_kept_as_long_as_it_is(tmp_path, model):
    record = EpochRecord("head", 1, 10, {"loss": 0.1}, {}, 1e-3, 12.5)
    for step, best in ((10, 10), (20, 20), (30, 20), (40, 40)):
        commit_checkpoint(tmp_path, model, state(step, best=BestEpoch(record, tmp_path / f"step-{best:08d}")))
        prune_checkpoints(tmp_path)
    # The newest is its own best; should it turn out corrupted, the one before needs that of step 20.
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000020", "step-00000030", "step-00000040"]


def test_a_corrupted_checkpoint_is_passed_over(tmp_path, model):
    for step in (10, 20, 30):
        commit_checkpoint(tmp_path, model, replace(state(step), arrays={"optimizer/0": np.arange(3)}))
    (tmp_path / "step-00000030" / "resume.npz").write_bytes(b"")
    found = find_resume_point(tmp_path)
    assert found is not None
    assert found.checkpoint.name == "step-00000020"
    assert [error.where for error in found.passed_over] == [str(tmp_path / "step-00000030")]
    for step in (10, 20):
        (tmp_path / f"step-{step:08d}" / "changed.npz").unlink()
    with pytest.raises(CheckpointError, match="missing or corrupted"):
        find_resume_point(tmp_path)


@pytest.mark.parametrize("missing", ["start.npz", "changed.npz", "resume.npz"])
def test_a_checkpoint_that_was_renamed_only_in_part_does_not_count(tmp_path, model, missing):
    # As a mounted object store leaves it, which copies a folder file by file.
    for step in (10, 20):
        commit_checkpoint(tmp_path, model, replace(state(step), arrays={"optimizer/0": np.arange(3)}))
    (tmp_path / "step-00000020" / missing).unlink()
    found = find_resume_point(tmp_path)
    assert found is not None
    assert found.checkpoint.name == "step-00000010"


def test_the_weights_before_the_first_step_are_no_place_to_resume_from(tmp_path, model):
    commit_checkpoint(tmp_path, model, state(0))
    assert find_resume_point(tmp_path) is None


@pytest.mark.parametrize("name", ["../step-00000010", "step-1/../..", "/etc"])
def test_a_checkpoint_names_no_place_outside_its_folder(tmp_path, model, name):
    path = commit_checkpoint(tmp_path, model, state(10))
    content = json.loads((path / "state.json").read_text())
    content["stage"]["baseline"] = name
    (path / "state.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        load_checkpoint(path, model)


def test_only_trained_weights_are_restored_where_that_is_known(tmp_path, model):
    model.weights[1].assign([5.0, 6.0])
    start = link_initial_weights(commit_checkpoint(tmp_path, model, state(0)), model)
    kept = model.get_weights()
    model.weights[0].assign(kept[0] + 1.0)
    path = commit_checkpoint(tmp_path, model, state(10, learned=frozenset({0})), start)
    model.set_weights([np.zeros_like(weight) for weight in kept])
    load_checkpoint(path, model, [0])
    np.testing.assert_array_equal(model.get_weights()[0], kept[0] + 1.0)
    np.testing.assert_array_equal(model.get_weights()[1], 0.0)


def test_what_going_on_needs_comes_back(tmp_path, model):
    start = link_initial_weights(commit_checkpoint(tmp_path, model, state(0)), model)
    committed = replace(state(10), arrays={"optimizer/0": np.arange(3)})
    path = copy_checkpoint(commit_checkpoint(tmp_path, model, committed, start), tmp_path / "other")
    found, begun = reopen_checkpoint(path, model)
    assert replace(found, arrays={}) == state(10)
    np.testing.assert_array_equal(found.arrays["optimizer/0"], np.arange(3))
    assert begun.digests == start.digests
    assert begun.file == tmp_path / "other" / "start.npz"
    with pytest.raises(CheckpointError, match="weights that it started with"):
        reopen_checkpoint(tmp_path / "step-00000000", model)


def test_every_value_of_the_state_comes_back(tmp_path, model):
    record = EpochRecord("head", 3, 30, {"loss": 0.1}, {"loss": 1 / 3, "accuracy": 0.5}, 1e-3 / 7, 12.5)
    stage = StageState("head", 1, 10, 1e-3 / 3, "pooling", "it pays", 2, PlateauState(1e-4, 0.3, 29, 1), 2, True)
    whole = TrainingState(
        epoch=3,
        step=30,
        best=BestEpoch(record, tmp_path / "step-00000030"),
        last=replace(record, epoch=4),
        learned=frozenset({0, 1}),
        slots=Slots(steps={0: 10, 1: 20}),
        stage=stage,
    )
    assert load_checkpoint(commit_checkpoint(tmp_path, model, whole), model) == whole


def test_a_state_with_an_unknown_value_is_refused(tmp_path, model):
    path = commit_checkpoint(tmp_path, model, state(10))
    content = json.loads((path / "state.json").read_text())
    content["stage"]["mood"] = "good"
    (path / "state.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="can't be read"):
        load_checkpoint(path, model)


def test_a_checkpoint_of_another_model_is_refused(tmp_path, model):
    path = commit_checkpoint(tmp_path, model, state(10))
    larger = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(2)])
    with pytest.raises(CheckpointError, match="holds 2 weights, the model has 4"):
        load_checkpoint(path, larger)
