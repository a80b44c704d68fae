from __future__ import annotations

import pytest

from imagetune.recipe.schema import Recipe
from imagetune.search import choose_executor
from imagetune.search.choose_executor import describe_slots, plan_local_slots
from imagetune.search.executors.slots import Machine, Needs, plan_slots

GIB = 2**30


@pytest.fixture
def slots(monkeypatch):
    """Return how many trials run at a time on a machine without GPUs."""

    def count(search, *, cores, memory=64 * GIB, unfreeze="none", **train):
        monkeypatch.setattr(choose_executor, "this_machine", lambda _: Machine(cores, (), memory))
        stages = [{"name": "only", "unfreeze": unfreeze, "epochs": 1, "learning_rate": 1e-3}]
        recipe = {"data": {"source": "images"}, "train": {"stages": stages, **train}, "search": search}
        return len(plan_local_slots(Recipe.model_validate(recipe)))

    return count


def test_a_head_on_kept_features_takes_a_core_and_a_backbone_several(slots):
    random = {"algorithm": "random", "early_stop": "none"}
    assert slots(random, cores=2) == 2
    assert slots(random, cores=2, unfreeze="all") == 1
    assert slots(random, cores=8, unfreeze="all") == 2
    assert slots(random, cores=2, cache="off") == 1
    assert slots(random, cores=8) == 8
    assert slots(random, cores=8, memory=3 * GIB) == 3


def test_trials_that_learn_from_earlier_ones_do_not_all_begin_at_once(slots):
    assert slots({"algorithm": "bayesian", "early_stop": "none"}, cores=32) == 4
    assert slots({"algorithm": "random", "early_stop": "median"}, cores=32) == 4
    assert slots({"algorithm": "random", "early_stop": "none"}, cores=32) == 16


def test_backbones_of_a_bake_off_have_the_cores_for_themselves(slots):
    assert slots({"algorithm": "bakeoff"}, cores=2) == 1


def test_a_number_is_the_users(slots):
    assert slots({"parallel": 3}, cores=1, memory=GIB) == 3


def test_many_trials_at_a_time_are_described_in_one_line():
    def described(parallel, *gpus):
        found = plan_slots(parallel, Machine(2, gpus, 4 * GIB), Needs(1, GIB, 4))
        return describe_slots(found, 2)

    assert described(2) == "2 at a time on 2 cores"
    assert described(99) == "99 at a time on 2 cores; more trials than cores, so that each takes longer"
    assert described(3, "0", "1") == "3 at a time: gpu 0 (1 of 2), gpu 1, gpu 0 (2 of 2)"
