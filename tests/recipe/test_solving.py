"""Solved heads in recipes: presets, stages of one's own, and what stands in their way."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from imagetune.errors import RecipeError
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.sections.train import TrainConfig
from imagetune.recipe.solving import find_solver_obstacle
from imagetune.runs.checks.recipe import load_checked_recipe


def read_train(**section: object) -> TrainConfig:
    """Return a validated ``train`` section."""
    return TrainConfig.model_validate(section)


@pytest.mark.parametrize("preset", ["linear_probe", "head_then_top", "lp_ft", "gradual"])
def test_a_preset_solves_its_head_where_that_can_be_done(preset: str) -> None:
    stages = read_train(stages=preset).stages
    assert stages[0].solve == "auto"
    assert not any(stage.solve for stage in stages[1:])


def test_whoever_names_a_learning_rate_gets_a_trained_head() -> None:
    assert read_train(stages="linear_probe", learning_rate=1e-2).stages[0].solve is False
    assert read_train(stages="linear_probe", solve=False).stages[0].solve is False
    assert read_train(stages="linear_probe", epochs=3).stages[0].solve == "auto"


def test_a_solved_stage_needs_neither_epochs_nor_a_learning_rate() -> None:
    (stage,) = read_train(stages=[{"name": "head", "solve": True}]).stages
    assert stage.epochs == 1


def test_a_trained_stage_needs_both() -> None:
    with pytest.raises(ValidationError, match="epochs"):
        read_train(stages=[{"name": "head"}])


def test_what_is_unfrozen_cannot_be_solved() -> None:
    with pytest.raises(ValidationError, match="only a head on a frozen backbone can be solved"):
        read_train(stages=[{"name": "top", "unfreeze": "last 1 blocks", "solve": True}])


def test_a_solved_stage_has_no_gain_to_prove() -> None:
    with pytest.raises(ValidationError, match="min_gain_standard_errors is for stages that are trained"):
        read_train(stages=[{"name": "head", "solve": True, "min_gain_standard_errors": 2}])


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"model.head": {"hidden": [64]}}, "hidden layers"),
        ({"model.head": {"l2": 0.1}}, "penalties of its own"),
        ({"train.loss": "focal"}, "focal is not known to be convex"),
        ({"train.mix": "mixup"}, "mixup blends images"),
        ({"train.cache": "off"}, "train.cache is off"),
        ({"train.stages": [{"name": "head", "solve": True, "image_size": 64}]}, "an image size of its own"),
    ],
)
def test_a_head_that_must_be_solved_and_cannot_be_is_refused_with_the_reason(overrides, reason) -> None:
    recipe = {"name": "x", "data": {"source": "x"}, "train": {"stages": [{"name": "head", "solve": True}]}}
    with pytest.raises(RecipeError, match=reason) as caught:
        load_checked_recipe(recipe, overrides)
    assert caught.value.where.endswith("train.stages[0].solve")


@pytest.mark.parametrize("task", ["single_label", "multi_label", "ordinal", "regression"])
def test_the_default_loss_of_every_task_can_be_solved(task) -> None:
    recipe = load_recipe({"name": "x", "data": {"source": "x", "task": task}}).recipe
    assert find_solver_obstacle(recipe.train, recipe.train.stages[0], recipe.model.head, task) == ""


def test_what_a_dropped_stage_would_have_trained_is_not_what_the_weights_are_made_by() -> None:
    train = read_train(stages="auto")
    assert train.trains_backbone
    assert not train.until("head").trains_backbone
    assert train.until("top") == train
