"""Phases of a search: the trials of its algorithm, then the finalists again; and how a trial gets its recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from imagetune.core import run_files
from imagetune.core.files import convert_disk_errors
from imagetune.core.messages import Say
from imagetune.core.text import format_count
from imagetune.errors import SearchError
from imagetune.recipe.document import NodePath
from imagetune.recipe.loading import LoadedRecipe
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.search import Value
from imagetune.run_folder.folder import RunFolder, write_recipe
from imagetune.runs.checks.recipe import check_recipe
from imagetune.runs.prepare import Data
from imagetune.search.bakeoff_time import has_time_for_fine_tuning, has_time_for_probe
from imagetune.search.budget import Budget
from imagetune.search.choose_proposer import build_proposer
from imagetune.search.executors.protocol import Task
from imagetune.search.forecast import expected
from imagetune.search.listeners import SearchPlan, Watcher
from imagetune.search.loop import Runner, run_trials
from imagetune.search.proposers.bakeoff import get_probe_id, list_fine_tunings, select_compared
from imagetune.search.proposers.finalists import Candidate, Direction, get_direction, list_repeats, rank_candidates
from imagetune.search.proposers.protocol import ListProposer
from imagetune.search.records.journal import Event, Proposed, find_unfinished, list_results
from imagetune.search.records.trial import Phase, Trial, TrialResult
from imagetune.search.results.choose_backbones import choose_finalists
from imagetune.training.setup.stopping import StopRequest

# Median stopping compares a trial with those at least so many before it, so that its decisions hardly depend on how
# many run at a time, and never on which of them is quicker.
_LAG = 4


@dataclass(frozen=True)
class Session:
    """One session of a search: its recipe and images, the events of earlier sessions, and the trials started so far.

    Attributes:
        loaded: The recipe and its spaces.
        data: The images of the search.
        folder: Run folder of the search.
        past: Events of earlier sessions.
        budget: Limits on trials and hours.
        say: Prints a line for the user.
        stop: Request to stop, checked between trials.
        started: Run folders of the started trials of the first phase, by number.
    """

    loaded: LoadedRecipe
    data: Data
    folder: Path
    past: tuple[Event, ...]
    budget: Budget
    say: Say
    stop: StopRequest
    started: dict[int, Path] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """The recipe, spaces at their defaults."""
        return self.loaded.recipe

    @property
    def seed(self) -> int:
        """Seed of the proposals: ``search.seed``, else the recipe's."""
        own = self.recipe.search.seed
        return self.recipe.seed if own is None else own

    @property
    def direction(self) -> Direction:
        """Whether a smaller or a larger objective is better."""
        return get_direction(self.recipe.search.objective)

    def recipe_of(self, values: Mapping[NodePath, Value], seed: int | None = None) -> Recipe:
        """Return the recipe of a setting, as `imagetune fit` would repeat it: nothing in it is a space.

        Another seed changes the training alone; the splits stay those of the recipe's seed.
        """
        recipe = check_recipe(self.loaded.with_values(values)).recipe
        if seed is None:
            return recipe
        # Otherwise another seed would mean other validation images, whose difficulty would count as the setting's.
        split = recipe.data.split.model_copy(update={"seed": recipe.split_seed})
        data = recipe.data.model_copy(update={"split": split})
        return recipe.model_copy(update={"seed": seed, "data": data})

    def folder_of(self, trial_id: str) -> Path:
        """Return the run folder of a trial."""
        return run_files.trial_folder(self.folder, trial_id)

    def task_of(self, trial: Trial) -> Task:
        """Return the task of a trial for its process: folder, recipe, epochs and trials to compare with."""
        folder = self.folder_of(trial.trial_id)
        recipe = self.recipe_of(trial.values, trial.seed)
        continues = None if trial.continues is None else self.folder_of(trial.continues)
        bakeoff = self.recipe.search.algorithm == "bakeoff"
        probe = bakeoff and trial.phase == "search"
        probed = self.folder_of(get_probe_id(trial)) if bakeoff and trial.phase == "final" else None
        return Task(trial.trial_id, folder, recipe, trial.epochs, continues, self._compared(trial), probe, probed)

    def _compared(self, trial: Trial) -> tuple[Path, ...]:
        """Return the run folders of the earlier trials for median stopping; none where it is off."""
        search = self.recipe.search
        if trial.phase != "search" or search.early_stop == "none":
            return ()
        # Hyperband stops by its rungs, a sweep and a bake-off compare whole trials, and over folds there is no metric
        # of one epoch to compare.
        if search.algorithm in ("hyperband", "sweep", "bakeoff") or search.folds is not None:
            return ()
        before = int(trial.trial_id) - _LAG
        return tuple(folder for number, folder in sorted(self.started.items()) if number < before)

    def remember_started(self) -> None:
        """Restore which trials earlier sessions have started: those whose folder has a status."""
        for event in self.past_of("search"):
            trial_id = _trial_of(event).trial_id
            # One that was proposed and never ran has nothing to compare with.
            if RunFolder(self.folder_of(trial_id)).read_status():
                self.started[int(trial_id)] = self.folder_of(trial_id)

    def may_start(self, results: Sequence[TrialResult]) -> bool:
        """Return whether the budget allows one more trial; the finalists' further trainings don't count."""
        bakeoff = self.recipe.search.algorithm == "bakeoff"
        if bakeoff and not results:
            # However short the time is, one backbone is trained and tested.
            return True
        if not self.budget.may_start(sum(result.trial.phase == "search" for result in results)):
            return False
        left = self.budget.seconds_left()
        return not bakeoff or left is None or has_time_for_probe(results, left)

    def may_fine_tune(self, results: Sequence[TrialResult]) -> bool:
        """Return whether the time of a bake-off is enough for one more fine-tuning, and then for the refit."""
        left = self.budget.seconds_left()
        return left is None or has_time_for_fine_tuning(results, left)

    def count_planned(self) -> int:
        """Return how many trials the algorithm has if nothing ends it earlier."""
        return expected(self.recipe.search, self.loaded.spaces, epochs=self._count_epochs()).trials

    def _count_epochs(self) -> int:
        return sum(stage.epochs for stage in self.recipe.train.stages)

    def plan(self, slots: int) -> SearchPlan:
        """Return the plan of the search for its watchers."""
        epochs = self._count_epochs()
        return SearchPlan(
            folder=self.folder,
            recipe=self.recipe,
            paths=tuple(self.loaded.spaces),
            direction=self.direction,
            slots=slots,
            expected=expected(self.recipe.search, self.loaded.spaces, epochs=epochs),
            budget=self.budget,
            known=tuple(list_results(self.past)),
        )

    def past_of(self, phase: Phase) -> list[Event]:
        """Return the events of earlier sessions that belong to a phase."""
        return [event for event in self.past if _trial_of(event).phase == phase]


def run_phases(session: Session, runner: Runner) -> list[TrialResult]:
    """Run the trials of the search algorithm, then the finalists with other seeds, and return all results.

    Raises:
        SearchError: Every trial failed.
        CheckpointError: The journal doesn't fit what this version proposes.
    """
    config = session.recipe.search
    proposer = build_proposer(session.loaded, seed=session.seed, folder=session.folder, past=session.past_of("search"))
    results = run_trials(proposer, runner, known=[], past=session.past_of("search"))
    candidates = rank_candidates(results, session.direction)
    if not candidates:
        raise build_all_failed_error(results, session.folder)
    # All of its settings have been trained with several seeds already.
    if config.algorithm == "sweep":
        return results
    seed = session.recipe.seed
    if config.algorithm == "bakeoff":
        chosen = choose_finalists(candidates, folder=session.folder, config=config, direction=session.direction)
        runner = replace(runner, may_start=session.may_fine_tune)
        finals = list_fine_tunings(chosen, repeats=config.repeats, seed=seed)
    else:
        finals = list_repeats(candidates[: config.finalists], repeats=config.repeats, seed=seed)
    results = _final_trials(session, runner, results, finals)
    if missing := _describe_missing(session, results, fine_tunings=len(finals)):
        session.say("note", missing)
    return results


def _describe_missing(session: Session, results: Sequence[TrialResult], *, fine_tunings: int) -> str:
    """Return what a search had no time for; empty where all that was planned has run."""
    if session.budget.config.hours is None:
        return ""
    planned = {"search": session.count_planned(), "final": fine_tunings}
    names = {"search": "probe" if session.recipe.search.algorithm == "bakeoff" else "trial", "final": "fine-tuning"}
    missing = {
        phase: planned[phase] - sum(result.trial.phase == phase for result in results) for phase in ("search", "final")
    }
    parts = [format_count(count, names[phase]) for phase, count in missing.items() if count > 0]
    return f"there was no time for {' and '.join(parts)}" if parts else ""


def rank_winners(session: Session, results: Sequence[TrialResult]) -> list[Candidate]:
    """Return the settings among which the winner is chosen, the winner first.

    Raises:
        SearchError: None has a metric, as where all fine-tunings of a bake-off failed.
    """
    config = session.recipe.search
    judged = select_compared(results, config.algorithm)
    candidates = rank_candidates(judged, session.direction)
    if not candidates:
        raise build_all_failed_error(judged, session.folder)
    if config.algorithm == "bakeoff" and all(result.trial.phase == "search" for result in judged):
        # There was no time for a fine-tuning, or none was asked for.
        return choose_finalists(candidates, folder=session.folder, config=config, direction=session.direction)
    return candidates


def _final_trials(
    session: Session, runner: Runner, results: Sequence[TrialResult], finals: Sequence[Trial]
) -> list[TrialResult]:
    """Run the finalists' trials that no earlier session has run, and return all results.

    A resumed search may have more trials than before, and so other finalists: results of the former ones are kept.
    """
    before = list_results(session.past_of("final"))
    names = {result.trial.trial_id for result in before}
    open_then = {trial.trial_id for trial in find_unfinished(session.past_of("final"))}
    left = [trial for trial in finals if trial.trial_id not in names]
    # Those that were interrupted come first, and are not proposed anew.
    left.sort(key=lambda trial: trial.trial_id not in open_then)
    begun = [Proposed(trial) for trial in left if trial.trial_id in open_then]
    return run_trials(ListProposer(left), runner, known=[*results, *before], past=begun)


@dataclass(frozen=True)
class Watched:
    """A listener that records started trials and the failure of dead ones, and then calls the search's watcher."""

    session: Session
    watcher: Watcher

    def trial_started(self, trial: Trial, task: Task) -> None:
        """Record the folder of a started trial."""
        if trial.phase == "search":
            self.session.started[int(trial.trial_id)] = task.folder
        self.watcher.trial_started(trial, task)

    def trial_ended(self, result: TrialResult, task: Task | None) -> None:
        """Write the failure of a trial whose process died into its folder."""
        if task is not None:
            _record_death(result, task)
        self.watcher.trial_ended(result, task)

    def tick(self) -> None:
        """Pass the tick on to the watcher."""
        self.watcher.tick()


def _record_death(result: TrialResult, task: Task) -> None:
    """Write state and error of a failed trial into its status.json, where its process died before it could."""
    if result.status != "failed":
        return
    folder = RunFolder(task.folder)
    with convert_disk_errors(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    # A process that died at its start has written none, and `imagetune fit` of the recipe is how to look into it.
    if not folder.recipe.exists():
        write_recipe(task.recipe, folder.recipe)
    status = folder.read_status()
    # A trial that wrote its own failure knows the reason better than whoever saw it die.
    if status.get("state", "running") == "running":
        where = {"stage": status.get("stage", ""), "epoch": status.get("epoch", 0), "step": status.get("step", 0)}
        folder.write_status("failed", **where, error=result.error)


def _trial_of(event: Event) -> Trial:
    return event.trial if isinstance(event, Proposed) else event.result.trial


def build_all_failed_error(results: Sequence[TrialResult], folder: Path) -> SearchError:
    """Return the error of a search without a metric: none of its trials ran, or all failed, with the first cause."""
    if not results:
        what = "the time was over before the first trial"
        hint = "give it more time: raise search.budget.hours"
        return SearchError(what, where=str(folder / run_files.SEARCH_TABLE), hint=hint)
    first = results[0]
    what = f"all {len(results)} trials failed; the first (trial {first.trial.trial_id}): {first.error}"
    return SearchError(
        what, where=str(folder / run_files.SEARCH_TABLE), hint="fix the cause, or narrow the search spaces"
    )
