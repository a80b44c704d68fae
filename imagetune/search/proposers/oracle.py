"""Proposer by KerasTuner's oracles (random, grid, Bayesian, hyperband), without KerasTuner's own trial loop."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras_tuner
import numpy as np

from imagetune.recipe.document import NodePath
from imagetune.recipe.sections.search import SearchConfig, Value
from imagetune.search.proposers.bayesian import BayesianOracle
from imagetune.search.proposers.finalists import Direction, get_direction
from imagetune.search.proposers.keras_oracles import GridOracle, HyperbandOracle, RandomOracle
from imagetune.search.proposers.protocol import Turn
from imagetune.search.records.table import build_values_key
from imagetune.search.records.trial import Known, Trial
from imagetune.search.space import (
    Spaces,
    build_proposal,
    convert_to_hyperparameters,
    discretise_spaces,
    get_default_setting,
    parse_proposal,
)

OBJECTIVE = "objective"
_WORKER = "imagetune"


class OracleProposer:
    """One of KerasTuner's oracles as a proposer.

    The first trial of random and Bayesian search and of hyperband is the recipe's default setting, or the best one that
    earlier searches know: that one is trained again, so that it can win, and no other of theirs is.

    Args:
        config: Algorithm, objective and number of trials.
        spaces: The search spaces by recipe path.
        seed: Seed of the proposals: the same seed proposes the same trials after the same objectives.
        epochs: Epochs of the recipe's stages together, which hyperband's longest trials have unless ``max_epochs`` is
            set.
        known: Settings with objectives from earlier searches.
    """

    def __init__(
        self, config: SearchConfig, spaces: Spaces, *, seed: int, epochs: int, known: Sequence[Known] = ()
    ) -> None:
        if config.max_epochs is None:
            config = config.model_copy(update={"max_epochs": epochs})
        self._spaces = discretise_spaces(spaces) if config.algorithm == "grid" else spaces
        self._direction = get_direction(config.objective)
        # By setting first, so that equal objectives are in one order whatever order the searches were read in.
        known = sorted(known, key=lambda each: build_values_key(each.values))
        known.sort(key=lambda each: each.objective, reverse=self._direction == "max")
        self._oracle = _build(config, self._spaces, known, seed=seed, direction=self._direction)
        # The grid's oracle can't exclude points: its known ones are ended as soon as they are proposed.
        leave_out = known[1:] if config.algorithm == "grid" else ()
        self._known = {build_values_key(each.values): each.objective for each in leave_out}
        self._handles: dict[str, Any] = {}
        self._trials: dict[str, Trial] = {}
        self._originals: dict[tuple[str, int | None], str] = {}

    def ask(self) -> Trial | Turn:
        """Return the oracle's next trial, or why there is none."""
        while True:
            with _quiet():
                # A new name each time: to a worker whose trial is open KerasTuner gives the same trial again.
                handle = self._oracle.create_trial(f"{_WORKER}-{len(self._oracle.trials)}")
            if handle.status == "IDLE":
                return Turn.WAIT
            if handle.status != "RUNNING":
                return Turn.OVER
            proposed = handle.hyperparameters.values
            values = parse_proposal(self._spaces, proposed)
            if (objective := self._known.get(build_values_key(values))) is None:
                return self._trial(handle, values)
            self._end(handle, objective)

    def tell(self, trial: Trial, objective: float | None) -> None:
        """Report the objective of a trial to the oracle, with the values that it was run with."""
        handle = self._handles.pop(trial.trial_id)
        # Hyperband looks up bracket and rung among its own values.
        kept = {name: value for name, value in handle.hyperparameters.values.items() if name.startswith("tuner/")}
        # The journal's values count, also where this version would have proposed others under that name.
        handle.hyperparameters.values = {**build_proposal(self._spaces, trial.values), **kept}
        self._remember(handle, trial)
        self._end(handle, objective)

    def _trial(self, handle: Any, values: Mapping[NodePath, Value]) -> Trial:
        proposed = handle.hyperparameters.values
        epochs, continues = proposed.get("tuner/epochs"), None
        if (parent := proposed.get("tuner/trial_id")) is not None:
            # KerasTuner names a trial of its own, which may have been a repetition: the checkpoint is in the folder of
            # the original.
            lower = self._trials[parent]
            continues = self._originals[build_values_key(lower.values), lower.epochs]
        trial = Trial(f"{len(self._trials) + 1:03d}", values, epochs=epochs, continues=continues)
        self._handles[trial.trial_id] = handle
        self._remember(handle, trial)
        return trial

    def _remember(self, handle: Any, trial: Trial) -> None:
        self._trials[handle.trial_id] = trial
        # Only the first of equal trials is really run.
        self._originals.setdefault((build_values_key(trial.values), trial.epochs), trial.trial_id)

    def _end(self, handle: Any, objective: float | None) -> None:
        if objective is None and isinstance(self._oracle, keras_tuner.oracles.HyperbandOracle):
            # A rung with a FAILED trial in it never promotes anything; one with a trial in last place does.
            objective = math.inf if self._direction == "min" else -math.inf
        handle.status = "FAILED" if objective is None else "COMPLETED"
        with _quiet():
            if objective is not None:
                self._oracle.update_trial(handle.trial_id, {OBJECTIVE: objective})
            self._oracle.end_trial(handle)


def _build(
    config: SearchConfig, spaces: Spaces, known: Sequence[Known], *, seed: int, direction: Direction
) -> keras_tuner.Oracle:
    common: dict[str, Any] = {
        "objective": keras_tuner.Objective(OBJECTIVE, direction),
        "hyperparameters": convert_to_hyperparameters(spaces),
        # KerasTuner takes 0 for "no seed", and the streams of neighbouring seeds overlap: spread them.
        "seed": int(np.random.SeedSequence(seed).generate_state(1)[0]) or 1,
        # After three failures in a row KerasTuner raises; here the other trials of the budget go on.
        "max_consecutive_failed_trials": sys.maxsize,
    }
    if config.algorithm == "grid":
        return GridOracle(**common)
    best = [each.values for each in known] or [get_default_setting(spaces)]
    if config.algorithm == "hyperband":
        first = [build_proposal(spaces, values) for values in best[: config.factor]]
        return HyperbandOracle(max_epochs=config.max_epochs, factor=config.factor, first=first, **common)
    common |= {"first": [build_proposal(spaces, best[0])], "max_trials": config.trials}
    common["tried"] = [build_proposal(spaces, each.values) for each in known[1:]]
    if config.algorithm == "random":
        return RandomOracle(**common)
    # KerasTuner's habit of three random points a dimension would leave a short search no trial; with one and the
    # defaults it found more on recorded surfaces (benchmarks/oracles.py).
    initial = max(3, min(len(spaces) + 1, config.trials // 2))
    observed = [(each.values, each.objective) for each in known]
    return BayesianOracle(spaces=spaces, known=observed, num_initial_points=initial, **common)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide KerasTuner's deprecation warnings, which users can't act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
