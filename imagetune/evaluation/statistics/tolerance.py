"""The one-sided tolerance limit that scores of images are held to; a server asks for it without Keras."""

from __future__ import annotations

import numpy as np
from scipy.stats import beta

# How sure it is that new images of the same source exceed the threshold no more often than was asked for.
CERTAINTY = 0.9


def count_scores_above(images: int, share: float) -> int:
    """Return how many of so many scores exceed the threshold that is chosen from them.

    Args:
        images: Number of images that the detector hasn't learned.
        share: Largest share of new images that is to exceed the threshold, in (0, 1).
    """
    above = np.arange(images)
    allowed = beta(above + 1, images - above).ppf(CERTAINTY) <= share
    return max(int(allowed.sum()), 1) - 1
