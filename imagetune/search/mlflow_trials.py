"""Trials of a search as child runs in MLflow, copied from their folders by the search's tracker.

The processes of trials know nothing of MLflow. The search's tracker has one thread, which copies the folders of all
trials that have changed, one after the other, and then the search's own. A trial that was interrupted and runs again
starts with an empty folder: the records of the interrupted attempt are kept in ``interrupted/``, and its MLflow run
ends as killed. `imagetune sync` of a search's folder sends whatever of all this is missing.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import TYPE_CHECKING, Any

from imagetune.core import run_files
from imagetune.errors import ImagetuneError, TrackingError
from imagetune.recipe.problems import format_path
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.search import SearchConfig
from imagetune.run_folder.folder import RunFolder
from imagetune.search.executors.attempts import list_lost_attempts
from imagetune.search.listeners import SearchPlan
from imagetune.search.mlflow_note import describe_settings, format_search_note
from imagetune.search.proposers.bakeoff import select_compared
from imagetune.search.proposers.finalists import get_direction, rank_candidates
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.search.results.axes import format_value
from imagetune.search.results.reader import read_search
from imagetune.tracking.state import TrackingState, read_state, write_state
from imagetune.tracking.steps import count_pending
from imagetune.tracking.sync import Syncer, plan_state, run_lock, sync_run

if TYPE_CHECKING:
    from imagetune.search.executors.protocol import Task
    from imagetune.search.proposers.finalists import Candidate

OBJECTIVE_METRIC = "objective"
_LOOK_SECONDS = 0.5
# All that MLflow's copy of an interrupted attempt is made from; checkpoints and models would only fill the disk.
_REMEMBERED = (run_files.RECIPE, run_files.METRICS, run_files.TRACKING)
# How long the start of a trial may wait for the copy of its interrupted attempt to get to the end of a record.
_PATIENCE_SECONDS = 5.0


@dataclass
class _Copied:
    """Run folder of a trial that is being copied to MLflow.

    Attributes:
        folder: The run folder, which may not be there yet.
        trial: The trial; None for an earlier attempt, whose tags its tracking.json has already.
        result: Result of the trial; None while it runs, and for an attempt that was interrupted.
        ended: Whether the folder is complete.
        seen: State of the folder at the last copy; it is copied again when that changes.
        looked: State of the folder when the search's thread last looked.
    """

    folder: Path
    trial: Trial | None
    result: TrialResult | None = None
    ended: bool = False
    seen: object = None
    looked: object = None

    def content(self) -> object:
        """Return a value that changes whenever the folder has something new; None while there is no run."""
        try:
            if not (self.folder / run_files.RECIPE).exists():
                return None
            metrics = RunFolder(self.folder).metrics
            size = metrics.stat().st_size if metrics.exists() else 0
        except OSError:
            return None
        return size, self.ended


class TrialCopies:
    """Copies the trials of a search to MLflow as child runs: a watcher of the search, and its tracker's `Children`.

    Attributes:
        poke: Called when a folder has something new; the tracker's own method.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.poke: Callable[[], None] = _nothing
        self._search = recipe.search
        self._tags = recipe.tracking.tags
        self._results: list[TrialResult] = []
        self._folder: Path | None = None
        # Added to by the search's thread, taken from by the tracker's: both go through copies of it.
        self._open: dict[Path, _Copied] = {}
        # Held while a folder is copied, so that it isn't emptied for a new attempt in the middle.
        self._copying = threading.Lock()
        self._looked = 0.0

    def search_started(self, plan: SearchPlan) -> None:
        """Take over the results of earlier sessions."""
        self._results = [*plan.known]
        self._folder = plan.folder

    def trial_started(self, trial: Trial, task: Task) -> None:
        """Begin to copy a trial, and set aside what MLflow has of an earlier attempt at it."""
        # A copy in progress reads the files that are about to be removed; a slow server must not hold up the trial for
        # long.
        held = self._copying.acquire(timeout=_PATIENCE_SECONDS)
        try:
            # A full disk must not end the search: the attempt is only needed to mark its MLflow run as killed.
            with contextlib.suppress(OSError, ImagetuneError):
                if (aside := set_aside(task.folder, task.folder.parents[1])) is not None:
                    self._open[aside] = _Copied(aside, None, ended=True)
            self._open[task.folder] = _Copied(task.folder, trial)
        finally:
            if held:
                self._copying.release()

    def trial_ended(self, result: TrialResult, task: Task | None) -> None:
        """Have the rest of an ended trial copied, and earlier attempts at it that Ray restarted."""
        self._results.append(result)
        if task is not None and (copied := self._open.get(task.folder)) is not None:
            copied.result, copied.ended = result, True
            for aside in list_lost_attempts(task.folder):
                # Only those of which MLflow has a run, which would never end there.
                if (aside / run_files.TRACKING).exists():
                    self._open.setdefault(aside, _Copied(aside, None, ended=True))
        self.poke()

    def tick(self) -> None:
        """Look for new epochs in the folders, at most twice a second, and poke the tracker where there are some."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        changed = False
        for copied in tuple(self._open.values()):
            content = copied.content()
            changed |= content != copied.looked
            copied.looked = content
        if changed:
            self.poke()

    def refit_started(self, winner: Candidate) -> None:
        """Mark an interrupted refit as killed in MLflow; the new one has a tracker of its own."""
        del winner
        if self._folder is None:
            return
        best = self._folder / run_files.BEST
        # A finished refit is kept, or moved aside as a whole: it was not interrupted.
        if RunFolder(best).read_status().get("state") == "finished":
            return
        with contextlib.suppress(OSError, ImagetuneError):
            if (aside := set_aside(best, self._folder)) is not None:
                self._open[aside] = _Copied(aside, None, ended=True)
                self.poke()

    def trials_stopped(self) -> None:
        """Mark all folders as complete: no trial runs any more, and what hasn't ended was interrupted."""
        for copied in tuple(self._open.values()):
            copied.ended = True
        self.poke()

    def sync(self, parent: Syncer) -> int:
        """Copy the folders that have changed to MLflow, and return how many records were sent."""
        sent = 0
        for copied in tuple(self._open.values()):
            content = copied.content()
            # The content was looked at before copying: what comes while a copy is made is copied the next time.
            if content is not None and content != copied.seen:
                with self._copying:
                    sent += self._copy(copied, parent)
                # After the copy: one that fails is made again.
                copied.seen = content
            # A folder in which something came meanwhile stays open for another copy.
            if copied.ended and (content is None or content == copied.content()):
                self._open.pop(copied.folder, None)
        _describe_search(parent, self._results, self._search)
        return sent

    def pending(self) -> int:
        """Return how many records wait in the folders."""
        return sum(_pending(copied.folder) for copied in tuple(self._open.values()) if copied.content() is not None)

    def _copy(self, copied: _Copied, parent: Syncer) -> int:
        try:
            with run_lock(copied.folder, wait_seconds=0.0):
                state = _child_state(copied.folder, parent.state, self._tags)
                if copied.trial is not None:
                    describe_trial(state, copied.trial, copied.result, self._search.objective)
                write_state(copied.folder, state)
                return Syncer(copied.folder, parent.uri, state, parent.tick, client=parent.connect()).sync()
        except FileNotFoundError:  # the trial is starting again
            return 0


def sync_search(folder: Path) -> str:
    """Synchronise a search, its trials and its best run with MLflow, and return in one line what was sent.

    Args:
        folder: Run folder of the search.

    Raises:
        TrackingError: The store can't be reached, or refuses; what was sent is remembered.
        CheckpointError: The journal is corrupted.
    """
    return sync_run(folder, children=_SearchFolders(folder)).message()


def describe_trial(state: TrackingState, trial: Trial, result: TrialResult | None, objective: str) -> None:
    """Set a trial's tags, objective metric and description in its tracking state.

    Args:
        state: Tracking state of the trial's run, which is changed.
        trial: The trial.
        result: Its result; None while it runs, and for one that was interrupted.
        objective: Name of the validation metric.
    """
    tags = {"imagetune.trial": trial.trial_id, "imagetune.phase": trial.phase}
    tags |= {f"imagetune.search.{format_path(path)}": format_value(value) for path, value in trial.values.items()}
    about = {"seed": trial.seed, "continues": trial.continues, "repeats": trial.repeats, "epochs": trial.epochs}
    tags |= {f"imagetune.{name}": str(value) for name, value in about.items() if value is not None}
    if result is not None:
        tags["imagetune.trial_status"] = result.status
        if result.best_epoch is not None:
            tags["imagetune.best_epoch"] = str(result.best_epoch)
        if result.place:
            tags["imagetune.place"] = result.place
        if result.objective is not None:
            state.metrics = {OBJECTIVE_METRIC: result.objective}
    state.tags = {**state.tags, **tags}
    state.note = _trial_note(trial, result, objective)


def set_aside(folder: Path, search: Path) -> Path | None:
    """Keep an interrupted attempt's records for MLflow in a small run folder whose state is ``killed``.

    Args:
        folder: Run folder of the trial or the refit, about to be removed.
        search: Run folder of the search.

    Returns:
        The new folder; None where MLflow has nothing of the attempt.
    """
    if not (folder / run_files.TRACKING).exists():
        return None
    aside = run_files.next_numbered(search / run_files.INTERRUPTED / folder.name)
    aside.mkdir(parents=True)
    for name in _REMEMBERED:
        if (folder / name).exists():
            shutil.copy2(folder / name, aside / name)
    status = RunFolder(folder).read_status()
    RunFolder(aside).write_status(
        "killed", stage=str(status.get("stage") or ""), epoch=int(status.get("epoch") or 0), error=status.get("error")
    )
    return aside


class _SearchFolders:
    """The child runs of a search for `imagetune sync`: trials, interrupted attempts and refits."""

    def __init__(self, folder: Path) -> None:
        self._search = read_search(folder)

    def sync(self, parent: Syncer) -> int:
        """Copy every child run to MLflow, and return how many records were sent."""
        search = self._search
        ends = {result.trial.trial_id: result for result in search.results}
        sent = 0
        for trial in search.trials:
            folder = search.folder_of(trial.trial_id)
            if (folder / run_files.RECIPE).exists():
                sent += self._copy(folder, parent, trial, ends.get(trial.trial_id))
        for folder in sorted((search.folder / run_files.INTERRUPTED).glob("*/")):
            sent += self._copy(folder, parent, None, None)
        # `best-1` and so on are the refits of earlier winners.
        for folder in sorted(search.folder.glob(f"{run_files.BEST}*/")):
            sent += self._copy(folder, parent, None, None)
        _describe_search(parent, search.results, search.recipe.search)
        return sent

    def pending(self) -> int:
        """Return 0: `imagetune sync` sends everything before it ends."""
        return 0

    def _copy(self, folder: Path, parent: Syncer, trial: Trial | None, result: TrialResult | None) -> int:
        with run_lock(folder, wait_seconds=0.0):
            state = _child_state(folder, parent.state, self._search.recipe.tracking.tags)
            if trial is not None:
                describe_trial(state, trial, result, self._search.objective)
            return Syncer(folder, parent.uri, state, parent.tick, client=parent.connect()).sync()


def _child_state(folder: Path, parent: TrackingState, tags: Mapping[str, str]) -> TrackingState:
    """Return the tracking state of a child of the search's run; a new one gets the user's tags."""
    state = read_state(folder)
    if state is None and folder.name.startswith(run_files.BEST):
        # The refit is a run with a model of its own, and its recipe says how it is tracked.
        state = plan_state(folder)
    if state is None:
        # The models of trials stay in their folders: MLflow gets the winner's alone.
        state = TrackingState(tags=dict(tags), log_model=False)
    if (state.uri, state.experiment) != (parent.uri, parent.experiment):
        state.uri, state.experiment = parent.uri, parent.experiment
        # The ids of runs mean nothing in another store or experiment.
        state.forget_run()
    state.parent_run_id = parent.run_id
    return state


def _describe_search(parent: Syncer, results: Sequence[TrialResult], search: SearchConfig) -> None:
    """Set the search's objective, tags and description, by its best settings so far, in its tracking state."""
    state, objective = parent.state, search.objective
    candidates = rank_candidates(select_compared(results, search.algorithm), get_direction(objective))
    if not candidates:
        return
    best = candidates[0]
    state.metrics = {OBJECTIVE_METRIC: best.mean}
    if len(best.objectives) > 1:
        state.metrics[f"{OBJECTIVE_METRIC}_standard_deviation"] = stdev(best.objectives)
    tags = {"best_trial": best.trial.trial_id, "algorithm": search.algorithm, "objective": objective}
    state.tags = {**state.tags, **{f"imagetune.{name}": value for name, value in tags.items()}}
    state.note = format_search_note(parent.run_dir, candidates, trials=len(results), objective=objective)


def _trial_note(trial: Trial, result: TrialResult | None, objective: str) -> str:
    parts = [f"This run is trial {trial.trial_id} of a search, with {describe_settings(trial)}."]
    if trial.repeats is not None:
        parts.append(f"It repeats trial {trial.repeats} with seed {trial.seed}.")
    if trial.continues is not None:
        parts.append(f"It continues the training of trial {trial.continues} up to epoch {trial.epochs}.")
    if result is not None and result.objective is not None:
        where = "" if result.best_epoch is None else f" at epoch {result.best_epoch}"
        parts.append(f"Its validation {objective} is **{result.objective:.4f}**{where}.")
    if result is not None and result.status == "stopped":
        parts.append("It was stopped early, as its best metric was worse than the median of earlier trials.")
    return " ".join(parts)


def _pending(folder: Path) -> int:
    try:
        return count_pending(folder, read_state(folder) or TrackingState(log_model=False))
    except (OSError, ValueError, TrackingError):
        return 1


def _nothing(*_: Any) -> None:
    """Do nothing, while there is no tracker yet."""
