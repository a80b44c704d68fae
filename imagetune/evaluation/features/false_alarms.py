"""How many labels would be suspected if every label were right: the false alarms to expect of a search for errors.

A probe that is right about four images of five disagrees with the label of every fifth, however right the labels are.
So labels are drawn from the probe's own probabilities, at the temperature at which they fit the given labels best, and
searched like the given ones: whatever is found then is a false alarm. Wrong labels must not make the probabilities less
sure, and so be expected themselves: the temperature is fitted together with a share of labels that are drawn at random
(a mixture, by maximum likelihood), and that share is left out of the draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from imagetune.evaluation.features.feature_models import LabelledFeatures
from imagetune.evaluation.probabilities.temperature import RANGE, apply_temperature

DRAWS = 20
# Of very large sets fewer draws say as much.
_MOST_CELLS = 20_000_000
_TINY = 1e-300

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Search = Callable[[Floats, LabelledFeatures], Bools]


def expect_false_alarms(predictions: Floats, taught: LabelledFeatures, search: Search, *, seed: int) -> Floats:
    """Return how often each image (n,) would be found by a search if all labels were right, in [0, 1].

    Args:
        predictions: (n, k) probabilities, out of fold.
        taught: The given labels, of any task but regression.
        search: Returns which images (n,), or which of their labels (n, k), are found by predictions and labels.
        seed: Seed of the draws.
    """
    several = taught.task == "multi_label"
    likely = apply_temperature(predictions, fit_robust_temperature(predictions, taught), taught.task)
    generator = np.random.default_rng(seed)
    draws = int(np.clip(_MOST_CELLS // max(predictions.size, 1), 2, DRAWS))
    counts = np.zeros(len(predictions))
    for _ in range(draws):
        drawn = _draw_labels(likely, generator, several=several)
        found = search(predictions, replace(taught, targets=drawn, labels=drawn.argmax(axis=1).astype(np.int64)))
        counts += found if found.ndim == 1 else found.any(axis=1)
    return counts / draws


def fit_robust_temperature(predictions: Floats, taught: LabelledFeatures) -> float:
    """Return the temperature with the highest likelihood of the given labels, some share of which is random."""
    truth, several = taught.targets >= 0.5, taught.task == "multi_label"

    def loss(values: Floats) -> float:
        share, given = expit(values[1]), apply_temperature(predictions, float(np.exp(values[0])), taught.task)
        if several:
            return float(-np.log((1 - share) * np.where(truth, given, 1 - given) + share / 2 + _TINY).sum())
        return float(-np.log((1 - share) * given[truth] + share / given.shape[1] + _TINY).sum())

    # From the probabilities as they are, and one label in twenty at random.
    found = minimize(loss, np.array([0.0, -3.0]), method="Nelder-Mead", options={"maxiter": 120})
    return float(np.exp(np.clip(found.x[0], *np.log(RANGE))))


def _draw_labels(likely: Floats, generator: np.random.Generator, *, several: bool) -> Floats:
    """Return labels (n, k) of zeros and ones, drawn from probabilities (n, k)."""
    if several:
        return (generator.random(likely.shape) < likely).astype(np.float64)
    reached = likely.cumsum(axis=1) / likely.sum(axis=1, keepdims=True)
    classes = (generator.random((len(likely), 1)) > reached).sum(axis=1).clip(0, likely.shape[1] - 1)
    drawn: Floats = np.eye(likely.shape[1])[classes]
    return drawn
