"""Bayesian optimisation with a Gaussian process: KerasTuner's oracle with another search of the acquisition function.

KerasTuner 1.4.8 climbs from 50 random points along numerical gradients, with one prediction of its Gaussian process for
each number. It treats unordered choices as places on a line, proposes points again that it has seen, and leaves failed
trials out. Here the process predicts a thousand whole settings at once, random ones and neighbours of the best;
unordered choices are one-hot encoded; a failed trial counts as the worst.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras_tuner
import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from threadpoolctl import threadpool_limits

from imagetune.recipe.document import NodePath
from imagetune.recipe.sections.search import ChoiceSpace, Space, Value
from imagetune.search.proposers.keras_oracles import MendedOracle
from imagetune.search.space import (
    Spaces,
    Values,
    build_proposal,
    compute_position,
    draw_neighbour,
    draw_setting,
    parse_proposal,
)

Coordinates = NDArray[np.float64]

_RANDOM_CANDIDATES = 500
_NEIGHBOURS = 30
_PARENTS = 5
# A wide step leaves a local optimum, a narrow one refines it.
_WIDTHS = (0.2, 0.05)
_RESTARTS = 2


class BayesianOracle(MendedOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """Bayesian optimisation by the lower confidence bound of a Gaussian process.

    Args:
        spaces: The search spaces by recipe path.
        known: Settings of earlier searches with their objective.
        settings: Arguments of KerasTuner's oracle.
    """

    def __init__(self, *, spaces: Spaces, known: Sequence[tuple[Values, float]] = (), **settings: Any) -> None:
        super().__init__(**settings)
        self._spaces = spaces
        self._known = tuple(known)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return the next setting in KerasTuner's form, or that there is no new one."""
        del trial_id
        seen = [*self._known_costs(), *self._ended_costs()]
        finished = sum(cost is not None for _, cost in seen)
        # A single cost has no spread that a process could be fitted to.
        if self._first or finished < 2 or len(self.trials) + len(self._known) < self.num_initial_points:
            return dict(self._random_populate_space())
        # A generator for each trial: a resumed search draws the same candidates without repeating the draws before
        # them.
        random = np.random.default_rng((self.seed, len(self.trials)))
        # The matrices are small and the trials use the cores: BLAS threads would cost more time than they save.
        with threadpool_limits(1):
            best = find_most_promising(self._spaces, seen, self._open(), self._is_tried, beta=self.beta, random=random)
        if best is None:
            return {"status": "STOPPED", "values": None}
        return {"status": "RUNNING", "values": build_proposal(self._spaces, best)}

    def _known_costs(self) -> list[tuple[Values, float | None]]:
        return [(values, self._sign * objective) for values, objective in self._known]

    def _ended_costs(self) -> list[tuple[Values, float | None]]:
        return [
            (self._values(trial), self._sign * trial.score if trial.status == "COMPLETED" else None)
            for trial in self.trials.values()
            if trial.status != "RUNNING"
        ]

    def _open(self) -> list[Values]:
        return [self._values(trial) for trial in self.trials.values() if trial.status == "RUNNING"]

    def _values(self, trial: Any) -> Values:
        return parse_proposal(self._spaces, trial.hyperparameters.values)

    def _is_tried(self, values: Values) -> bool:
        return bool(self._duplicate(build_proposal(self._spaces, values)))

    @property
    def _sign(self) -> float:
        return 1.0 if self.objective.direction == "min" else -1.0


def find_most_promising(
    spaces: Spaces,
    seen: Sequence[tuple[Values, float | None]],
    open_settings: Sequence[Values],
    is_tried: Any,
    *,
    beta: float,
    random: np.random.Generator,
) -> dict[NodePath, Value] | None:
    """Return the untried setting with the smallest lower confidence bound of its cost (Srinivas et al. 2010).

    Args:
        spaces: The search spaces by recipe path.
        seen: Settings with their cost, smaller is better; None for one that failed, which counts as the worst.
        open_settings: Settings whose trials still run; they count with their expected cost plus a standard deviation,
            so that proposals keep away from them ("kriging believer", Ginsbourger et al. 2010).
        is_tried: Returns whether a setting has been proposed before.
        beta: Standard deviations that the bound lies below the mean: the larger, the more is explored.
        random: Random generator of the candidates.

    Returns:
        None where no candidate is new.
    """
    candidates = [each for each in _candidates(spaces, seen, random) if not is_tried(each)]
    if not candidates:
        return None
    encode = _Encoder(spaces)
    places, costs = encode.all([values for values, _ in seen]), _normal_scores([cost for _, cost in seen])
    model = _fit_process(places, costs, random)
    if open_settings:
        beside = encode.all(open_settings)
        mean, deviation = model.predict(beside, return_std=True)
        # The kernel stays as it was fitted to real costs: believed ones must not shape it.
        fixed = GaussianProcessRegressor(model.kernel_, optimizer=None, normalize_y=True)
        model = fixed.fit(np.concatenate([places, beside]), np.concatenate([costs, mean + deviation]))
    mean, deviation = model.predict(encode.all(candidates), return_std=True)
    return candidates[int(np.argmin(mean - beta * deviation))]


def _candidates(
    spaces: Spaces, seen: Sequence[tuple[Values, float | None]], random: np.random.Generator
) -> list[dict[NodePath, Value]]:
    """Return candidates for the next setting: random ones, and neighbours of the best so far."""
    found = [draw_setting(spaces, random) for _ in range(_RANDOM_CANDIDATES)]
    finished = [(cost, values) for values, cost in seen if cost is not None]
    best = sorted(finished, key=lambda each: each[0])[:_PARENTS]
    for _, values in best:
        for width in _WIDTHS:
            found += [draw_neighbour(spaces, values, random, width=width) for _ in range(_NEIGHBOURS)]
    return found


def _fit_process(places: Coordinates, costs: Coordinates, random: np.random.Generator) -> GaussianProcessRegressor:
    """Fit a Gaussian process with a Matern 5/2 kernel, a length scale for each coordinate, and noise."""
    scales = np.ones(places.shape[1])
    # The noise is needed as another seed gives the same setting another objective.
    kernel = ConstantKernel(1.0, (0.1, 10.0)) * Matern(scales, (0.1, 10.0), nu=2.5) + WhiteKernel(0.05, (1e-4, 1.0))
    # The restarts draw from the trial's generator as well, so that a resumed search fits the same process.
    model = GaussianProcessRegressor(
        kernel, normalize_y=True, n_restarts_optimizer=_RESTARTS, random_state=int(random.integers(2**31))
    )
    with warnings.catch_warnings():
        # scikit-learn warns of a length scale at the end of its range, where that of a space without effect ends up.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(places, costs)


def _normal_scores(costs: Sequence[float | None]) -> Coordinates:
    """Return the normal scores (quantiles of the ranks) of costs, so that a few diverged trials don't dominate."""
    worst = max((cost for cost in costs if cost is not None), default=0.0)
    ranks = rankdata([worst if cost is None else cost for cost in costs])
    return np.asarray(norm.ppf((ranks - 0.5) / len(costs)))


class _Encoder:
    """Encoder of settings as points in the unit cube, for the Gaussian process.

    A range and a choice of rising numbers have one coordinate. Another choice is one-hot encoded, scaled so that any
    two of its values are a distance of 1 apart. A space that isn't in force has its default.
    """

    def __init__(self, spaces: Spaces) -> None:
        self._spaces = spaces

    def all(self, settings: Sequence[Values]) -> Coordinates:
        """Return the encoded settings, (settings, coordinates)."""
        return np.array([self._one(values) for values in settings])

    def _one(self, values: Mapping[NodePath, Value]) -> list[float]:
        return [
            coordinate
            for path, space in self._spaces.items()
            for coordinate in _coordinates(space, values.get(path, space.fallback))
        ]


def _coordinates(space: Space, value: Value) -> list[float]:
    if not isinstance(space, ChoiceSpace) or _is_rising(space.values):
        return [compute_position(space, value)]
    if len(space.values) == 2:
        # One coordinate has them a distance of 1 apart already.
        return [float(value == space.values[1])]
    half = 0.5**0.5
    at = compute_position(space, value) * len(space.values) - 0.5
    return [half * (index == round(at)) for index in range(len(space.values))]


def _is_rising(values: Sequence[Value]) -> bool:
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return len(numbers) == len(values) and numbers == sorted(numbers)
