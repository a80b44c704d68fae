"""What happens before Keras is imported, which takes seconds: checks of what was given, and the start of processes.

It stands apart from the commands, whose own imports take those seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from string import ascii_uppercase

from imagetune.data.sources.read import read_catalog, require_paths
from imagetune.errors import RecipeError
from imagetune.export.formats import Target, require_possible
from imagetune.recipe.loading import Overrides, RecipeSource, load_recipe
from imagetune.run_folder.folder import open_run_folder
from imagetune.runs.checks.recipe import load_checked_recipe
from imagetune.search.trial_process.forkserver import start_trial_forkserver
from imagetune.tracking.resolve import is_mlflow_uri

# Each compared run gets a letter, by which tables and pages name it.
RUN_LETTERS = ascii_uppercase


def check_run_count(runs: Sequence[str]) -> None:
    """Check that there are enough runs to compare, and a letter for each.

    Raises:
        RecipeError: There are too few or too many.
    """
    if not 2 <= len(runs) <= len(RUN_LETTERS):
        raise RecipeError(f"{len(runs)} given; from 2 to {len(RUN_LETTERS)} runs can be compared", where="RUN")


def check_runs(runs: Iterable[str], *, trained: bool = True) -> None:
    """Raise what is wrong with run folders; addresses of MLflow are left to whatever opens them.

    Args:
        runs: Run folders, or runs:/ or models:/ addresses.
        trained: Whether each must have a model.

    Raises:
        ModelFileError: One is no run folder, or has no model yet.
    """
    for run in runs:
        if not is_mlflow_uri(run):
            open_run_folder(Path(run), trained=trained)


def check_export(run: str, target: Target) -> None:
    """Raise what is wrong with a run folder, or with what it is to be exported to.

    Raises:
        RecipeError: The format has no such number type.
        ResourceError: A package of the format is not installed.
        ModelFileError: As from `check_runs`.
    """
    require_possible(target)
    check_runs([run])


def check_run_inputs(runs: Iterable[str], paths: Iterable[str | Path]) -> None:
    """Raise what is wrong with run folders, and with the files, folders and globs that their models are to look at.

    Raises:
        ModelFileError: As from `check_runs`.
        DataError: A file or folder doesn't exist.
    """
    check_runs(runs)
    require_paths(map(str, paths))


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
