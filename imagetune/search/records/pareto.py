"""Which of several models nothing beats: metric against what an image costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pareto_front(metrics: Sequence[float], costs: Sequence[Sequence[float]], *, larger_is_better: bool) -> list[bool]:
    """Tell for each model whether no other is at least as good in everything and better in something.

    Args:
        metrics: n metrics.
        costs: (n, m) of each model; smaller is better.
        larger_is_better: Of the metrics.
    """
    signed = np.asarray(metrics, np.float64) * (-1.0 if larger_is_better else 1.0)
    every = np.column_stack([signed, np.asarray(costs, np.float64)])
    return [not bool(((every <= own).all(axis=1) & (every < own).any(axis=1)).any()) for own in every]
