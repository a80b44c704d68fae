from pathlib import Path

import numpy as np
import pytest

from imagetune.errors import RecipeError
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.plain_values import convert_to_plain_values


def test_values_of_a_program_become_those_of_a_file():
    given = {"a": (1, np.float64(0.5)), 3: Path("x") / "y", "b": {"c": np.arange(2)}, "d": None, "e": True}
    assert convert_to_plain_values(given, name="") == {
        "a": [1, 0.5],
        "3": "x/y",
        "b": {"c": [0, 1]},
        "d": None,
        "e": True,
    }


def test_what_can_be_no_key_is_refused_by_its_place():
    with pytest.raises(RecipeError, match="^data: null can't be a key"):
        convert_to_plain_values({"data": {None: 1}}, name="")


def test_values_that_hold_themselves_are_refused():
    endless = {}
    endless["train"] = endless
    with pytest.raises(RecipeError, match="nested deeper than 40 levels"):
        convert_to_plain_values(endless, name="")


def test_a_mapping_is_a_recipe_whose_paths_start_at_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"data": {"source": Path("images")}, "train": {"stages": "linear_probe"}}
    recipe = load_recipe(given, {"train.epochs": 3, "train.stages.0.learning_rate": np.float32(0.5)}).recipe
    assert recipe.name == "run"
    assert recipe.data.source == str(tmp_path / "images")
    assert recipe.train.stages[0].learning_rate == 0.5
    assert given == {"data": {"source": Path("images")}, "train": {"stages": "linear_probe"}}
    assert load_recipe(recipe).recipe == recipe


def test_a_space_in_a_mapping_is_found_and_its_mistakes_have_its_key():
    rate = {"search": "log_uniform", "low": 1e-4, "high": 1e-2}
    given = {"data": {"source": "images"}, "train": {"stages": "linear_probe"}}
    assert list(load_recipe(given, {"train.learning_rate": rate}).spaces) == [("train", "learning_rate")]
    with pytest.raises(RecipeError) as caught:
        load_recipe(given, {"train.learning_rate": {**rate, "hihg": 1}})
    assert caught.value.where == "train.learning_rate"
