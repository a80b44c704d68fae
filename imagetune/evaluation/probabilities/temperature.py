"""Temperature scaling (Guo et al. 2017, arXiv 1706.04599): calibration of probabilities by a single number.

Logits are divided by the temperature: above 1 makes predictions less confident, below 1 more confident. No prediction
changes, as the order of the classes stays. The temperature is fitted on validation by log loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax

from imagetune.evaluation.metrics.scores import TINY
from imagetune.evaluation.statistics.proportions import compute_two_sided_quantile
from imagetune.recipe.tasks import Task

Floats = NDArray[np.float64]

# With fewer images sampling noise dominates the fitted temperature.
MIN_IMAGES = 50
# A fit that ends at either end of the range means that validation can't determine the temperature.
RANGE = (0.05, 20.0)
_FLAT = 1e-6
# Float32 has no probability between this and 1.
_NEARLY_ONE = 1 - 2**-24


@dataclass(frozen=True)
class Temperature:
    """The temperature that calibrates probabilities, fitted on validation, or why there is none.

    Attributes:
        value: None where it could not be fitted; ``reason`` says why.
        low: Lower end of its interval.
        high: Upper end.
        reason: Why there is none.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


def recover_logits(probabilities: Floats, task: Task) -> Floats:
    """Return logits (n, k) that reproduce the probabilities; for a softmax they are known up to a constant in each row.

    Args:
        probabilities: (n, k) in [0, 1].
        task: multi_label has a sigmoid for each label; single_label and ordinal have a softmax.
    """
    if task == "multi_label":
        return np.asarray(logit(np.clip(probabilities, TINY, _NEARLY_ONE)), np.float64)
    return np.log(np.clip(probabilities, TINY, 1.0))


def apply_temperature(probabilities: Floats, temperature: float, task: Task) -> Floats:
    """Return the probabilities (n, k) after temperature scaling."""
    logits = recover_logits(probabilities, task) / temperature
    return np.asarray(expit(logits) if task == "multi_label" else softmax(logits, axis=1), np.float64)


def fit_temperature(probabilities: Floats, truth: Floats, task: Task, *, confidence: float) -> Temperature:
    """Return the temperature with the lowest log loss, with its interval.

    The interval is symmetric on the log scale, with the sandwich standard error (Huber 1967; White, Econometrica 50,
    1982): it requires neither that the model is right nor that the labels of an image are independent.

    Args:
        probabilities: (n, k) probabilities of validation images.
        truth: (n, k) zeros and ones.
        task: Any task but regression.
        confidence: Coverage of the interval.
    """
    if len(truth) < MIN_IMAGES:
        what = f"{len(truth)} validation images are too few to fit a temperature: it takes {MIN_IMAGES}"
        return Temperature(None, reason=what)
    logits = recover_logits(probabilities, task)
    # Searched on the logarithm, on which a temperature and its inverse change the logits by equally much.
    ends = np.log(RANGE)
    found = minimize_scalar(
        lambda log_temperature: _loss(logits / np.exp(log_temperature), truth, task),
        bounds=(ends[0], ends[1]),
        method="bounded",
        options={"xatol": 1e-7},
    )
    best = float(found.x)
    # Where no prediction is wrong, the loss falls towards temperature 0 until rounding makes it flat.
    if best < ends[0] + 1e-3 or found.fun < _FLAT:
        what = "validation has almost no mistakes, so it can't show how confident the model should be"
        return Temperature(None, reason=what)
    if best > ends[1] - 1e-3:
        return Temperature(None, reason="on validation the probabilities say nothing about the truth")
    half = compute_two_sided_quantile(confidence) * _log_error(logits, truth, float(np.exp(-best)), task)
    return Temperature(float(np.exp(best)), float(np.exp(best - half)), float(np.exp(best + half)))


def _loss(logits: Floats, truth: Floats, task: Task) -> float:
    """Return the mean log loss of an image, summed over its labels for multi_label."""
    if task == "multi_label":
        return float(np.logaddexp(0, np.where(truth > 0, -logits, logits)).sum(axis=1).mean())
    return float(-(log_softmax(logits, axis=1) * truth).sum(axis=1).mean())


def _log_error(logits: Floats, truth: Floats, inverse: float, task: Task) -> float:
    """Return the standard error of the logarithm of the temperature, at its best value 1 / ``inverse``."""
    if task == "multi_label":
        given = expit(inverse * logits)
        slopes = ((given - truth) * logits).sum(axis=1)
        curvature = (given * (1 - given) * logits**2).sum()
    else:
        given = softmax(inverse * logits, axis=1)
        mean = (given * logits).sum(axis=1)
        slopes = mean - (truth * logits).sum(axis=1)
        curvature = ((given * logits**2).sum(axis=1) - mean**2).sum()
    return float(np.sqrt((slopes**2).sum()) / (curvature * inverse))
