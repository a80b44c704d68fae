from __future__ import annotations

import numpy as np
import pytest

from imagetune.recipe.sections.search import ChoiceSpace, IntSpace, LogUniformSpace, UniformSpace
from imagetune.search.space import (
    build_proposal,
    compute_position,
    convert_to_hyperparameters,
    count_grid_points,
    count_settings,
    discretise_spaces,
    draw_neighbour,
    draw_setting,
    get_default_setting,
    is_setting,
    parse_proposal,
)

RATE = ("train", "stages", 0, "learning_rate")
MIXED = ("train", "stages", 0, "unfreeze")
BATCH = ("train", "batch_size")
SPACES = {
    RATE: LogUniformSpace(search="log_uniform", low=1e-5, high=1e-1),
    MIXED: ChoiceSpace(search="choice", values=("none", None, True, 1, 1.0, "1")),
    BATCH: IntSpace(search="int", low=8, high=64, step=8),
}


def test_hyperparameters_are_named_by_the_dotted_path_of_the_recipe():
    names = [each.name for each in convert_to_hyperparameters(SPACES).space]
    assert names == ["train.stages[0].learning_rate", "train.stages[0].unfreeze", "train.batch_size"]


@pytest.mark.parametrize("value", ["none", None, True, 1, 1.0, "1"])
def test_a_choice_keeps_the_value_and_its_type(value):
    values = {RATE: 0.001, MIXED: value, BATCH: 16}
    returned = parse_proposal(SPACES, build_proposal(SPACES, values))
    assert returned == values
    assert type(returned[MIXED]) is type(value)


def test_keras_tuner_keys_do_not_come_back():
    proposal = build_proposal(SPACES, {RATE: 0.001, MIXED: None, BATCH: 16})
    assert set(parse_proposal(SPACES, {**proposal, "tuner/epochs": 3, "tuner/bracket": 1})) == set(SPACES)


def test_proposed_numbers_are_short_and_stay_in_their_range():
    spaces = {RATE: LogUniformSpace(search="log_uniform", low=1.23456489e-4, high=1e-1)}
    name = "train.stages[0].learning_rate"
    assert parse_proposal(spaces, {name: 0.0031622776601683795}) == {RATE: 0.00316228}
    assert parse_proposal(spaces, {name: 1.23456489e-4}) == {RATE: 1.23456489e-4}


@pytest.mark.parametrize("value", [2.0, "0.1", True])
def test_a_value_outside_its_space_is_refused(value):
    with pytest.raises(ValueError, match=r"is not between 1e-05 and 0\.1"):
        build_proposal({RATE: SPACES[RATE]}, {RATE: value})


def test_a_grid_has_both_ends_of_a_range_and_even_steps():
    dropout = ("model", "head", "dropout")
    grid = discretise_spaces({**SPACES, dropout: UniformSpace(search="uniform", low=0.0, high=0.4)})
    assert grid[RATE].values == (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    assert grid[dropout].values == (0.0, 0.1, 0.2, 0.3, 0.4)
    assert count_grid_points(grid) == 5 * 6 * 8 * 5


OPTIMIZER = ("train", "optimizer")
DECAY = ("train", "stages", 1, "layer_decay")
SGD = {"name": "sgd", "momentum": 0.9}
CONDITIONAL = {
    DECAY: UniformSpace(search="uniform", low=0.5, high=1.0, default=0.8, when={"train.optimizer": [SGD, "lion"]}),
    OPTIMIZER: ChoiceSpace(search="choice", values=("adamw", SGD, "lion", [1, {"a": None}])),
}


@pytest.mark.parametrize("value", CONDITIONAL[OPTIMIZER].values, ids=str)
def test_a_whole_section_is_a_value(value):
    spaces = {OPTIMIZER: CONDITIONAL[OPTIMIZER]}
    assert parse_proposal(spaces, build_proposal(spaces, {OPTIMIZER: value})) == {OPTIMIZER: value}


def test_equal_numbers_within_sections_are_different_values():
    spaces = {OPTIMIZER: ChoiceSpace(search="choice", values=({"nesterov": 1}, {"nesterov": True}, {"nesterov": 1.0}))}
    assert [build_proposal(spaces, {OPTIMIZER: {"nesterov": value}}) for value in (1, True, 1.0)] == [
        {"train.optimizer": index} for index in range(3)
    ]


def test_keras_tuner_knows_the_conditions():
    spaces = CONDITIONAL
    hyperparameters = convert_to_hyperparameters(spaces)
    assert [each.name for each in hyperparameters.space] == ["train.optimizer", "train.stages[1].layer_decay"]
    active = []
    for index in range(4):
        hyperparameters.values = {"train.optimizer": index}
        active.append(hyperparameters.is_active("train.stages[1].layer_decay"))
    assert active == [False, True, True, False]


def test_defaults_leave_out_what_is_not_in_force():
    spaces = CONDITIONAL
    assert get_default_setting(spaces) == {OPTIMIZER: "adamw"}
    sgd = ChoiceSpace(search="choice", values=("adamw", SGD), default=SGD)
    assert get_default_setting({**spaces, OPTIMIZER: sgd}) == {DECAY: 0.8, OPTIMIZER: SGD}


@pytest.mark.parametrize(
    ("values", "good"),
    [
        ({OPTIMIZER: "adamw"}, True),
        ({OPTIMIZER: SGD, DECAY: 0.7}, True),
        ({OPTIMIZER: SGD}, False),
        ({OPTIMIZER: "adamw", DECAY: 0.7}, False),
        ({OPTIMIZER: SGD, DECAY: 1.7}, False),
        ({OPTIMIZER: "adam"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_a_setting_has_a_value_for_each_space_in_force_and_no_other(values, good):
    assert is_setting(CONDITIONAL, values) == good


def test_random_settings_and_their_neighbours_are_settings():
    spaces = {**CONDITIONAL, **SPACES}
    random = np.random.default_rng(0)
    drawn = [draw_setting(spaces, random) for _ in range(200)]
    near = [draw_neighbour(spaces, values, random, width=0.1) for values in drawn]
    assert all(is_setting(spaces, values) for values in (*drawn, *near))
    assert {values[OPTIMIZER] if isinstance(values[OPTIMIZER], str) else "" for values in drawn} == {
        "adamw",
        "lion",
        "",
    }
    steps = [
        abs(compute_position(spaces[RATE], first[RATE]) - compute_position(spaces[RATE], second[RATE]))
        for first, second in zip(drawn, near, strict=True)
    ]
    assert 0.03 < np.mean(steps) < 0.1


def test_a_space_that_is_not_in_force_multiplies_no_grid():
    spaces = CONDITIONAL
    assert count_grid_points(discretise_spaces(spaces)) == 2 + 2 * 5
    assert count_settings(spaces) is None
    assert count_settings({BATCH: IntSpace(search="int", low=1, high=4)}) == 4
    assert discretise_spaces(spaces)[DECAY].when == spaces[DECAY].when


def test_a_wide_range_of_whole_numbers_is_drawn_from_without_listing_it():
    spaces = {BATCH: IntSpace(search="int", low=0, high=10**9)}
    drawn = {draw_setting(spaces, np.random.default_rng(seed))[BATCH] for seed in range(5)}
    assert len(drawn) == 5
    assert max(drawn) > 10**8
