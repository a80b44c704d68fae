"""The main job: a model fine-tuned as a recipe says, tested once, and recorded as a run."""

from __future__ import annotations

from pathlib import Path

from imagetune.core.messages import Say, say_nothing
from imagetune.recipe.loading import Overrides, RecipeSource
from imagetune.recipe.schema import Recipe
from imagetune.runs.checks.recipe import load_checked_recipe
from imagetune.runs.checks.start import check_start
from imagetune.runs.cross_validation import build_folds, cross_validate
from imagetune.runs.prepare import prepare_training, read_data, refuse_inherited_leaks
from imagetune.runs.resume import find_begun_run, settle_as_before
from imagetune.runs.run import (
    RunResult,
    build_run_result,
    read_run_result,
    start_run,
    train_model,
    write_and_test,
    write_inputs,
)
from imagetune.training.measure.plan import StagePlan, plan_stages
from imagetune.training.setup.events import Listener
from imagetune.training.setup.stopping import StopRequest


def fit(
    recipe: RecipeSource,
    overrides: Overrides = (),
    *,
    run_dir: Path | None = None,
    resume: bool = False,
    listener: Listener | None = None,
    say: Say = say_nothing,
    stop: StopRequest | None = None,
) -> RunResult:
    """Fine-tune as the recipe says, test once, cross-validate where it says so, and return the finished run.

    The run with its model and test comes first and is the same as without folds; a fold that fails ends it, but its
    model is complete by then.

    Args:
        recipe: The YAML file, or the same as a mapping.
        overrides: ``KEY=VALUE`` texts, or Python values by dotted key.
        run_dir: The run folder; one is named and made under runs/ by default. Where it holds a finished run of the same
            recipe and images, that run is returned.
        resume: Whether a run in that folder that was stopped is gone on with, to the same result.
        listener: Receives the training's progress: stages, steps, epochs.
        say: Receives progress messages.
        stop: Checked after every step; by default nothing stops the run.

    Raises:
        ImagetuneError: See the error tree; nothing is left behind when it comes before training.
    """
    stop = stop or StopRequest()
    loaded = load_checked_recipe(recipe, overrides)
    # Before the images are read and audited: a folder that can't be written would otherwise be found after minutes.
    begun = find_begun_run(run_dir, resume=resume)
    check_start(run_dir, loaded.recipe.tracking, begun=begun is not None)
    with loaded.placing_errors():
        data = read_data(loaded.recipe, say=say, known=begun is not None)
        wanted = loaded.recipe if begun is None else settle_as_before(loaded.recipe, begun, data)
        if begun is not None and begun.finished:
            say("finished", f"{begun.folder.path} holds this run already; nothing is left to do")
            return read_run_result(begun.folder, wanted, say=say)
        # Settled first, so that folds which the images don't allow are refused before hours of training, not after.
        folds = build_folds(wanted, data, say=say)
        # Before the folder is made: a run that would be tested on what its teacher has learned isn't begun.
        refuse_inherited_leaks(wanted, data.splits, data.audit.hashes, say=say)
        training = prepare_training(wanted, data, say=say, stop=stop)
        with start_run(training.recipe, run_dir, say=say, listener=listener, begun=begun) as run:
            write_inputs(run.folder, training, data, begun=begun, say=say)
            run.track()
            best = train_model(run, training, begun=begun, say=say)
            evaluation = write_and_test(run, training, data.splits, best=best, say=say)
            # After the test: the model and its metrics are complete, whatever happens to a fold.
            if folds:
                evaluation |= cross_validate(run, folds, data, say=say, stop=stop)
                run.folder.write_evaluation(evaluation)
    # Outside the block: the run is finished and sent before its requirements are looked at.
    return build_run_result(run.folder, run.recipe, evaluation)


def plan(
    recipe: RecipeSource,
    overrides: Overrides = (),
    *,
    say: Say = say_nothing,
    stop: StopRequest | None = None,
) -> tuple[Recipe, list[StagePlan]]:
    """Return the resolved recipe and the estimated time of each stage, as `imagetune fit --dry-run` shows them.

    Everything that `fit` does is done up to one batch of each stage; nothing is left behind.

    Args:
        recipe: The YAML file, or the same as a mapping.
        overrides: ``KEY=VALUE`` texts, or Python values by dotted key.
        say: Receives progress messages.
        stop: Checked after every step; by default nothing stops it.

    Raises:
        ImagetuneError: As from `fit`.
    """
    loaded = load_checked_recipe(recipe, overrides)
    with loaded.placing_errors():
        data = read_data(loaded.recipe, say=say)
        # Measuring how many workers load fastest would take longer than the rest of a dry run.
        training = prepare_training(loaded.recipe, data, say=say, stop=stop or StopRequest(), workers="as_written")
        return training.recipe, plan_stages(training.job)
