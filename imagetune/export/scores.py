"""Comparison of an export's out-of-distribution scores with those of its model, and whether they can be used."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from imagetune.evaluation.statistics.paired_tests import compute_mcnemar_p_value
from imagetune.model.out_of_distribution import OutOfDistribution

Floats = NDArray[np.float64]
MIN_FLAG_AGREEMENT = 0.95
MIN_CORRELATION = 0.95
"""Ordinary images are hardly ever flagged, so that a score that never moves would agree on them: the order counts."""


def compare_scores(rule: OutOfDistribution, reference: Floats, scores: Floats) -> dict[str, Any]:
    """Return how an export's scores differ from its model's, as JSON values.

    Args:
        rule: Kind of score, and the threshold that both are held to.
        reference: (n,) the Keras model's scores.
        scores: (n,) the export's, of the same images.

    Returns:
        ``score``, ``images``, ``flag_agreement`` (share of images that both flag or neither does), ``flagged`` (share
        of images, by ``keras`` and ``exported``), ``rank_correlation`` (Spearman's), and ``problem``: why the scores
        can't be used; empty where they can.
    """
    before, after = reference > rule.threshold, scores > rule.threshold
    agreement, correlation = float((before == after).mean()), _correlate_ranks(reference, scores)
    p_value = compute_mcnemar_p_value(int((before & ~after).sum()), int((~before & after).sum()))
    problem = ""
    if agreement < MIN_FLAG_AGREEMENT or p_value < 1 - MIN_FLAG_AGREEMENT:
        problem = f"of the compared images {after.mean():.0%} were flagged, and {before.mean():.0%} by the Keras model"
    elif not correlation >= MIN_CORRELATION:
        problem = f"its scores order the compared images otherwise (rank correlation {correlation:.2f})"
    return {
        "score": rule.score,
        "images": len(scores),
        "flag_agreement": agreement,
        "flagged": {"keras": float(before.mean()), "exported": float(after.mean())},
        "rank_correlation": correlation,
        "problem": problem,
    }


def _correlate_ranks(one: Floats, other: Floats) -> float:
    """Return Spearman's correlation; 1 for equal rows, 0 where one of them is constant."""
    if np.array_equal(one, other):
        return 1.0
    ranks = rankdata(one), rankdata(other)
    if not all(np.ptp(rank) for rank in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])
