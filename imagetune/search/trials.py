"""The search: ask the oracle, run the trial, tell the oracle, write it down."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from imagetune.errors import ImagetuneError, RecipeError, SearchError, StoppedError
from imagetune.recipe.document import NodePath
from imagetune.recipe.search import Scalar, SearchConfig
from imagetune.search.oracle import Proposal, ask, build_oracle, direction_of, tell
from imagetune.search.records import (
    TABLE_NAME,
    Trial,
    TrialResult,
    append_result,
    describe_search,
    open_table,
    read_results,
)
from imagetune.search.space import Spaces, grid_size, on_grid


class RunTrial(Protocol):
    """Trains and judges one trial."""

    def __call__(self, values: Mapping[NodePath, Scalar], *, trial_id: str, epochs: int | None) -> float:
        """Return the best validation figure of the trial.

        Args:
            values: The value of each space, by recipe path.
            trial_id: ``001``, ``002``, ...
            epochs: Epochs in all for this trial; None leaves them to the recipe.

        Raises:
            ImagetuneError: The trial failed; the search goes on.
        """
        ...


@dataclass(frozen=True)
class SearchResult:
    """A finished search.

    Attributes:
        best: The completed trial with the best objective; of equals the earliest.
        results: Every trial in order, those of earlier sessions included.
        direction: Whether a smaller or a larger objective is better.
    """

    best: TrialResult
    results: tuple[TrialResult, ...]
    direction: Literal["min", "max"]

    @property
    def best_values(self) -> Mapping[NodePath, Scalar]:
        """The recipe values of the best trial."""
        return self.best.trial.values


def check_search(spaces: Spaces, config: SearchConfig) -> None:
    """Check what can be checked before there is a folder.

    Raises:
        RecipeError: There is no space, or a grid has more points than ``search.trials``.
    """
    if not spaces:
        hint = "replace a value by a space, such as learning_rate: {search: log_uniform, low: 1e-5, high: 1e-2}"
        raise RecipeError("the recipe has nothing to search", hint=hint)
    points = grid_size(on_grid(spaces)) if config.algorithm == "grid" else 0
    if points > config.trials:
        what = f"the grid has {points} points, search.trials allows {config.trials}, and part of a grid says little"
        hint = "raise search.trials, offer fewer values, or use algorithm: random"
        raise RecipeError(what, where="search.trials", hint=hint)


def run_search(
    spaces: Spaces,
    config: SearchConfig,
    *,
    seed: int,
    folder: Path,
    run_trial: RunTrial,
    on_trial: Callable[[TrialResult], None] | None = None,
    resume: bool = False,
) -> SearchResult:
    """Run trials until the oracle has had enough, one after the other.

    Every finished trial is in ``folder/search.csv`` before the next starts. Trials that are there already are not run
    again when resuming: they are told to a fresh oracle in their order, which so comes to where the last one stopped.

    Args:
        spaces: What to search, by recipe path.
        config: Algorithm, objective and number of trials.
        seed: The same seed proposes the same trials.
        folder: Where the search keeps its files.
        run_trial: Trains and judges one trial. An ImagetuneError or a figure that is not finite is a failed trial;
            StoppedError, KeyboardInterrupt and everything unexpected end the search.
        on_trial: Called after each trial that was run or repeated here.
        resume: Go on with the search in ``folder``.

    Raises:
        RecipeError: See ``check_search``.
        CheckpointError: The folder has a search, and ``resume`` is false or the search is another one.
        SearchError: Every trial failed.
    """
    check_search(spaces, config)
    table = open_table(folder, describe_search(config, spaces, seed=seed), spaces, resume=resume)
    earlier = read_results(table)
    config = config.model_copy(update={"trials": max(config.trials, len(earlier))})
    oracle = build_oracle(config, spaces, seed=seed, folder=folder)
    results: list[TrialResult] = []
    while proposal := ask(oracle):
        if len(results) < len(earlier):
            result = _replayed(proposal, earlier[len(results)])
        else:
            result = _run(_trial_of(proposal), results, run_trial)
            append_result(table, result)
            if on_trial is not None:
                on_trial(result)
        tell(oracle, proposal, result.objective, values=dict(result.trial.values))
        results.append(result)
    return SearchResult(_best(results, config, folder), tuple(results), oracle.direction)


def _name(number: int) -> str:
    return f"{number:03d}"


def _trial_of(proposal: Proposal) -> Trial:
    continues = None if proposal.continues is None else _name(proposal.continues)
    return Trial(_name(proposal.number), proposal.values, proposal.epochs, continues)


def _replayed(proposal: Proposal, recorded: TrialResult) -> TrialResult:
    """Return the recorded result; its values stand, should another machine's arithmetic propose others."""
    trial = replace(_trial_of(proposal), values=recorded.trial.values)
    return replace(recorded, trial=trial)


def _run(trial: Trial, results: Sequence[TrialResult], run_trial: RunTrial) -> TrialResult:
    for known in results:
        if known.trial.trial_id == trial.continues and known.status == "failed":
            return TrialResult(trial, "failed", None, 0.0, f"trial {trial.continues}, which it goes on from, failed")
        if known.trial.same_point(trial):
            return _repeated(trial, known)
    start = time.monotonic()
    try:
        objective = float(run_trial(trial.values, trial_id=trial.trial_id, epochs=trial.epochs))
    except StoppedError:
        raise
    except ImagetuneError as error:
        return TrialResult(trial, "failed", None, time.monotonic() - start, " ".join(f"{error.code}: {error}".split()))
    seconds = time.monotonic() - start
    if not math.isfinite(objective):
        return TrialResult(trial, "failed", None, seconds, f"the objective is {objective}")
    return TrialResult(trial, "completed", objective, seconds)


def _repeated(trial: Trial, known: TrialResult) -> TrialResult:
    """Take over the result of the same point: a small space makes Bayesian search propose points again."""
    if known.status == "failed":
        return TrialResult(trial, "failed", None, 0.0, f"the same as trial {known.trial.trial_id}, which failed")
    return TrialResult(trial, "repeated", known.objective, 0.0)


def _best(results: Sequence[TrialResult], config: SearchConfig, folder: Path) -> TrialResult:
    sign = 1.0 if direction_of(config.objective) == "min" else -1.0
    scored = [(sign * result.objective, index) for index, result in enumerate(results) if result.objective is not None]
    if scored:
        return results[min(scored)[1]]
    first = results[0]
    what = f"all {len(results)} trials failed; the first (trial {first.trial.trial_id}): {first.error}"
    raise SearchError(what, where=str(folder / TABLE_NAME), hint="mend the cause, or narrow the spaces")
