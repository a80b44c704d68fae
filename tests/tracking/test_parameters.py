from __future__ import annotations

from imagetune.recipe.printing import list_recipe_values
from imagetune.recipe.schema import Recipe
from imagetune.tracking.content import flatten_recipe, sort_parameters


def test_parameters_that_someone_has_set_come_first():
    stages = [
        {"name": "head", "epochs": 3, "learning_rate": 0.001},
        {"name": "top", "unfreeze": "all", "epochs": 2, "learning_rate": 0.0001},
    ]
    values = {"seed": 3, "data": {"source": "birds"}, "train": {"stages": stages, "batch_size": 64}}
    parameters = flatten_recipe(list_recipe_values(Recipe.model_validate(values)))
    ordered = sort_parameters(parameters)
    assert ordered == parameters
    assert list(ordered)[:10] == [
        *("seed", "data.source"),
        *(f"train.stages.0.{key}" for key in ("name", "epochs", "learning_rate")),
        *(f"train.stages.1.{key}" for key in ("name", "unfreeze", "epochs", "learning_rate")),
        "train.batch_size",
    ]
    assert len(ordered) > 60
