"""Pareto front of models: metric against costs such as latency and size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def find_pareto_front(
    metrics: Sequence[float], costs: Sequence[Sequence[float]], *, larger_is_better: bool
) -> list[bool]:
    """Return for each model whether it is on the Pareto front: none is as good in everything and better in something.

    Args:
        metrics: The metric of each of n models.
        costs: (n, m) costs of each model; smaller is better.
        larger_is_better: Whether a larger metric is better.
    """
    signed = np.asarray(metrics, np.float64) * (-1.0 if larger_is_better else 1.0)
    every = np.column_stack([signed, np.asarray(costs, np.float64)])
    return [not bool(((every <= own).all(axis=1) & (every < own).any(axis=1)).any()) for own in every]
