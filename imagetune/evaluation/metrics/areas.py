"""ROC AUC and average precision of a class against all others, with intervals for independent images.

ROC AUC: the probability that an image of the class gets a higher probability than another one; its interval is that of
DeLong et al. (Biometrics 44, 1988), symmetric in the logit (Pepe, The Statistical Evaluation of Medical Tests, 2003,
5.2.5). Average precision: the mean precision at each image of the class; its interval is the logit one of Boyd, Eng
and Page (ECML PKDD 2013).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from imagetune.evaluation.statistics.intervals import Estimate
from imagetune.evaluation.statistics.proportions import (
    compute_auc_images,
    compute_auc_interval,
    compute_exact_bound,
    compute_two_sided_quantile,
)

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def estimate_roc_auc(true: Bools, scores: Floats, confidence: float) -> Estimate:
    """Return the area under the ROC curve with DeLong's interval, symmetric in the logit.

    Args:
        true: (n,) which images are of the class.
        scores: (n,) scores of the class; the higher, the more probable.
        confidence: Coverage of the interval.
    """
    own, other = scores[true], scores[~true]
    if not len(own) or not len(other):
        return Estimate(None, reason=f"no {'other ' if len(own) else ''}images of this class")
    # Placements: which share of the other side each image is ranked above (Sun and Xu, IEEE SPL 21, 2014).
    ranks = rankdata(np.concatenate([own, other]))
    above = (ranks[: len(own)] - rankdata(own)) / len(other)
    below = 1 - (ranks[len(own) :] - rankdata(other)) / len(own)
    # A single image shows no variance; that of numbers in 0..1 is at most 1/4.
    variance = sum(float(part.var(ddof=1)) / len(part) if len(part) > 1 else 0.25 for part in (above, below))
    value = float(above.mean())
    # Scores that are all the same have none either: Newcombe's interval needs no variance.
    if not variance and 1e-12 < value < 1 - 1e-12:
        ends = compute_auc_interval(value, len(own), len(other), compute_two_sided_quantile(confidence))
        return Estimate(value, *ends, method="newcombe")
    return _logit_estimate(
        value, variance**0.5, confidence, images=compute_auc_images(float(len(own)), float(len(other)))
    )


def estimate_average_precision(true: Bools, scores: Floats, confidence: float) -> Estimate:
    """Return the average precision with its logit interval; arguments as of `estimate_roc_auc`."""
    own = int(true.sum())
    if not own:
        return Estimate(None, reason="no images of this class")
    value = float(average_precision_score(true, scores))
    return _logit_estimate(value, (value * (1 - value) / own) ** 0.5, confidence, images=own)


def _logit_estimate(value: float, error: float, confidence: float, *, images: float) -> Estimate:
    """Return a metric in [0, 1] with an interval symmetric in its logit; at 0 and 1 the exact interval of a share."""
    if not 1e-12 < value < 1 - 1e-12:
        bound = compute_exact_bound(images, confidence)
        how = "interval of a share of as many images, as none is out of order"
        return Estimate(value, bound if value > 0.5 else 0.0, 1.0 if value > 0.5 else 1 - bound, how, "clopper-pearson")
    middle, half = np.log(value / (1 - value)), compute_two_sided_quantile(confidence) * error / (value * (1 - value))
    low, high = 1 / (1 + np.exp(-np.array([middle - half, middle + half])))
    return Estimate(value, float(low), float(high), method="logit")
