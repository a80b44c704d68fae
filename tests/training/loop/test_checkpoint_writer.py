import errno
import os
import threading

import keras
import numpy as np
import pytest

from imagetune.errors import ResourceError
from imagetune.training.loop import checkpoints
from imagetune.training.loop.checkpoint_writer import CheckpointWriter
from imagetune.training.loop.checkpoints import (
    commit_checkpoint,
    link_initial_weights,
    list_checkpoints,
    load_checkpoint,
)
from imagetune.training.loop.state import StageState, TrainingState


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


@pytest.fixture
def initial(tmp_path, model):
    return link_initial_weights(commit_checkpoint(tmp_path, model, TrainingState()), model)


@pytest.fixture
def slow_disk(monkeypatch):
    """Return the event that a disk waits for before it takes anything."""
    ready, write = threading.Event(), np.savez

    def savez(path, **arrays):
        assert ready.wait(30)
        write(path, **arrays)

    monkeypatch.setattr(checkpoints.np, "savez", savez)
    return ready


@pytest.fixture
def full_disk(monkeypatch):
    def savez(path, **_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(checkpoints.np, "savez", savez)


def state(step):
    return TrainingState(step // 10, step, learned=frozenset({0, 1}), stage=StageState("head", 0, 0, 1e-3))


def names(folder):
    return [path.name for path in list_checkpoints(folder)]


def test_training_goes_on_while_a_checkpoint_of_the_weights_as_they_were_is_written(
    tmp_path, model, initial, slow_disk
):
    committed = [np.full_like(weight, 0.5) for weight in model.get_weights()]
    model.set_weights(committed)
    with CheckpointWriter(tmp_path, initial) as writer:
        writer.commit(model, state(10))
        # What the next step does, in the same memory.
        for weight in model.weights:
            weight.assign_add(keras.ops.ones_like(weight))
        assert writer.busy and names(tmp_path) == ["step-00000000"]
        slow_disk.set()
    load_checkpoint(tmp_path / "step-00000010", model)
    for expected, weight in zip(committed, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_at_the_end_the_last_checkpoint_is_complete_and_older_ones_are_pruned(tmp_path, model, initial):
    with CheckpointWriter(tmp_path, initial) as writer:
        for step in (10, 20, 30):
            writer.commit(model, state(step))
    assert names(tmp_path) == ["step-00000020", "step-00000030"]


def test_a_full_disk_is_told_by_the_next_call_and_earlier_checkpoints_stay(tmp_path, model, initial, full_disk):
    with CheckpointWriter(tmp_path, initial) as writer:
        writer.commit(model, state(10))
        with pytest.raises(ResourceError, match="No space left"):
            writer.wait()
        # Told once.
        writer.check()
    assert names(tmp_path) == ["step-00000000"]
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_full_disk_is_told_at_the_end(tmp_path, model, initial, full_disk):
    with pytest.raises(ResourceError, match="No space left"), CheckpointWriter(tmp_path, initial) as writer:
        writer.commit(model, state(10))


def test_the_first_error_stays_the_one_that_is_told(tmp_path, model, initial, full_disk):
    with pytest.raises(ValueError, match="the loss"), CheckpointWriter(tmp_path, initial) as writer:
        writer.commit(model, state(10))
        raise ValueError("the loss")
