"""What can be refused before Keras is imported, which takes seconds: the recipe, its source and its labels.

It stands apart from the commands, whose own imports take those seconds.
"""

from __future__ import annotations

from imagetune.data.sources.read import read_catalog
from imagetune.recipe.loading import Overrides, RecipeSource
from imagetune.runs.checks.recipe import load_checked_recipe


def check_inputs(recipe: RecipeSource, overrides: Overrides = ()) -> None:
    """Raise what is wrong with a recipe, or with the folder or table that it names; no image is opened.

    Args:
        recipe: The YAML file, the same as a mapping, or a folder of images or a table.
        overrides: ``KEY=VALUE`` texts, or Python values by dotted key.

    Raises:
        RecipeError: All mistakes in the recipe.
        DataError: There is no such source, it has no images, or its labels don't fit the task.
    """
    loaded = load_checked_recipe(recipe, overrides)
    with loaded.placing_errors():
        read_catalog(loaded.recipe.data)
