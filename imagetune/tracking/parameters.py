"""Which of a run's parameters differ from the defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from imagetune.recipe.printing import list_recipe_values
from imagetune.recipe.schema import Recipe
from imagetune.tracking.content import flatten_recipe

_STAGE = re.compile(r"train\.stages\.\d+\.(.+)")


def sort_parameters(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return a run's parameters with those that differ from the defaults first, both in the recipe's order."""
    return dict(sorted(parameters.items(), key=lambda item: _read_default(item[0]) == item[1]))


def _read_default(name: str) -> str | None:
    """Return the default of a parameter, for each stage that of any stage; None for what has to be set."""
    stage = _STAGE.fullmatch(name)
    key = f"train.stages.0.{stage[1]}" if stage else name
    return None if stage and stage[1] in ("name", "epochs", "learning_rate") else _list_defaults().get(key)


@cache
def _list_defaults() -> dict[str, str]:
    stage = {"name": "stage", "epochs": 1, "learning_rate": "auto"}
    recipe = Recipe.model_validate({"data": {"source": "images"}, "train": {"stages": [stage]}})
    return {name: value for name, value in flatten_recipe(list_recipe_values(recipe)).items() if name != "data.source"}
