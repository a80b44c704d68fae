"""The start of the processes that a search's trials are forked from, before this process imports Keras itself.

It stands apart from `imagetune.commands.search`, whose imports take the seconds that are to be used here.
"""

from __future__ import annotations

from imagetune.recipe.loading import Overrides, RecipeSource, load_recipe
from imagetune.search.trial_process.forkserver import start_trial_forkserver


def start_trial_processes(recipe: RecipeSource, overrides: Overrides = ()) -> None:
    """Let the process that trials are forked from import Keras while this one does so for itself.

    Nothing is started where the trials run elsewhere, as ``search.executor`` says.

    Args:
        recipe: The YAML file, or the same as a mapping.
        overrides: ``KEY=VALUE`` texts, or Python values by dotted key.

    Raises:
        RecipeError: The recipe can't be read.
    """
    if load_recipe(recipe, overrides).recipe.search.executor == "local":
        start_trial_forkserver()
