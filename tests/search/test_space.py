from __future__ import annotations

import pytest

from imagetune.recipe.search import ChoiceSpace, IntSpace, LogUniformSpace, UniformSpace
from imagetune.search.space import grid_size, hyperparameters_of, on_grid, proposal_of, values_of

RATE = ("train", "stages", 0, "learning_rate")
MIXED = ("train", "stages", 0, "unfreeze")
BATCH = ("train", "batch_size")
SPACES = {
    RATE: LogUniformSpace(search="log_uniform", low=1e-5, high=1e-1),
    MIXED: ChoiceSpace(search="choice", values=("none", None, True, 1, 1.0, "1")),
    BATCH: IntSpace(search="int", low=8, high=64, step=8),
}


def test_hyperparameters_are_named_by_the_dotted_path_of_the_recipe():
    names = [each.name for each in hyperparameters_of(SPACES).space]
    assert names == ["train.stages[0].learning_rate", "train.stages[0].unfreeze", "train.batch_size"]


@pytest.mark.parametrize("value", ["none", None, True, 1, 1.0, "1"])
def test_a_choice_keeps_the_value_and_its_type(value):
    values = {RATE: 0.001, MIXED: value, BATCH: 16}
    returned = values_of(SPACES, proposal_of(SPACES, values))
    assert returned == values
    assert type(returned[MIXED]) is type(value)


def test_keras_tuner_keys_do_not_come_back():
    proposal = proposal_of(SPACES, {RATE: 0.001, MIXED: None, BATCH: 16})
    assert set(values_of(SPACES, {**proposal, "tuner/epochs": 3, "tuner/bracket": 1})) == set(SPACES)


def test_proposed_numbers_are_short_and_stay_in_their_range():
    spaces = {RATE: LogUniformSpace(search="log_uniform", low=1.23456489e-4, high=1e-1)}
    name = "train.stages[0].learning_rate"
    assert values_of(spaces, {name: 0.0031622776601683795}) == {RATE: 0.00316228}
    assert values_of(spaces, {name: 1.23456489e-4}) == {RATE: 1.23456489e-4}


@pytest.mark.parametrize("value", [2.0, "0.1", True])
def test_a_value_outside_its_space_is_refused(value):
    with pytest.raises(ValueError, match=r"is not between 1e-05 and 0\.1"):
        proposal_of({RATE: SPACES[RATE]}, {RATE: value})


def test_a_grid_has_both_ends_of_a_range_and_even_steps():
    dropout = ("model", "head", "dropout")
    grid = on_grid({**SPACES, dropout: UniformSpace(search="uniform", low=0.0, high=0.4)})
    assert grid[RATE].values == (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    assert grid[dropout].values == (0.0, 0.1, 0.2, 0.3, 0.4)
    assert grid_size(grid) == 5 * 6 * 8 * 5
