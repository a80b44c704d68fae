"""Hyperparameter search from its recipe to its best model: trials, finalists, refit, one test."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imagetune.core import run_files
from imagetune.core.files import write_text
from imagetune.core.messages import Say
from imagetune.recipe.document import NodePath
from imagetune.recipe.loading import LoadedRecipe, Overrides, RecipeSource
from imagetune.recipe.printing import format_searchable_recipe
from imagetune.recipe.schema import Recipe
from imagetune.run_folder.claim import hold_run_folder
from imagetune.run_folder.folder import RunFolder, create_run_folder
from imagetune.run_folder.receipt import renew_receipt, write_receipt
from imagetune.run_folder.recorder import record_failure
from imagetune.runs.checks.recipe import load_checked_recipe
from imagetune.runs.checks.start import check_start
from imagetune.runs.pages import complete_run
from imagetune.runs.prepare import Data, read_data
from imagetune.runs.run import finish_tracking
from imagetune.search.block_checks import check_blocks
from imagetune.search.budget import Budget, compute_busy_seconds
from imagetune.search.choose_executor import open_executor, prepare_executor
from imagetune.search.listeners import Watcher, Watchers
from imagetune.search.loop import Runner
from imagetune.search.mlflow_trials import TrialCopies
from imagetune.search.phases import Session, Watched, rank_winners, run_phases
from imagetune.search.proposers.finalists import Candidate
from imagetune.search.recipe_checks import check_recipe
from imagetune.search.records.folder import check_resumable
from imagetune.search.records.journal import Event, Journal, list_results
from imagetune.search.records.table import Table, build_values_key, describe_search, open_records, write_table
from imagetune.search.records.trial import TrialResult
from imagetune.search.refit import Refit, build_refit_recipe, find_finished_refit, refit, write_best
from imagetune.search.report.write import write_last_report
from imagetune.search.results.findings import NO_FINDINGS, Findings, describe_plan, write_findings
from imagetune.search.resume import check_journal, check_same_training, record_images
from imagetune.search.space import count_settings
from imagetune.search.trial_process.folds import check_folds
from imagetune.search.warm_start import load_warm_start, write_warm_start
from imagetune.tracking.tracker import Tracker, start_tracking
from imagetune.training.setup.events import Listener
from imagetune.training.setup.stopping import StopRequest


@dataclass(frozen=True)
class Search:
    """Result of a finished search.

    Attributes:
        folder: Run folder of the search.
        recipe: Its recipe, spaces at their defaults.
        paths: Recipe paths of the search spaces.
        results: Results of all trials, in the order in which they ended.
        candidates: The settings that have a metric, the winner first.
        best: The refit of the winner.
        added: How many trials this session has added to those of earlier ones.
        findings: Effects of a sweep's settings or a bake-off's backbones; empty for other algorithms.
        seconds: What was spent of ``search.budget.hours``, and on the refit, over all sessions.
        settings: How many different settings the spaces have; None for any number.
    """

    folder: Path
    recipe: Recipe
    paths: tuple[NodePath, ...]
    results: tuple[TrialResult, ...]
    candidates: tuple[Candidate, ...]
    best: Refit
    added: int
    findings: Findings = NO_FINDINGS
    seconds: float = 0.0
    settings: int | None = None

    @property
    def exhausted(self) -> bool:
        """Whether every setting of the spaces has been tried, so that more trials could only repeat some."""
        tried = {build_values_key(result.trial.values) for result in self.results if result.trial.phase == "search"}
        return self.settings is not None and len(tried) >= self.settings


@dataclass(frozen=True)
class _Records:
    folder: RunFolder
    journal: Journal
    table: Table
    past: tuple[Event, ...]


def search(
    recipe: RecipeSource,
    overrides: Overrides,
    *,
    run_dir: Path | None,
    resume: bool,
    listener: Listener,
    watcher: Watcher,
    say: Say,
    stop: StopRequest,
) -> Search:
    """Search the spaces of a recipe, train the finalists again, refit the winner, test it once.

    Leaves in the run folder: ``search.csv``, ``best.yaml``, ``trials/trial-NNN/`` and ``best/``, each a run folder.

    Args:
        recipe: The YAML file, or the same as a mapping.
        overrides: ``KEY=VALUE`` texts, or Python values by dotted key.
        run_dir: The run folder; by default one is named and created below runs/.
        resume: Continue the search in ``run_dir``.
        listener: Called with the refit's progress.
        watcher: Called when trials start and end.
        say: Prints a line for the user.
        stop: Request to stop, checked between trials and after every step of the refit.

    Raises:
        RecipeError: There is nothing to search, or a space where none can be.
        CheckpointError: The folder has no search to resume, or another one.
        SearchError: Every trial failed.
    """
    began = time.monotonic()
    loaded = load_checked_recipe(recipe, overrides)
    check_recipe(loaded)
    if resume:
        check_resumable(run_dir)
    else:
        check_start(run_dir, loaded.recipe.tracking)
    # Before the images are read: the forkserver imports Keras meanwhile, and a cluster that isn't there is reported at
    # once.
    prepare_executor(loaded.recipe)
    # Before the images, whose audit may take minutes: a recipe that can't be searched is refused first.
    check_blocks(loaded)
    data = read_data(loaded.recipe, say=say, known=resume)
    check_folds(data, loaded.recipe)
    copies = TrialCopies(loaded.recipe)
    warm = load_warm_start(loaded, data, resumed=run_dir if resume else None, say=say)
    with _open_folder(loaded, run_dir, resume=resume) as folder:
        if not resume:
            # Before search.json, from which on there is a search to resume: it must not come without its warm start.
            write_warm_start(warm, folder.path)
        # A search that can't be resumed is refused before any of its files is changed.
        records = _open_records(loaded, data, folder)
        say("run folder", str(folder.path))
        if planned := describe_plan(loaded):
            say(*planned)
        with _tracked(folder, loaded.recipe, copies, say) as tracker:
            watchers = Watchers([copies, watcher])
            spent = compute_busy_seconds(list_results(records.past))
            budget = Budget(loaded.recipe.search.budget, spent_seconds=spent, began=began)
            session = Session(loaded, data, folder.path, records.past, budget, say, stop)
            return _search(session, records, tracker, listener, watchers)


def _search(session: Session, records: _Records, tracker: Tracker, listener: Listener, watcher: Watcher) -> Search:
    loaded, stop, past = session.loaded, session.stop, session.past
    session.remember_started()
    # A signal waits for `check`: it must not interrupt the start of a process or a line of the journal.
    with stop.deferred(), open_executor(session.recipe, session.data, say=session.say) as executor:
        watched = Watched(session, watcher)
        watcher.search_started(session.plan(executor.slots))
        runner = Runner(
            executor, session.task_of, records.journal, records.table, watched, stop.check, session.may_start
        )
        results = run_phases(session, runner)
    findings = write_findings(session.folder, loaded, results)
    candidates = rank_winners(session, results)
    winner = candidates[0]
    watcher.refit_started(winner)
    best = _refit_winner(session, winner, tracker, listener)
    return Search(
        session.folder,
        session.recipe,
        tuple(loaded.spaces),
        tuple(results),
        tuple(candidates),
        best,
        len(results) - len(list_results(past)),
        findings,
        session.budget.compute_spent_seconds(),
        count_settings(loaded.spaces),
    )


def _refit_winner(session: Session, winner: Candidate, tracker: Tracker, listener: Listener) -> Refit:
    """Write best.yaml, and train and test its recipe, unless an earlier session has."""
    folder, say = session.folder, session.say
    own = session.recipe_of(winner.trial.values)
    recipe, data, fitted = build_refit_recipe(own, winner, session.data, folder=folder, say=say)
    write_best(recipe, winner, folder=folder, objective=own.search.objective, fitted=fitted)
    place = folder / run_files.BEST
    # The test split is opened once for a winner: a second refit would test the same recipe again.
    if (done := find_finished_refit(place, recipe)) is not None:
        say("finished", f"{place} was trained and tested in an earlier session")
        complete_run(RunFolder(place), tracked=recipe.tracking.enabled, say=say)
        return done
    return refit(
        recipe,
        data,
        folder=place,
        # Waited for, as the refit's run in MLflow names the search as its parent.
        parent_run_id=tracker.wait_for_run(),
        listener=listener,
        say=say,
        stop=session.stop,
    )


@contextmanager
def _tracked(folder: RunFolder, recipe: Recipe, copies: TrialCopies, say: Say) -> Iterator[Tracker]:
    """Track the search as an MLflow run with its trials as children, and record how it ends."""
    folder.write_status("running")
    # A finished search may be gone on with: until its new end nothing is final.
    (folder.path / run_files.RECEIPT).unlink(missing_ok=True)
    # The model belongs to the winner's run: the search's own folder has none.
    tracking = recipe.tracking.model_copy(update={"log_model": False})
    with record_failure(folder):
        tracker = start_tracking(folder.path, tracking, recipe_name=recipe.name, children=copies)
    copies.poke = tracker.poke
    try:
        with record_failure(folder):
            yield tracker
        folder.write_status("finished")
    finally:
        # In every case, also after Ctrl-C: the copies in MLflow would stay RUNNING.
        copies.trials_stopped()
        try:
            write_last_report(folder.path, say=say)
            if folder.read_status().get("state") == "finished":
                tracker.stop_sampling()
                write_receipt(folder.path)
        finally:
            # Last, so that MLflow gets the final page as well, and even where that could not be written.
            with renew_receipt(folder.path):
                finish_tracking(tracker, say)


@contextmanager
def _open_folder(loaded: LoadedRecipe, run_dir: Path | None, *, resume: bool) -> Iterator[RunFolder]:
    """Create the search's folder or open it again, locked against other searches during the block."""
    if resume and run_dir is not None:
        folder = RunFolder(run_dir.absolute())
    else:
        folder = create_run_folder(loaded.recipe, run_dir)
    with hold_run_folder(folder):
        yield folder


def _open_records(loaded: LoadedRecipe, data: Data, folder: RunFolder) -> _Records:
    """Start the records of a search, or open those of its earlier sessions.

    Raises:
        CheckpointError: They are corrupted, or belong to another search, other trainings or other images.
    """
    config, spaces = loaded.recipe.search, loaded.spaces
    seed = loaded.recipe.seed if config.seed is None else config.seed
    journal, table = open_records(folder.path, describe_search(config, spaces, seed=seed), list(spaces))
    past = tuple(journal.read())
    # Without a trial nothing depends on the former recipe, and the search may begin with another one.
    if past:
        check_same_training(folder, loaded.recipe)
    check_journal(folder, past)
    record_images(folder, loaded.recipe, data, begun=bool(past))
    # The recipe of this session replaces the former one: images may lie elsewhere now, more trials may be asked for.
    write_text(folder.recipe, format_searchable_recipe(loaded))
    # Written anew: a kill between the journal and the table leaves the table a line short.
    write_table(table, list_results(past))
    return _Records(folder, journal, table, past)
