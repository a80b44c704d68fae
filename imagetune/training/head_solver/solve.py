"""Solving a linear head: standardised features, an L2 penalty, and L-BFGS (Liu and Nocedal 1989) to the optimum.

The penalty treats all weights alike, so that features have to be on one scale; standardisation is folded into the
weights afterwards, and the head stays a plain Dense layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imagetune.training.head_solver.losses import ConvexLoss, Floats

# The loss is flat around the best strength: finer steps change little.
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0)
DEFAULT_STRENGTH = 1e-2
FOLDS = 5
_ITERATIONS = 300
# Chosen on the quality benchmark's sets (docs/quality.md): 0 to 0.1 leave outliers, 1 and more were no better.
SHRINKAGE = 0.3
# Of the largest deviation, or of the features' size: what varies less is dead, or differs by rounding.
_DEAD_SHARE = 1e-3
# Largest gradient at which the optimum counts as reached; the loss is then within about 1e-5 of it.
_TOLERANCE = 1e-4
# Enough to compare penalties.
_CHOOSING_TOLERANCE = 1e-3


@dataclass(frozen=True)
class HeadProblem:
    """The convex problem of a linear head.

    Attributes:
        features: (n, d) float32, standardised.
        targets: (n, k) float32 soft or one-hot targets, or normalised numbers.
        weights: (n,) float32 weight of each row in the loss, above or equal to 0.
        loss: The loss.
        offset: (k,) float32 that is added to the logits in the loss alone (logit adjustment).
    """

    features: NDArray[np.float32]
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]
    loss: ConvexLoss
    offset: NDArray[np.float32]

    def select(self, rows: NDArray[np.bool_]) -> HeadProblem:
        """Return the problem of some of the rows, given by a mask (n,)."""
        return replace(self, features=self.features[rows], targets=self.targets[rows], weights=self.weights[rows])


@dataclass(frozen=True)
class LinearHead:
    """A linear head: logits are ``features @ kernel + bias``.

    Attributes:
        kernel: (d, k) float64.
        bias: (k,) float64.
    """

    kernel: NDArray[np.float64]
    bias: NDArray[np.float64]

    def compute_logits(self, features: Floats) -> Floats:
        """Return the logits (m, k) of features (m, d)."""
        return np.asarray(features @ self.kernel.astype(np.float32) + self.bias.astype(np.float32))


@dataclass(frozen=True)
class Scaler:
    """Mean and scale of each feature, and the rotation that leaves only directions which rows span.

    Attributes:
        mean: (d,) float64.
        scale: (d,) float64: the standard deviation, and a share of the median one added to it as its square.
        rotation: (d, r) float32 with orthonormal columns, or None for none. An L2 penalty doesn't change by it, and
            with fewer rows than features the problem is smaller.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    rotation: NDArray[np.float32] | None = None

    def transform(self, features: Floats) -> NDArray[np.float32]:
        """Return features (m, d) standardised and rotated, (m, d or r) float32."""
        scaled = ((features - self.mean) / self.scale).astype(np.float32)
        return scaled if self.rotation is None else scaled @ self.rotation

    def fold_into(self, head: LinearHead) -> LinearHead:
        """Return the head of plain features that gives the same logits as one of transformed features."""
        kernel = head.kernel if self.rotation is None else self.rotation.astype(np.float64) @ head.kernel
        kernel = kernel / self.scale[:, None]
        return LinearHead(kernel, head.bias - self.mean @ kernel)


def fit_scaler(features: Floats, *, shrinkage: float = SHRINKAGE) -> Scaler:
    """Return the scaler of training features (n, d).

    Args:
        features: Features of all rows.
        shrinkage: Share of the median deviation that is added to each feature's deviation, as squares.
    """
    mean, std = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    # A feature that hardly ever fires in training would get a huge scaled value where it does: one such image of a test
    # set of 38 raised the log loss from 0.3 to 1.2. A share of the median deviation is added to all.
    scale = np.hypot(std, shrinkage * _find_reference(std, features))
    scaler = Scaler(mean, np.where(scale > 0, scale, 1.0))
    if len(features) >= features.shape[1]:
        return scaler
    scaled = scaler.transform(features)
    values, vectors = np.linalg.eigh((scaled @ scaled.T).astype(np.float64))
    kept = values > 1e-6 * max(float(values.max()), 1e-12)
    rotation = (scaled.T @ vectors[:, kept]) / np.sqrt(values[kept])
    return replace(scaler, rotation=rotation.astype(np.float32))


def _find_reference(std: NDArray[np.float64], features: Floats) -> float:
    """Return the deviation that scales are shrunk towards: the median of the features that vary at all.

    After a ReLU most features of small images are 0 throughout, and rounding makes others of identical images differ:
    neither may be scaled up to the size of a signal.
    """
    live = std[std > _DEAD_SHARE * float(std.max(initial=0.0))]
    magnitude = float(np.sqrt(np.square(features, dtype=np.float64).mean()))
    return max(float(np.median(live)) if len(live) else 0.0, _DEAD_SHARE * magnitude)


def solve_head(
    problem: HeadProblem, strength: float, start: LinearHead | None = None, *, tolerance: float = _TOLERANCE
) -> LinearHead:
    """Return the head with the lowest penalised loss.

    The minimised function is the weighted mean loss plus ``1 / (2 n C)`` times the squared kernel, with n the sum of
    the weights and C the strength: that of scikit-learn's logistic regression, divided by n. The bias isn't penalised.

    Args:
        problem: The problem.
        strength: C; smaller is more penalty.
        start: Head to start from, such as that of a neighbouring penalty; zeros by default.
        tolerance: Largest gradient at which the optimum counts as reached.
    """
    from scipy.optimize import minimize

    penalty = 1 / (strength * max(float(problem.weights.sum()), 1e-9))
    width, outputs = problem.features.shape[1], problem.targets.shape[1]
    columns = outputs if problem.loss.ranks is None else len(problem.loss.ranks)
    first = np.zeros(width * columns + outputs) if start is None else _pack(start, problem.loss)

    def evaluate(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        return _evaluate(problem, values.reshape(-1), columns, penalty)

    found = minimize(
        evaluate, first, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS, "gtol": tolerance, "maxcor": 10}
    )
    return _unpack(found.x, width, columns, problem.loss)


def _evaluate(
    problem: HeadProblem, values: NDArray[np.float64], columns: int, penalty: float
) -> tuple[float, NDArray[np.float64]]:
    """Return the penalised loss and its gradient at a head's packed values."""
    width, ranks = problem.features.shape[1], problem.loss.ranks
    weights, bias = values[: width * columns].reshape(width, columns), values[width * columns :]
    # float32 products, float64 sums: twice as fast, and as good as the tolerance asks for.
    scores = problem.features @ weights.astype(np.float32)
    logits = (scores if ranks is None else scores @ ranks.astype(np.float32)) + (bias + problem.offset)
    losses, slopes = problem.loss.of_logits(logits, problem.targets)
    total = max(float(problem.weights.sum()), 1e-9)
    slopes = slopes * (problem.weights[:, None] / total)
    by_score = slopes if ranks is None else slopes @ ranks.T
    by_weight = (problem.features.T @ by_score.astype(np.float32)).astype(np.float64) + penalty * weights
    value = float(losses @ problem.weights / total) + penalty / 2 * float(np.square(weights).sum())
    return value, np.concatenate([by_weight.ravel(), slopes.sum(axis=0)])


def _pack(head: LinearHead, loss: ConvexLoss) -> NDArray[np.float64]:
    kernel = head.kernel
    if loss.ranks is not None:
        kernel = kernel @ loss.ranks.T / np.square(loss.ranks).sum()
    return np.concatenate([kernel.ravel(), head.bias])


def _unpack(values: NDArray[np.float64], width: int, columns: int, loss: ConvexLoss) -> LinearHead:
    weights = values[: width * columns].reshape(width, columns)
    return LinearHead(weights if loss.ranks is None else weights @ loss.ranks, values[width * columns :].copy())


@dataclass(frozen=True)
class ChosenStrength:
    """The strength that cross-validation has chosen.

    Attributes:
        strength: C.
        loss: Cross-validated loss; NaN where there was one fold alone, and the strength is the default.
        logits: (n, k) out-of-fold logits of all rows, from heads that have not seen their image.
    """

    strength: float
    loss: float
    logits: NDArray[np.float64]


def choose_strength(
    problem: HeadProblem,
    folds: NDArray[np.int64],
    tested: NDArray[np.bool_],
    strengths: Sequence[float] = STRENGTHS,
    *,
    check: Callable[[], None] | None = None,
) -> ChosenStrength:
    """Return the strength with the lowest cross-validated loss.

    The search starts in the middle of the strengths and walks towards weaker penalties, or else towards stronger ones,
    as long as the loss falls: it has one minimum along the path.

    Args:
        problem: The problem of all rows.
        folds: (n,) fold of each row; augmented copies are in the fold of their image.
        tested: (n,) whether a row counts in the loss: copies are learned from, but not tested on.
        strengths: C, from the strongest penalty to the weakest.
        check: Called after every solved head; may raise.
    """
    if not folds.any():
        return ChosenStrength(DEFAULT_STRENGTH, math.nan, np.zeros(problem.targets.shape))
    parts = [(problem.select(folds != fold), folds == fold) for fold in range(int(folds.max()) + 1)]
    middle = min(range(len(strengths)), key=lambda at: abs(math.log(strengths[at] / DEFAULT_STRENGTH)))
    first = best = _validate(problem, parts, tested, strengths[middle], None, check)
    for step in (1, -1):
        at, last = middle + step, first
        while 0 <= at < len(strengths):
            last = _validate(problem, parts, tested, strengths[at], last.heads, check)
            if last.chosen.loss >= best.chosen.loss:
                break
            best, at = last, at + step
        if best is not first:
            break
    return best.chosen


@dataclass(frozen=True)
class _Validated:
    """A strength with its cross-validated loss, and the heads of the folds, from which a neighbour starts."""

    chosen: ChosenStrength
    heads: Sequence[LinearHead]


def _validate(
    problem: HeadProblem,
    parts: Sequence[tuple[HeadProblem, NDArray[np.bool_]]],
    tested: NDArray[np.bool_],
    strength: float,
    starts: Sequence[LinearHead] | None,
    check: Callable[[], None] | None,
) -> _Validated:
    """Return the cross-validated loss of one strength, and the head of each fold."""
    logits, heads = np.zeros(problem.targets.shape), []
    for place, (rest, held) in enumerate(parts):
        start = None if starts is None else starts[place]
        head = solve_head(rest, strength, start, tolerance=_CHOOSING_TOLERANCE)
        logits[held] = head.compute_logits(problem.features[held])
        heads.append(head)
        if check is not None:
            check()
    losses, _ = problem.loss.of_logits(logits + problem.offset, problem.targets)
    weights = problem.weights[tested]
    loss = float(losses[tested] @ weights / max(float(weights.sum()), 1e-9))
    return _Validated(ChosenStrength(strength, loss, logits), heads)
