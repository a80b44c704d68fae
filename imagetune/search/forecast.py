"""Forecast of a search: how many trainings it will run, and how much longer it takes by its trials so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from imagetune.recipe.sections.search import SearchConfig
from imagetune.search.proposers.bakeoff import count_kept, count_probes
from imagetune.search.proposers.sweep import list_sweep_settings, list_sweep_trials
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.search.space import Spaces, count_grid_points, discretise_spaces


@dataclass(frozen=True)
class Expected:
    """Expected size of a search, as far as it is known beforehand.

    Attributes:
        trials: Number of trials of the search algorithm.
        epochs: Hyperband: epochs of all its trials together, those of lower rungs counted once; None for others.
        finals: Number of further trainings of the finalists.
    """

    trials: int
    epochs: int | None
    finals: int


def expected(config: SearchConfig, spaces: Spaces, *, epochs: int) -> Expected:
    """Return the expected size of a search, unless its hours end before.

    Args:
        config: The ``search`` section.
        spaces: The search spaces by recipe path.
        epochs: Epochs of the recipe's stages together.
    """
    trained: int | None = None
    if config.algorithm == "hyperband":
        rungs = _hyperband_rungs(config.max_epochs or epochs, config.factor)
        trials = sum(size for size, _ in rungs)
        trained = sum(size * new for size, new in rungs)
    elif config.algorithm == "sweep":
        trials = len(list_sweep_trials(list_sweep_settings(spaces), repeats=config.repeats, seed=0))
    elif config.algorithm == "grid":
        trials = count_grid_points(discretise_spaces(spaces))
    elif config.algorithm == "bakeoff":
        trials = count_probes(spaces, keep=count_kept(config))
    else:
        trials = config.trials
    most = config.budget.trials
    if most is not None and most < trials:
        # A budget in trials cuts hyperband at a place that its rungs don't tell: then trials are counted.
        trials, trained = most, None
    # The trial itself is the first training of a finalist, except in a bake-off, where it was a probe; a sweep has no
    # finalists.
    again = {"sweep": 0, "bakeoff": config.repeats}.get(config.algorithm, config.repeats - 1)
    return Expected(trials, trained, min(config.finalists, trials) * again)


def seconds_left(
    plan: Expected,
    results: Sequence[TrialResult],
    running: Mapping[str, tuple[Trial, float]],
    *,
    slots: int,
    budget_seconds: float | None = None,
) -> float | None:
    """Return the estimated remaining seconds of a search, refit included; None before the first trial has a metric.

    Args:
        plan: Expected size of the search.
        results: Results of the ended trials.
        running: The running trials by name, each with the seconds that it has run.
        slots: How many trials run at a time.
        budget_seconds: For how long new trials of the algorithm may still start; None without a limit.
    """
    ran = [result for result in results if result.seconds > 0]
    if all(result.objective is None for result in ran):
        return None  # how soon a trial fails says nothing of how long the others take
    # Finalists aren't the algorithm's own trials, and are whole trainings: they would make it look slower.
    own = [result for result in ran if result.trial.phase == "search"] or ran
    # Trials that median stopping has ended are shorter than a whole training.
    whole = fmean([result.seconds for result in own if result.status == "completed"] or [one.seconds for one in own])
    searching = sum(trial.phase == "search" for trial, _ in running.values())
    ended = sum(result.trial.phase == "search" for result in results)
    waiting = max(0, plan.trials - ended - searching)
    trials = (_still_running(running, fmean(one.seconds for one in own)) + _waiting(plan, own, waiting)) / slots
    # The budget ends the proposals: a trial that has started by then runs to its end.
    if budget_seconds is not None:
        trials = min(trials, max(0.0, budget_seconds) + whole)
    finals = max(0, plan.finals - (len(results) - ended) - (len(running) - searching))
    # Finalists and the refit train to the end, as the trials that weren't stopped early.
    return trials + (math.ceil(finals / slots) + 1) * whole


def _still_running(running: Mapping[str, tuple[Trial, float]], typical: float) -> float:
    return sum(max(0.0, typical - elapsed) for _, elapsed in running.values())


def _waiting(plan: Expected, own: Sequence[TrialResult], waiting: int) -> float:
    trained = sum(result.epochs for result in own)
    if plan.epochs is None or trained == 0:
        return waiting * fmean(result.seconds for result in own)
    # The trials of hyperband differ in length by design: an epoch is what they have in common.
    return max(0, plan.epochs - trained) * sum(result.seconds for result in own) / trained if waiting else 0.0


def _hyperband_rungs(max_epochs: int, factor: int) -> list[tuple[int, int]]:
    """Return trials and new epochs a trial of each rung of each bracket, as KerasTuner's Hyperband sizes them."""
    brackets, epochs = 0, float(max_epochs)
    while epochs >= 1:
        epochs /= factor
        brackets += 1
    last = math.ceil(1 + math.log(max_epochs, factor))
    rungs = []
    for bracket in range(brackets):
        before = 0
        for rung in range(bracket + 1):
            size = math.ceil(last / (bracket + 1) * factor ** (bracket - rung))
            grown = math.ceil(max_epochs / factor ** (bracket - rung))
            rungs.append((size, grown - before))
            before = grown
    return rungs
