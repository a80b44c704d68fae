"""A search as runs: a trial is a run without a test, the best recipe is refitted and tested once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagetune.files import read_json_lines
from imagetune.jobs import settle_batch_size
from imagetune.recipe.document import NodePath
from imagetune.recipe.loading import LoadedRecipe
from imagetune.recipe.problems import dotted
from imagetune.recipe.schema import Recipe
from imagetune.recipe.search import Scalar
from imagetune.recipe.train import StageConfig
from imagetune.run_folder import (
    RunFolder,
    RunRecorder,
    check_run_place,
    create_run_folder,
    failure_noted,
    failure_state,
    write_recipe,
)
from imagetune.runs import Data, RunResult, Say, finish_tracking, read_data, run_recipe
from imagetune.search.oracle import direction_of
from imagetune.search.records import TrialResult
from imagetune.search.trials import SearchResult, check_search, run_search
from imagetune.tracking.tracker import start_tracking
from imagetune.training.batch_size import candidate_sizes, with_batch_size
from imagetune.training.events import Listener
from imagetune.training.stopping import StopRequest, listen_for_stop
from imagetune.validation import load_checked_recipe


@dataclass(frozen=True)
class Search:
    """A finished search and the run of its best recipe."""

    folder: Path
    result: SearchResult
    best: RunResult


@dataclass(frozen=True)
class _Session:
    """What all trials share."""

    loaded: LoadedRecipe
    largest_batch: int
    data: Data
    folder: Path
    parent_run_id: str | None
    listener: Listener
    say: Say
    stop: StopRequest

    def recipe(self, values: Mapping[NodePath, Scalar]) -> Recipe:
        """Return the recipe of a trial; once a trial has run, this process holds a GPU and can't measure any more."""
        tried = self.loaded.with_values(values)
        if tried.train.batch_size != "auto":
            return tried
        size = next(size for size in candidate_sizes(tried.train.step_size) if size <= self.largest_batch)
        return tried.model_copy(update={"train": with_batch_size(tried.train, size)})

    def run(self, recipe: Recipe, folder: Path, *, test: bool) -> RunResult:
        return run_recipe(
            recipe,
            self.data,
            run_dir=folder,
            listener=self.listener,
            say=self.say,
            stop=self.stop,
            parent_run_id=self.parent_run_id,
            test=test,
        )


def search(
    recipe_path: Path, overrides: Sequence[str], *, run_dir: Path | None, listener: Listener, say: Say
) -> Search:
    """Search the spaces of a recipe, refit the best, test it once.

    Leaves in the run folder: ``search.csv``, ``best.yaml``, ``trials/trial-NNN/`` and ``best/``, each a run folder.

    Raises:
        RecipeError: There is nothing to search, or a space where none can be.
        SearchError: Every trial failed.
    """
    with listen_for_stop() as stop:
        loaded = load_checked_recipe(recipe_path, overrides)
        _check_spaces(loaded)
        check_search(loaded.spaces, loaded.recipe.search)
        check_run_place(run_dir)
        data = read_data(loaded.recipe, say=say)
        settled = settle_batch_size(loaded.recipe, data.pictures(loaded.recipe), say=say)
        folder = create_run_folder(settled, run_dir)
        say(f"run folder  {folder.path}")
        tracking = loaded.recipe.tracking.model_copy(update={"log_model": False})
        with failure_noted(folder):
            tracker = start_tracking(folder.path, tracking, recipe_name=loaded.recipe.name)
        recorder = RunRecorder(folder, listener, lambda _: tracker.poke())
        try:
            session = _Session(
                loaded, settled.train.pass_size, data, folder.path, tracker.wait_for_run(), listener, say, stop
            )
            outcome = _search(session)
        except BaseException as error:
            recorder.end(failure_state(error), error)
            finish_tracking(tracker, say)
            raise
        recorder.end("finished")
        finish_tracking(tracker, say)
        return outcome


def _search(session: _Session) -> Search:
    recipe = session.loaded.recipe

    def run_trial(values: Mapping[NodePath, Scalar], *, trial_id: str, epochs: int | None) -> float:
        tried = session.recipe(values)
        session.say(f"trial {trial_id}   " + ", ".join(f"{dotted(path)}={value}" for path, value in values.items()))
        if epochs is not None:
            tried = _with_epochs(tried, epochs)
        folder = session.folder / "trials" / f"trial-{trial_id}"
        session.run(tried, folder, test=False)
        return best_figure(RunFolder(folder), recipe.search.objective)

    def tell(result: TrialResult) -> None:
        figure = "failed" if result.objective is None else f"{recipe.search.objective} {result.objective:.4f}"
        session.say(f"trial {result.trial.trial_id}   {result.status}: {result.error or figure}")

    spaces = session.loaded.spaces
    result = run_search(
        spaces, recipe.search, seed=recipe.seed, folder=session.folder, run_trial=run_trial, on_trial=tell
    )
    best = session.recipe(result.best_values)
    write_recipe(best, session.folder / "best.yaml")
    session.say(f"best        trial {result.best.trial.trial_id}: now refitted and tested once")
    return Search(session.folder, result, session.run(best, session.folder / "best", test=True))


def best_figure(folder: RunFolder, objective: str) -> float:
    """Return the best validation figure of a run's epochs."""
    figures = [line["val"][objective] for line in read_json_lines(folder.metrics)]
    return float(min(figures) if direction_of(objective) == "min" else max(figures))


def _check_spaces(loaded: LoadedRecipe) -> None:
    fixed = ("source", "split", "columns", "classes", "audit", "task", "label_separator")
    for path in loaded.spaces:
        if path[0] in ("evaluate", "tracking", "search", "card", "name") or (path[0] == "data" and path[1] in fixed):
            raise loaded.error(path, "can't be searched: it would change what trials are compared by")
    if loaded.recipe.evaluate.folds is not None:
        hint = "search with -o evaluate.folds=null, then fit best.yaml with folds"
        raise loaded.error(("evaluate", "folds"), "a search doesn't cross-validate", hint=hint)
    if loaded.recipe.data.split.val == 0:
        raise loaded.error(("data", "split"), "a search needs validation pictures, and val is 0")


def _with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """Return the recipe cut to ``epochs`` in all: the stages in order, as far as they reach."""
    stages: list[StageConfig] = []
    for stage in recipe.train.stages:
        if epochs <= 0:
            break
        stages.append(stage.model_copy(update={"epochs": min(stage.epochs, epochs)}))
        epochs -= stage.epochs
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"stages": tuple(stages)})})
