"""Checks of a search's recipe before an image is read: spaces, grid size, folds and validation split."""

from __future__ import annotations

from imagetune.errors import RecipeError
from imagetune.recipe.loading import LoadedRecipe
from imagetune.search.results.bakeoff import check_bakeoff
from imagetune.search.space import count_grid_points, discretise_spaces


def check_recipe(loaded: LoadedRecipe) -> None:
    """Check that a recipe can be searched.

    Raises:
        RecipeError: There is no search space, a grid has more points than ``search.trials``, the spaces are not those
            of a bake-off, ``evaluate.folds`` is set, or there are no validation images.
    """
    recipe, config = loaded.recipe, loaded.recipe.search
    if not loaded.spaces:
        hint = "replace a value by a space, such as learning_rate: {search: log_uniform, low: 1e-5, high: 1e-2}"
        raise RecipeError("the recipe has nothing to search", where=loaded.document.name, hint=hint)
    if config.algorithm == "bakeoff":
        check_bakeoff(loaded)
    if recipe.evaluate.folds is not None:
        hint = "search with -o evaluate.folds=null, then fit best.yaml with folds; search.folds judges trials by folds"
        raise loaded.error(("evaluate", "folds"), "a search doesn't cross-validate its winner", hint=hint)
    if recipe.data.split.val == 0 and config.folds is None:
        raise loaded.error(("data", "split"), "a search needs validation images, and val is 0")
    points = count_grid_points(discretise_spaces(loaded.spaces)) if config.algorithm == "grid" else 0
    if points > config.trials:
        what = f"the grid has {points} points, search.trials allows {config.trials}, and part of a grid says little"
        hint = "raise search.trials, offer fewer values, or use algorithm: random"
        raise loaded.error(("search", "trials"), what, hint=hint)
