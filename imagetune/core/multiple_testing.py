"""Correction of p-values for multiple testing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def adjust_p_values(values: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's method ("A Simple Sequentially Rejective Multiple Test Procedure", 1979)."""
    order = np.argsort(values, kind="stable")
    steps = np.array(values, np.float64)[order] * np.arange(len(values), 0, -1)
    corrected = np.empty(len(values))
    # Holm's procedure stops at the first hypothesis that isn't rejected, so no later p-value may be smaller.
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in corrected]
