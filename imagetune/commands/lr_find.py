"""The learning-rate range test of a recipe's stage (Smith 2017, arXiv 1506.01186), and its plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imagetune.core.messages import Say, say_nothing
from imagetune.errors import RecipeError
from imagetune.recipe.problems import suggest_known_word
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.train import StageConfig
from imagetune.recipe.solving import is_solved
from imagetune.reports.plots.lr_range_test import write_range_test_plot
from imagetune.runs.checks.recipe import load_checked_recipe
from imagetune.runs.prepare import prepare_training, read_data
from imagetune.training.measure.lr_find import MAX_STEPS, RangeTest, find_stage_learning_rate
from imagetune.training.setup.job import build_stage_model
from imagetune.training.setup.stopping import StopRequest


def find_learning_rate(
    recipe_path: Path,
    overrides: Sequence[str] = (),
    *,
    stage: str | None = None,
    out: Path | None = None,
    say: Say = say_nothing,
    stop: StopRequest | None = None,
) -> RangeTest:
    """Return the loss of a stage at rising learning rates, and plot it; nothing but the plot is written.

    Args:
        recipe_path: The recipe.
        overrides: ``KEY=VALUE`` texts.
        stage: Name of the stage; by default the first that is trained, as a solved head has no learning rate. A later
            one is tested from the weights that training starts with, not from those that the stages before it leave.
        out: The PNG file of the plot; none is written by default.
        say: Receives progress messages.
        stop: Asked after every step; by default nothing stops it.

    Raises:
        RecipeError: There is no such stage, or the recipe is wrong.
        ImagetuneError: As from ``fit``.
    """
    recipe = load_checked_recipe(recipe_path, overrides).recipe
    # Before the images are read: a misspelt stage shouldn't take minutes to find.
    chosen = _find_stage(recipe, stage)
    data = read_data(recipe, say=say)
    # A hundred steps are over before a measurement of the best number of workers would pay.
    training = prepare_training(recipe, data, say=say, stop=stop or StopRequest(), workers="as_written")
    job, size = training.job, training.recipe.train.step_size
    epochs = MAX_STEPS * size / len(data.splits.train)
    much = f"as much as {epochs:.1f} epochs without kept features"
    say("stage", f"{chosen.name}: up to {MAX_STEPS} steps of {size} images at a rising learning rate, {much}")
    found = find_stage_learning_rate(job, build_stage_model(job, chosen), chosen)
    if out is not None:
        write_range_test_plot(found, out)
    return found


def _find_stage(recipe: Recipe, name: str | None) -> StageConfig:
    """Return the trained stage of a name, or the first one."""
    train, stages = recipe.train, recipe.train.stages
    trained = [stage for stage in stages if not is_solved(train, stage, recipe.model.head, recipe.data.task)]
    for stage in trained:
        if name in (None, stage.name):
            return stage
    names = [stage.name for stage in stages]
    if name is not None and name not in names:
        raise RecipeError(f"no stage is called {name!r}", where="--stage", hint=suggest_known_word(str(name), names))
    what = "every stage is solved" if name is None else f"the head of stage {name!r} is solved"
    hint = "set solve: false for the stage (beside a preset, train.solve: false) to train its head"
    where = "train.stages" if name is None else "--stage"
    raise RecipeError(f"{what}, so that it has no learning rate", where=where, hint=hint)
