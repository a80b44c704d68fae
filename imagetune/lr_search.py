"""The learning-rate range test of a recipe, and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imagetune.errors import RecipeError
from imagetune.evaluation.rate_plot import write_rate_plot
from imagetune.jobs import build_pretrained, settle_batch_size, training_job
from imagetune.recipe.problems import did_you_mean
from imagetune.recipe.train import StageConfig
from imagetune.runs import Say, read_data
from imagetune.training.job import stage_model
from imagetune.training.lr_find import MAX_STEPS, RangeTest, find_learning_rate
from imagetune.training.stopping import listen_for_stop
from imagetune.validation import load_checked_recipe


def search_rate(recipe_path: Path, overrides: Sequence[str], *, stage: str | None, out: Path, say: Say) -> RangeTest:
    """Test the learning rates of a stage and draw what was seen; nothing but the picture is written.

    Args:
        recipe_path: The recipe.
        overrides: ``KEY=VALUE`` texts.
        stage: Name of the stage; the first by default. A later one is tested from the weights that training starts
            with, not from those that the stages before it would leave.
        out: The PNG file.
        say: Prints a line for the user.

    Raises:
        RecipeError: There is no such stage, or the recipe is wrong.
        ImagetuneError: As from ``fit``.
    """
    with listen_for_stop() as stop:
        recipe = load_checked_recipe(recipe_path, overrides).recipe
        chosen = _stage(recipe.train.stages, stage)
        data = read_data(recipe, say=say)
        pictures = data.pictures(recipe)
        recipe = settle_batch_size(recipe, pictures, say=say)
        model, _ = build_pretrained(recipe, pictures, say=say)
        job = training_job(recipe, pictures, model, stop=stop)
        say(f"stage       {chosen.name}: up to {MAX_STEPS} steps of {recipe.train.step_size} pictures at a rising rate")
        found = find_learning_rate(job, stage_model(job, chosen), chosen)
    write_rate_plot(found, out)
    return found


def _stage(stages: Sequence[StageConfig], name: str | None) -> StageConfig:
    for stage in stages:
        if name in (None, stage.name):
            return stage
    names = [stage.name for stage in stages]
    raise RecipeError(f"no stage is called {name!r}", where="--stage", hint=did_you_mean(str(name), names))
