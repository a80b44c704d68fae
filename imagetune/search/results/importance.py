"""Hyperparameter importance and marginal effects by functional ANOVA: which spaces matter, and which values are good.

Functional analysis of variance of a random forest (Hutter, Hoos and Leyton-Brown, An Efficient Approach for Assessing
Hyperparameter Importance, ICML 2014): a forest learns the objective from the settings; its mean over all other spaces
is the effect of one space; the variance of that effect, as a share of the forest's whole variance over the spaces, is
its importance. What is left over is spaces acting together. A mean over a tree is a sum over its leaves, boxes all.

Chosen over permutation importance because it is a mean over the whole of the spaces and not over the trials: bayesian
search and hyperband crowd their trials where metrics are good. Other than in the paper the effects of all trees are
averaged before their variance is taken, which takes out most of the trees' own noise.

Three things say how far to trust it. The standard error comes from leaving out a tenth of the settings at a time (the
delete-a-group jackknife). The significance threshold comes from forests that learn permuted objectives, for all spaces
together (Altmann et al., Bioinformatics 26, 2010). The fit is the out-of-bag R2 of the forest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc
from sklearn import config_context
from sklearn.tree import DecisionTreeRegressor

from imagetune.recipe.sections.search import Value
from imagetune.search.results.axes import Axis

Floats = NDArray[np.float64]
# The dtype of scikit-learn's trees.
_Singles = NDArray[np.float32]

MIN_SETTINGS = 8
_GRID = 48
_POINTS = 512
_TREES = 40
_BLOCKS = 10
_SHUFFLES = 40
_SHUFFLE_TREES = 16
_LEVEL = 0.05


@dataclass(frozen=True)
class Observation:
    """A trial with a metric, as data of the analysis.

    Attributes:
        values: Values by the axis's name; a space that isn't used is left out.
        objective: The objective, finite.
        settings: Key of the setting: trials with the same key stay together where trials are left out.
    """

    values: Mapping[str, Value]
    objective: float
    settings: str


@dataclass(frozen=True)
class Importance:
    """Importance and marginal effect of a space.

    Attributes:
        axis: The space.
        share: Share of the variance that its effect alone explains, in [0, 1].
        spread: Standard error of ``share``.
        chance: Significance threshold of ``share`` at the 5% level, for all spaces together.
        places: (m,) places on the axis, ascending in [0, 1].
        effect: (m,) mean objective there over all values of the other spaces.
        error: (m,) standard error of ``effect``.
    """

    axis: Axis
    share: float
    spread: float
    chance: float
    places: Floats
    effect: Floats
    error: Floats

    @property
    def told(self) -> bool:
        """Whether the share is statistically significant."""
        return self.share > self.chance


@dataclass(frozen=True)
class Analysis:
    """Analysis of the search spaces from the trials of a search.

    Attributes:
        spaces: Importance and effect of each space, the most important first.
        together: Share of the variance that is due to interactions of spaces, in [0, 1].
        fit: Out-of-bag R2 of the forest; below 0 where it predicts worse than the mean.
        settings: How many different settings were trained.
        trials: How many trials have a metric.
    """

    spaces: tuple[Importance, ...]
    together: float
    fit: float
    settings: int
    trials: int


def analyse(axes: Sequence[Axis], observations: Sequence[Observation], *, seed: int = 0) -> Analysis | None:
    """Return the importance and the marginal effect of each search space.

    Args:
        axes: The spaces.
        observations: Trials with a metric; failed ones are left out. A value that isn't used takes, in each tree, a
            random one of its space, so that it has no effect there.
        seed: The same seed gives the same result.

    Returns:
        None where there is nothing to analyse: fewer than ``FEWEST_SETTINGS`` different settings, no space, or one
        objective throughout.
    """
    trials = _trials(axes, observations)
    count = len(np.unique(trials.groups))
    if count < MIN_SETTINGS or not axes or np.ptp(trials.objectives) == 0:
        return None
    forest = _grow(trials, trees=_TREES, seed=seed)
    without = _grow_without_blocks(trials, seed)
    chance = np.minimum(1.0, _variance_by_chance(trials, seed) / forest.whole)
    shares = forest.shares()
    spread = _jackknife(shares, [other.shares() for other in without])
    found = [
        Importance(
            axis,
            float(shares[place]),
            float(spread[place]),
            float(chance[place]),
            _places(axis),
            forest.effects[place],
            _jackknife(forest.effects[place], [other.effects[place] for other in without]),
        )
        for place, axis in enumerate(axes)
    ]
    found.sort(key=lambda one: -one.share)
    return Analysis(tuple(found), float(max(0.0, 1 - shares.sum())), forest.fit, count, len(observations))


def clip_outliers(objectives: Floats) -> Floats:
    """Return objectives clipped to Tukey's outer fences: one diverged loss would make up all of the variance.

    Args:
        objectives: (n,).
    """
    if not len(objectives):
        return objectives
    low, high = np.quantile(objectives, (0.25, 0.75))
    reach = 3 * (high - low)
    return np.clip(objectives, low - reach, high + reach) if reach > 0 else objectives


@dataclass(frozen=True)
class _Trials:
    """Training data of the forests.

    Attributes:
        axes: The spaces.
        table: (n, axes) place of a range's value, index of a choice's; NaN where the space isn't used.
        objectives: (n,) objectives, clipped.
        groups: (n,) number of the setting.
    """

    axes: tuple[Axis, ...]
    table: Floats
    objectives: Floats
    groups: NDArray[np.int64]

    def some(self, rows: NDArray[np.bool_]) -> _Trials:
        """Return the trials of some rows, given as a mask (n,)."""
        return replace(self, table=self.table[rows], objectives=self.objectives[rows], groups=self.groups[rows])


@dataclass(frozen=True)
class _Forest:
    """Results of a forest.

    Attributes:
        effects: Marginal effect of each axis, at its places.
        variance: Variance of the forest's prediction over the spaces.
        fit: Out-of-bag R2.
    """

    effects: tuple[Floats, ...]
    variance: float
    fit: float

    @property
    def effect_variances(self) -> Floats:
        """Variance of each axis's effect, (axes,)."""
        return np.array([effect.var() for effect in self.effects])

    @property
    def whole(self) -> float:
        """The whole variance; it is sampled, so it is at least the sum of the effects' variances, which are exact."""
        return max(self.variance, float(self.effect_variances.sum()), 1e-300)

    def shares(self) -> Floats:
        """Return each axis's share of the variance, (axes,); together at most 1."""
        return self.effect_variances / self.whole


def _trials(axes: Sequence[Axis], observations: Sequence[Observation]) -> _Trials:
    table = np.full((len(observations), len(axes)), np.nan)
    for row, seen in enumerate(observations):
        for column, axis in enumerate(axes):
            if axis.name in seen.values:
                value = seen.values[axis.name]
                found = axis.index(value) if axis.is_choice else axis.place(value)
                table[row, column] = np.nan if found is None else found
    objectives = np.array([seen.objective for seen in observations], dtype=np.float64)
    groups = np.unique(np.array([seen.settings for seen in observations], dtype=str), return_inverse=True)[1]
    return _Trials(tuple(axes), table, clip_outliers(objectives), groups.astype(np.int64))


def _places(axis: Axis) -> Floats:
    count = len(axis.values) if axis.is_choice else _GRID
    return (np.arange(count) + 0.5) / count


def _grow_without_blocks(trials: _Trials, seed: int) -> list[_Forest]:
    """Return forests that are each grown without one block of the settings."""
    count = int(trials.groups.max()) + 1
    blocks = min(_BLOCKS, count)
    # Whole settings are left out: a setting's other seeds or rungs would give its objective away.
    block_of = np.random.default_rng(seed).permutation(count) % blocks
    return [_grow(trials.some(block_of[trials.groups] != block), trees=_TREES, seed=seed) for block in range(blocks)]


def _jackknife(whole: Floats, without: Sequence[Floats]) -> Floats:
    """Return the jackknife standard error of estimates, from the estimates without each block."""
    squares = (np.array(without) - whole) ** 2
    error: Floats = np.sqrt((len(without) - 1) / len(without) * squares.sum(axis=0))
    return error


def _variance_by_chance(trials: _Trials, seed: int) -> Floats:
    """Return the variance of each axis's effect that chance reaches for any axis in one of twenty searches, (axes,)."""
    rng = np.random.default_rng(seed)
    permuted = []
    for number in range(_SHUFFLES):
        shuffled = replace(trials, objectives=rng.permutation(trials.objectives))
        # Only the effects are compared: predictions of each shuffled forest would be computed for nothing.
        forest = _grow(shuffled, trees=_SHUFFLE_TREES, seed=seed + number, effects_only=True)
        permuted.append(forest.effect_variances)
    variances = np.array(permuted)
    centre, spread = variances.mean(axis=0), np.maximum(variances.std(axis=0), 1e-300)
    # The largest over all axes: the threshold holds for all of them together.
    largest = ((variances - centre) / spread).max(axis=1)
    limit: Floats = centre + np.quantile(largest, 1 - _LEVEL) * spread
    return limit


def _grow(trials: _Trials, *, trees: int, seed: int, effects_only: bool = False) -> _Forest:
    """Grow a forest on bootstrap samples of the settings, and return its effects, variance and out-of-bag fit."""
    rng = np.random.default_rng(seed)
    axes, table = trials.axes, trials.table
    # Sobol points cover the spaces more evenly than random ones of the same number.
    points = _one_hot(axes, _anywhere(axes, qmc.Sobol(len(axes), seed=seed).random(_POINTS)))
    effects = [np.zeros(len(_places(axis))) for axis in axes]
    predictions, unseen, votes = np.zeros(len(points)), np.zeros(len(table)), np.zeros(len(table))
    for _ in range(trees):
        # Drawn anew for each tree, so that a space which isn't used has no effect on average.
        filled = _one_hot(axes, np.where(np.isnan(table), _anywhere(axes, rng.random(table.shape)), table))
        drawn = _draw_bootstrap(trials.groups, rng)
        tree = _fit_tree(filled[drawn > 0], trials.objectives[drawn > 0], drawn[drawn > 0], rng)
        effects = [effect + found / trees for effect, found in zip(effects, _effects(axes, tree), strict=True)]
        if effects_only:
            continue
        predictions += tree.predict(points)[:, 0] / trees
        if (drawn == 0).any():
            unseen[drawn == 0] += tree.predict(filled[drawn == 0])[:, 0]
            votes[drawn == 0] += 1
    asked = votes > 0
    return _Forest(
        tuple(effects), float(predictions.var()), _fit(trials.objectives[asked], unseen[asked] / votes[asked])
    )


def _fit_tree(rows: _Singles, objectives: Floats, weights: NDArray[np.int64], rng: np.random.Generator) -> Any:
    """Return scikit-learn's ``Tree``, fitted to rows; the smallest leaf grows with their number."""
    learner = DecisionTreeRegressor(
        max_features=0.7, min_samples_leaf=max(1, len(rows) // 50), random_state=int(rng.integers(2**31))
    )
    # Its checks of input and parameters take longer than the tree.
    with config_context(skip_parameter_validation=True):
        learner.fit(rows, objectives[:, None], sample_weight=weights.astype(np.float64), check_input=False)
    return learner.tree_


def _draw_bootstrap(groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return how often a bootstrap sample of whole groups draws each row, (n,)."""
    names, places = np.unique(groups, return_inverse=True)
    # Whole settings, as rows of one setting aren't independent.
    counts = np.bincount(rng.choice(len(names), len(names)), minlength=len(names))
    return counts[places].astype(np.int64)


def _fit(objectives: Floats, predicted: Floats) -> float:
    """Return R2, the share of the objectives' variance that predictions explain."""
    variance = objectives.var() if len(objectives) else 0.0
    return float(1 - ((objectives - predicted) ** 2).mean() / variance) if variance > 0 else 0.0


def _anywhere(axes: Sequence[Axis], shares: Floats) -> Floats:
    """Return rows of the table from numbers in [0, 1): a choice's index, a range's place unchanged."""
    counts = np.array([len(axis.values) for axis in axes])
    return np.where(counts > 0, np.floor(shares * counts), shares)


def _one_hot(axes: Sequence[Axis], table: Floats) -> _Singles:
    """Return the table with choices one-hot encoded, (n, columns): a column for each range and each value."""
    columns = [
        table[:, [place]] == np.arange(len(axis.values)) if axis.is_choice else table[:, [place]]
        for place, axis in enumerate(axes)
    ]
    return np.ascontiguousarray(np.hstack([column.astype(np.float32) for column in columns]))


def _effects(axes: Sequence[Axis], tree: Any) -> list[Floats]:
    """Return the tree's mean at the places of each axis, over all values of the other axes."""
    values, low, high = _leaves(tree)
    held, column = [], 0
    for axis in axes:
        if axis.is_choice:
            span = slice(column, column + len(axis.values))
            # With 1 in its own column and 0 in all others, a value has to be inside all of the box's sides.
            others = (low[:, span] < 0).sum(axis=1, keepdims=True) - (low[:, span] < 0)
            held.append((high[:, span] > 1) & (others == len(axis.values) - 1))
            column += len(axis.values)
        else:
            places = _places(axis)
            held.append((low[:, [column]] < places) & (places <= high[:, [column]]))
            column += 1
    sizes = np.array([cells.mean(axis=1) for cells in held])
    volumes = sizes.prod(axis=0)
    return [
        ((values * np.divide(volumes, size, out=np.zeros_like(size), where=size > 0)) @ cells)
        for size, cells in zip(sizes, held, strict=True)
    ]


def _leaves(tree: Any) -> tuple[Floats, Floats, Floats]:
    """Return the value of each leaf (leaves,), and the lower and upper sides of its box (leaves, columns)."""
    low = np.full((tree.node_count, tree.n_features), -np.inf)
    high = np.full((tree.node_count, tree.n_features), np.inf)
    for node in range(tree.node_count):
        left, right, column = tree.children_left[node], tree.children_right[node], tree.feature[node]
        if left < 0:
            continue
        # Parents come before their children.
        for child in (left, right):
            low[child], high[child] = low[node], high[node]
        high[left, column] = low[right, column] = tree.threshold[node]
    ends = tree.children_left < 0
    return tree.value[ends, 0, 0], low[ends], high[ends]
