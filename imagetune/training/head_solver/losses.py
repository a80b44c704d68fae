"""Losses of a linear head that are convex in its weights, with their gradients, as functions of logits in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax

from imagetune.recipe.sections.learning import LossConfig
from imagetune.recipe.solving import resolve_loss_name
from imagetune.recipe.tasks import Task
from imagetune.training.objectives.metrics import HUBER_DELTA

Floats = NDArray[np.floating]
# Logits (n, k) and targets (n, k) to the loss (n,) of each row and its gradient (n, k) by the logits.
LossFunction = Callable[[Floats, Floats], tuple[Floats, Floats]]


@dataclass(frozen=True)
class ConvexLoss:
    """A convex loss of a linear head.

    Attributes:
        of_logits: Losses and gradients.
        ranks: (1, k) centred ranks of ordered classes, along which all logits move together; None where each output
            has weights of its own.
    """

    of_logits: LossFunction
    ranks: Floats | None = None


def build_convex_loss(config: LossConfig, task: Task, outputs: int) -> ConvexLoss:
    """Return the convex loss for a task and a loss in which `find_solver_obstacle` finds no obstacle.

    Args:
        config: Name of the loss.
        task: What a label is.
        outputs: Number of outputs k.

    Returns:
        For one class of several, cross-entropy of the softmax. For several labels, the mean over the labels of binary
        cross-entropy. For ordered classes with ``loss: auto``, cross-entropy in which the log odds of neighbouring
        classes are one linear function and an offset for each pair (adjacent-category logit model, Agresti 2010), as
        squared earth mover's distance is not convex. For numbers, Huber's or the squared error.
    """
    name = resolve_loss_name(config, task)
    if task == "multi_label":
        return ConvexLoss(compute_binary_cross_entropy)
    if name == "squared_emd":
        ranks = np.arange(outputs, dtype=np.float64) - (outputs - 1) / 2
        return ConvexLoss(compute_cross_entropy, ranks[None, :] / max(float(ranks.std()), 1.0))
    if name in ("huber", "mse"):
        return ConvexLoss(compute_huber if name == "huber" else compute_squared_error)
    return ConvexLoss(compute_cross_entropy)


def smooth_targets(targets: Floats, smoothing: float, task: Task) -> Floats:
    """Return targets (n, k) with a share of their weight spread over the classes, as the trained losses spread it."""
    if not smoothing or task == "regression":
        return targets
    # Each label of a multi-label image is a binary decision, so its weight is spread over two outcomes.
    return targets * (1 - smoothing) + smoothing / (2 if task == "multi_label" else targets.shape[1])


def compute_cross_entropy(logits: Floats, targets: Floats) -> tuple[Floats, Floats]:
    """Return the cross-entropy (n,) of softmax probabilities with soft targets, and its gradient (n, k)."""
    log_probabilities = log_softmax(logits, axis=1)
    return -(targets * log_probabilities).sum(axis=1), np.exp(log_probabilities) - targets


def compute_binary_cross_entropy(logits: Floats, targets: Floats) -> tuple[Floats, Floats]:
    """Return the mean binary cross-entropy (n,) over k labels, and its gradient (n, k)."""
    # log(1 + exp(z)) - y z, which doesn't overflow.
    losses = np.logaddexp(0, logits) - targets * logits
    return losses.mean(axis=1), (expit(logits) - targets) / logits.shape[1]


def compute_squared_error(values: Floats, targets: Floats) -> tuple[Floats, Floats]:
    """Return the squared error (n,) of normalised numbers (n, 1), and its gradient (n, 1)."""
    error = values - targets
    return np.square(error).mean(axis=1), 2 * error / values.shape[1]


def compute_huber(values: Floats, targets: Floats) -> tuple[Floats, Floats]:
    """Return Huber's error (n,) of normalised numbers (n, 1), quadratic up to 1 and linear beyond, and its gradient."""
    error = values - targets
    near = np.clip(error, -HUBER_DELTA, HUBER_DELTA)
    return (np.abs(near) * (np.abs(error) - np.abs(near) / 2)).mean(axis=1), near / values.shape[1]
