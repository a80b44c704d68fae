"""KerasTuner's oracles, asked and told without its trial loop."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras_tuner
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from imagetune.recipe.document import NodePath
from imagetune.recipe.search import Scalar, SearchConfig
from imagetune.search.space import Spaces, hyperparameters_of, on_grid, proposal_of, values_of

OBJECTIVE = "objective"
_WORKER = "imagetune"
_DIRECTIONS: dict[str, Literal["min", "max"]] = {
    "loss": "min",
    "accuracy": "max",
    "precision": "max",
    "recall": "max",
    "f1": "max",
    "mae": "min",
    "r2": "max",
}


@dataclass(frozen=True)
class Oracle:
    """One of KerasTuner's oracles with the spaces that it draws from.

    Attributes:
        tuner: The ``keras_tuner.Oracle``.
        spaces: The spaces as the oracle sees them: points instead of ranges on a grid.
        direction: Whether a smaller or a larger objective is better.
    """

    tuner: Any
    spaces: Spaces
    direction: Literal["min", "max"]


@dataclass(frozen=True)
class Proposal:
    """What an oracle wants tried next.

    Attributes:
        number: Trials count from 1.
        values: A recipe value for every space.
        epochs: Hyperband: epochs in all for this trial; None leaves them to the recipe.
        continues: Hyperband: number of the shorter trial with the same values.
        handle: The ``keras_tuner.engine.trial.Trial`` to give back when telling.
    """

    number: int
    values: dict[NodePath, Scalar]
    epochs: int | None
    continues: int | None
    handle: Any


def direction_of(objective: str) -> Literal["min", "max"]:
    """Return whether a smaller or a larger figure is better."""
    return _DIRECTIONS[objective]


def build_oracle(config: SearchConfig, spaces: Spaces, *, seed: int, folder: Path) -> Oracle:
    """Build the oracle of a search.

    Args:
        config: Algorithm, objective and number of trials.
        spaces: What to search, by recipe path.
        seed: The same seed proposes the same trials, given the same objectives; 0 as well.
        folder: KerasTuner keeps its own files in ``folder/oracle``; nothing reads them.
    """
    if config.algorithm == "grid":
        spaces = on_grid(spaces)
    direction = direction_of(config.objective)
    common = {
        "objective": keras_tuner.Objective(OBJECTIVE, direction),
        "hyperparameters": hyperparameters_of(spaces),
        # KerasTuner takes 0 for "no seed", and the streams of neighbouring seeds overlap: spread them.
        "seed": int(np.random.SeedSequence(seed).generate_state(1)[0]) or 1,
        "max_consecutive_failed_trials": sys.maxsize,
    }
    tuner = _build(config, common, dimensions=len(spaces))
    tuner.verbose = 0
    # The public way to name the folder is KerasTuner's trial loop, which is not used here.
    tuner._set_project_dir(str(folder), "oracle")
    return Oracle(tuner, spaces, direction)


def _build(config: SearchConfig, common: dict[str, Any], *, dimensions: int) -> Any:
    if config.algorithm == "random":
        return keras_tuner.oracles.RandomSearchOracle(max_trials=config.trials, **common)
    if config.algorithm == "grid":
        return keras_tuner.oracles.GridSearchOracle(max_trials=config.trials, **common)
    if config.algorithm == "hyperband":
        return keras_tuner.oracles.HyperbandOracle(max_epochs=config.max_epochs, factor=config.factor, **common)
    # Three random points a dimension are KerasTuner's habit; in a short search they would leave the model no trial.
    initial = max(3, min(3 * dimensions, config.trials // 2))
    return keras_tuner.oracles.BayesianOptimizationOracle(
        max_trials=config.trials, num_initial_points=initial, **common
    )


def ask(oracle: Oracle) -> Proposal | None:
    """Return the next trial to run, or None when the search is over. One trial is open at a time."""
    with _quiet():
        trial = oracle.tuner.create_trial(_WORKER)
    if trial.status != "RUNNING":
        return None
    proposed = trial.hyperparameters.values
    parent = proposed.get("tuner/trial_id")
    return Proposal(
        number=int(trial.trial_id) + 1,
        values=values_of(oracle.spaces, proposed),
        epochs=proposed.get("tuner/epochs"),
        continues=None if parent is None else int(parent) + 1,
        handle=trial,
    )


def tell(
    oracle: Oracle, proposal: Proposal, objective: float | None, *, values: dict[NodePath, Scalar] | None = None
) -> None:
    """Close a trial.

    Args:
        oracle: Where the proposal came from.
        proposal: The open trial.
        objective: The finite figure that was reached; None for a failed trial.
        values: What was tried, where it differs from the proposal: a replayed trial of an earlier process.
    """
    trial = proposal.handle
    if values is not None and values != proposal.values:
        trial.hyperparameters.values.update(proposal_of(oracle.spaces, values))
    objective = _stand_in(oracle) if objective is None else objective
    trial.status = "FAILED" if objective is None else "COMPLETED"
    with _quiet():
        if objective is not None:
            oracle.tuner.update_trial(trial.trial_id, {OBJECTIVE: objective})
        oracle.tuner.end_trial(trial)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the user what only KerasTuner can mend: its old calls, and remarks of its model of the objective."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _stand_in(oracle: Oracle) -> float | None:
    """Return what a failed trial counts as, None for KerasTuner's own treatment of it."""
    worst = max if oracle.direction == "min" else min
    if isinstance(oracle.tuner, keras_tuner.oracles.HyperbandOracle):
        # A rung with a FAILED trial in it never promotes anything; one with a trial in last place does.
        return worst(math.inf, -math.inf)
    if isinstance(oracle.tuner, keras_tuner.oracles.BayesianOptimizationOracle):
        # The model of the objective leaves FAILED trials out, and so keeps proposing the place where they failed.
        return worst((trial.score for trial in oracle.tuner.trials.values() if trial.score is not None), default=None)
    return None
