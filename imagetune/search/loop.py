"""Loop of a search: ask the proposer for trials, run them in parallel, record their results, report them back."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from imagetune.core.files import convert_disk_errors
from imagetune.errors import CheckpointError, ImagetuneError
from imagetune.search.executors.protocol import Executor, Outcome, Task
from imagetune.search.proposers.protocol import Proposer, Turn
from imagetune.search.records.journal import Ended, Event, Journal, Proposed, find_unfinished
from imagetune.search.records.table import Table, append_result, is_same_training
from imagetune.search.records.trial import Trial, TrialResult, format_error_line

# How often listeners tick and a request to stop is noticed.
_LOOK_SECONDS = 0.25


class SearchListener(Protocol):
    """Callbacks of the trials of a search. They run in its own thread: they must be quick and must not raise."""

    def trial_started(self, trial: Trial, task: Task) -> None:
        """Called before a trial starts; its folder may still hold an interrupted attempt, which is then removed."""

    def trial_ended(self, result: TrialResult, task: Task | None) -> None:
        """Called with the result of a trial; ``task`` is None where the trial never ran."""

    def tick(self) -> None:
        """Called several times a second while trials run."""


@dataclass(frozen=True)
class Runner:
    """Executor, records and callbacks, which all phases of a search share.

    Attributes:
        executor: Runs the trials.
        task_of: Makes the task of a trial; an ImagetuneError makes it a failed trial.
        journal: Record of all events, from which a search is resumed.
        table: ``search.csv``, the ended trials for people.
        listener: Called when trials start and end.
        check: Called often; may raise to stop the search.
        may_start: Returns, from the results so far, whether the budget allows one more trial.
    """

    executor: Executor
    task_of: Callable[[Trial], Task]
    journal: Journal
    table: Table
    listener: SearchListener
    check: Callable[[], None]
    may_start: Callable[[Sequence[TrialResult]], bool]


@dataclass
class _Phase:
    """State of a phase while it runs.

    Attributes:
        results: Results of the whole search so far, in the order in which trials ended.
        running: The running trials by name.
        interrupted: Trials that have to be run again: of an earlier session, or of a machine that was lost.
        over: Whether the proposer has no more trials.
    """

    results: list[TrialResult]
    running: dict[str, Trial] = field(default_factory=dict)
    interrupted: list[Trial] = field(default_factory=list)
    over: bool = False


def run_trials(
    proposer: Proposer, runner: Runner, *, known: Sequence[TrialResult], past: Sequence[Event] = ()
) -> list[TrialResult]:
    """Run trials until the proposer has no more or the budget is spent, and return all results.

    An ended trial is in the journal before anything else happens. Results that the journal of an earlier session holds
    are reported to the proposer again, in their order, and not run again; what was still running is run from its start.

    Args:
        proposer: Decides which trial comes next.
        runner: Executor, records and callbacks.
        known: Results of earlier phases.
        past: Events of this phase in earlier sessions.

    Returns:
        ``known``, followed by the results of this phase.

    Raises:
        CheckpointError: The proposer doesn't ask for the trials of the journal.
    """
    phase = _Phase([*known])
    _replay(proposer, past, phase)
    while _start_some(proposer, runner, phase) or phase.running:
        runner.check()
        for task, outcome in runner.executor.wait(_LOOK_SECONDS):
            trial = phase.running.pop(task.trial_id)
            if outcome.status == "lost":
                phase.interrupted.append(trial)
            else:
                _end(proposer, runner, phase, _result(trial, outcome), task)
        runner.listener.tick()
    return phase.results


def _replay(proposer: Proposer, past: Sequence[Event], phase: _Phase) -> None:
    """Bring a fresh proposer to the state in which the earlier sessions left theirs."""
    for event in past:
        if isinstance(event, Ended):
            # Told in the order in which the trials ended, since an oracle's next proposal depends on it.
            proposer.tell(event.result.trial, event.result.objective)
            phase.results.append(event.result)
            continue
        asked = proposer.ask()
        if isinstance(asked, Turn) or asked.trial_id != event.trial.trial_id:
            hint = "start a new search in another folder with --run-dir, and reuse the results with search.warm_start"
            what = f"trial {event.trial.trial_id} of the journal is not what this version would propose"
            raise CheckpointError(what, hint=hint)
    phase.interrupted.extend(find_unfinished(past))


def _start_some(proposer: Proposer, runner: Runner, phase: _Phase) -> bool:
    """Start trials while slots are free, and return whether more of them might start at once."""
    # Asked anew each time, since a cluster may gain or lose machines meanwhile.
    while len(phase.running) < runner.executor.slots:
        trial = _next(proposer, runner, phase)
        if trial is None:
            return False
        runner.check()
        # Also for interrupted trials: the result that makes one superfluous may have come after it was proposed.
        if (result := _known_already(trial, phase.results)) is not None:
            _end(proposer, runner, phase, result, None)
            continue
        _start(proposer, runner, phase, trial)
    return True


def _next(proposer: Proposer, runner: Runner, phase: _Phase) -> Trial | None:
    """Return the next trial to start: an interrupted one, else a new one; None where there is none for now."""
    # These first: they count as started, so that no budget holds them up, and hyperband waits for their results.
    if phase.interrupted:
        return phase.interrupted.pop(0)
    if phase.over or not runner.may_start(phase.results):
        return None
    asked = proposer.ask()
    if isinstance(asked, Turn):
        phase.over = asked is Turn.OVER
        return None
    # Before the trial starts: after a kill in between, the resumed search finds it unfinished and runs it.
    runner.journal.add(Proposed(asked))
    return asked


def _start(proposer: Proposer, runner: Runner, phase: _Phase, trial: Trial) -> None:
    try:
        task = runner.task_of(trial)
    except ImagetuneError as error:
        # Settings that are wrong only together show here: a failed trial, and not the end of the search.
        failed = TrialResult(trial, "failed", None, time.time(), 0.0, error=format_error_line(error))
        _end(proposer, runner, phase, failed, None)
        return
    # Before the folder is emptied: the copy for MLflow sets aside what the interrupted attempt has recorded.
    runner.listener.trial_started(trial, task)
    if task.folder.exists():  # of an interrupted attempt
        with convert_disk_errors(task.folder):
            shutil.rmtree(task.folder)
    runner.executor.start(task)
    phase.running[trial.trial_id] = trial


def _end(proposer: Proposer, runner: Runner, phase: _Phase, result: TrialResult, task: Task | None) -> None:
    # The journal before all else: after a kill between these lines the table and the proposer are restored from it.
    runner.journal.add(Ended(result))
    append_result(runner.table, result)
    proposer.tell(result.trial, result.objective)
    phase.results.append(result)
    runner.listener.trial_ended(result, task)


def _result(trial: Trial, outcome: Outcome) -> TrialResult:
    began = time.time() - outcome.seconds
    result = TrialResult(
        trial,
        "stopped" if outcome.status == "stopped" else "completed",
        outcome.objective,
        began,
        outcome.seconds,
        outcome.epochs,
        outcome.best_epoch,
        outcome.place,
    )
    if outcome.status == "failed":
        return replace(result, status="failed", objective=None, error=outcome.error or "no reason was given")
    # NaN compares with nothing, and minus infinity would be the best of all losses.
    if outcome.objective is None or not math.isfinite(outcome.objective):
        return replace(result, status="failed", objective=None, error=f"the objective is {outcome.objective}")
    return result


def _known_already(trial: Trial, results: Iterable[TrialResult]) -> TrialResult | None:
    """Return the result of a trial that need not run: it continues a failed one, or its settings were tried before."""
    for known in results:
        name, failed = known.trial.trial_id, known.status == "failed"
        # There is no checkpoint to continue from.
        if name == trial.continues and failed:
            return TrialResult(trial, "failed", None, time.time(), 0.0, error=f"trial {name}, its lower rung, failed")
        if is_same_training(known.trial, trial):
            if failed:
                error = f"trial {name}, with the same settings, failed"
                return TrialResult(trial, "failed", None, time.time(), 0.0, error=error)
            return replace(known, trial=trial, status="repeated", began=time.time(), seconds=0.0, epochs=0)
    return None
