"""Hyperparameter search over the spaces of a recipe: trials, finalists, the refit of the winner and its one test."""

from __future__ import annotations

from pathlib import Path

from imagetune.core.messages import Say, say_nothing
from imagetune.recipe.loading import Overrides, RecipeSource
from imagetune.search import session
from imagetune.search.listeners import Watcher, Watchers
from imagetune.search.session import Search
from imagetune.training.setup.events import Listener, SilentListener
from imagetune.training.setup.stopping import StopRequest


def search(
    recipe: RecipeSource,
    overrides: Overrides = (),
    *,
    run_dir: Path | None = None,
    resume: bool = False,
    listener: Listener | None = None,
    watcher: Watcher | None = None,
    say: Say = say_nothing,
    stop: StopRequest | None = None,
) -> Search:
    """Search the spaces of a recipe, train the finalists with more seeds, refit the winner, and test it once.

    Args:
        recipe: The YAML file, or the same as a mapping.
        overrides: ``KEY=VALUE`` texts, or Python values by dotted key.
        run_dir: The run folder; one is named and made under runs/ by default.
        resume: Go on with the search in ``run_dir``.
        listener: Receives the progress of the refit.
        watcher: Receives the start and the end of each trial.
        say: Receives progress messages.
        stop: Checked between trials and after every step of the refit; by default nothing stops it.

    Returns:
        The trials, the finalists and the winner's run.

    Raises:
        RecipeError: There is nothing to search, or a space where none can be.
        CheckpointError: The folder has no such search to go on with, or another one.
        SearchError: Every trial failed.
    """
    return session.search(
        recipe,
        overrides,
        run_dir=run_dir,
        resume=resume,
        listener=listener or SilentListener(),
        watcher=watcher or Watchers([]),
        say=say,
        stop=stop or StopRequest(),
    )
