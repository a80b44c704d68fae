import errno
import os

import keras
import numpy as np
import pytest

from imagetune.errors import CheckpointError, ResourceError
from imagetune.training.checkpoints import (
    TrainingState,
    checkpoints_in,
    commit_checkpoint,
    load_checkpoint,
    prune_checkpoints,
)


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def state(step):
    return TrainingState("head", step // 10, step, 0.5)


def test_a_checkpoint_brings_weights_and_place_back(tmp_path, model):
    path = commit_checkpoint(tmp_path, model, state(10))
    before = model.get_weights()
    model.set_weights([np.zeros_like(weight) for weight in before])
    assert load_checkpoint(path, model) == state(10)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_damaged_checkpoint_is_refused(tmp_path, model):
    path = commit_checkpoint(tmp_path, model, state(10))
    weights = path / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="missing or damaged"):
        load_checkpoint(path, model)


def test_a_failed_write_leaves_earlier_checkpoints_and_nothing_temporary(tmp_path, model, monkeypatch):
    first = commit_checkpoint(tmp_path, model, state(10))

    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(model, "save_weights", full)
    with pytest.raises(ResourceError, match="No space left"):
        commit_checkpoint(tmp_path, model, state(20))
    assert list(tmp_path.iterdir()) == [first]
    assert load_checkpoint(first, model).step == 10


def test_the_same_step_may_be_committed_again(tmp_path, model):
    commit_checkpoint(tmp_path, model, state(10))
    commit_checkpoint(tmp_path, model, state(10))
    assert len(checkpoints_in(tmp_path)) == 1


def test_the_best_and_the_last_two_are_kept(tmp_path, model):
    paths = [commit_checkpoint(tmp_path, model, state(step)) for step in (10, 20, 30, 40)]
    prune_checkpoints(tmp_path, best=paths[0])
    assert checkpoints_in(tmp_path) == [paths[0], paths[2], paths[3]]
