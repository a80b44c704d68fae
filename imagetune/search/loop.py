"""The loop of a search: ask for trials, run them beside each other, write down how they end, tell the proposer."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from imagetune.core.files import disk_errors
from imagetune.errors import CheckpointError, ImagetuneError
from imagetune.search.executors.protocol import Executor, Outcome, Task
from imagetune.search.proposers.protocol import Proposer, Turn
from imagetune.search.records.journal import Ended, Event, Journal, Proposed, unfinished
from imagetune.search.records.table import Table, append_result, same_point
from imagetune.search.records.trial import Trial, TrialResult

_LOOK_SECONDS = 0.25


class SearchListener(Protocol):
    """Hears of trials; must be quick and must not raise."""

    def trial_started(self, trial: Trial, task: Task) -> None:
        """Hear that a trial starts; what its folder holds of an interrupted attempt is gone after this call."""

    def trial_ended(self, result: TrialResult, task: Task | None) -> None:
        """Hear that a trial ended; without a task it never ran."""

    def tick(self) -> None:
        """Called several times a second while trials run."""


@dataclass(frozen=True)
class Runner:
    """What the phases of a search share.

    Attributes:
        executor: Runs the trials.
        task_of: Makes the task of a trial; an ImagetuneError is a failed trial.
        journal: Where events go.
        table: Where ended trials go, for people.
        listener: Hears of trials.
        check: Called often; may raise to stop the search.
        may_start: Whether one more trial may start, from what has ended so far; asked before each of the oracle's.
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
    """Where a phase stands.

    Attributes:
        results: Of the whole search, in the order of their ends.
        running: Tasks in work by trial.
        interrupted: Trials of an earlier session that have to be run again.
        over: Whether the proposer has no more.
    """

    results: list[TrialResult]
    running: dict[str, Trial] = field(default_factory=dict)
    interrupted: list[Trial] = field(default_factory=list)
    over: bool = False


def run_trials(
    proposer: Proposer, runner: Runner, *, known: Sequence[TrialResult], past: Sequence[Event] = ()
) -> list[TrialResult]:
    """Run trials until the proposer has had enough.

    An ended trial is in the journal before anything else happens. What the journal of an earlier session says has ended
    is told again in its order and not run again; what was still running is run from its beginning.

    Args:
        proposer: Says what to try.
        runner: What all phases share.
        known: How the trials of earlier phases ended.
        past: Events of this phase in earlier sessions.

    Returns:
        ``known``, and how this phase's trials ended.

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
    for event in past:
        if isinstance(event, Ended):
            proposer.tell(event.result.trial, event.result.objective)
            phase.results.append(event.result)
            continue
        asked = proposer.ask()
        if isinstance(asked, Turn) or asked.trial_id != event.trial.trial_id:
            hint = "search again in another folder with --run-dir, with warm_start for what is known"
            what = f"trial {event.trial.trial_id} of the journal is not what this version would try"
            raise CheckpointError(what, hint=hint)
    phase.interrupted.extend(unfinished(past))


def _start_some(proposer: Proposer, runner: Runner, phase: _Phase) -> bool:
    """Start trials while there is room; tell whether there may be more to start at once."""
    while len(phase.running) < runner.executor.slots:
        trial = _next(proposer, runner, phase)
        if trial is None:
            return False
        runner.check()
        if (result := _known_already(trial, phase.results)) is not None:
            _end(proposer, runner, phase, result, None)
            continue
        _start(proposer, runner, phase, trial)
    return True


def _next(proposer: Proposer, runner: Runner, phase: _Phase) -> Trial | None:
    if phase.interrupted:
        return phase.interrupted.pop(0)
    if phase.over or not runner.may_start(phase.results):
        return None
    asked = proposer.ask()
    if isinstance(asked, Turn):
        phase.over = asked is Turn.OVER
        return None
    runner.journal.add(Proposed(asked))
    return asked


def _start(proposer: Proposer, runner: Runner, phase: _Phase, trial: Trial) -> None:
    try:
        task = runner.task_of(trial)
    except ImagetuneError as error:
        failed = TrialResult(trial, "failed", None, time.time(), 0.0, error=one_line(error))
        _end(proposer, runner, phase, failed, None)
        return
    runner.listener.trial_started(trial, task)
    if task.folder.exists():  # of an interrupted attempt
        with disk_errors(task.folder):
            shutil.rmtree(task.folder)
    runner.executor.start(task)
    phase.running[trial.trial_id] = trial


def _end(proposer: Proposer, runner: Runner, phase: _Phase, result: TrialResult, task: Task | None) -> None:
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
    if outcome.objective is None or not math.isfinite(outcome.objective):
        return replace(result, status="failed", objective=None, error=f"the objective is {outcome.objective}")
    return result


def _known_already(trial: Trial, results: Iterable[TrialResult]) -> TrialResult | None:
    """Return how a trial ends that need not run: it goes on from one that failed, or has been tried as it is."""
    for known in results:
        name, failed = known.trial.trial_id, known.status == "failed"
        if name == trial.continues and failed:
            return TrialResult(trial, "failed", None, time.time(), 0.0, error=f"trial {name}, its lower rung, failed")
        if same_point(known.trial, trial):
            if failed:
                return TrialResult(trial, "failed", None, time.time(), 0.0, error=f"the same as trial {name}, failed")
            return replace(known, trial=trial, status="repeated", began=time.time(), seconds=0.0, epochs=0)
    return None


def one_line(error: ImagetuneError) -> str:
    """Return what went wrong in one line, with the error's code."""
    return " ".join(f"{error.code}: {error}".split())
