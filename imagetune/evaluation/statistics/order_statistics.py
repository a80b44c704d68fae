"""Thresholds that are order statistics of scores; apart from what computes scores, so that a server needs no Keras."""

from __future__ import annotations

import numpy as np
from scipy.stats import beta

CERTAINTY = 0.9
"""Probability that at most the wanted share of new images exceeds such a threshold."""


def count_scores_above(images: int, share: float) -> int:
    """Return how many of so many scores exceed the threshold that is chosen from them."""
    above = np.arange(images)
    allowed = beta(above + 1, images - above).ppf(CERTAINTY) <= share
    return max(int(allowed.sum()), 1) - 1
