"""Analysis ``conformal``: prediction sets that hold the true class with a stated probability, whatever the model.

Split conformal prediction (Vovk et al., Algorithmic Learning in a Random World, 2005; Angelopoulos and Bates 2023,
arXiv 2107.07511): a nonconformity score says how badly a label fits an image; the set holds every label whose score is
no higher than that of all but 10% (say) of validation's true labels. With n validation images the quantile is taken at
``ceil((n + 1) * coverage) / n``, which makes the coverage hold on average over validation sets of this size, for images
from the same distribution.

- One class: the score is one minus the class's probability, which gives the smallest sets on average (least ambiguous
  sets: Sadinle, Lei and Wasserman, JASA 114, 2019). Adaptive sets (APS; Romano et al. 2020) follow the difficulty of an
  image better, but hold more classes, and reach the exact coverage only if randomised. An empty set gets the model's
  own prediction, which can only raise the coverage. Sets of ordered classes hold all classes between the outermost.
- Several labels: the threshold is the highest at which the share of an image's labels that are missed is small enough
  on average (conformal risk control: Angelopoulos et al. 2022, arXiv 2208.02814).
- A number: the score is the absolute error, so that the set is an interval of one width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import betaincinv

from imagetune.evaluation.context import EvaluatedSplit, EvaluationContext
from imagetune.evaluation.metrics.regression import MAX_RANGES, MIN_IMAGES, bin_numbers
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.probabilities.confidence import (
    Bools,
    Draws,
    Floats,
    build_draws,
    build_truth_matrix,
    choose_tested_split,
    find_known_rows,
    get_known_split,
)
from imagetune.evaluation.probabilities.decision_rules import build_prediction_intervals, build_prediction_sets
from imagetune.evaluation.statistics.intervals import Estimate, estimate_share
from imagetune.model.decision_rules import ConformalMethod, ConformalRule
from imagetune.model.manifest import update_manifest
from imagetune.recipe.tasks import Task

METHODS: dict[Task, ConformalMethod] = {
    "single_label": "least_ambiguous",
    "ordinal": "least_ambiguous",
    "multi_label": "risk_control",
    "regression": "absolute_residual",
}


def analyse_conformal(run: EvaluationContext) -> dict[str, Any] | None:
    """Choose the threshold on validation, keep it in the model's manifest, and return `describe_conformal`."""
    document = describe_conformal(run)
    if document is not None:
        kept = {name: document[name] for name in ("method", "coverage", "threshold")}
        update_manifest(run.folder, {"conformal": kept})
    return document


def describe_conformal(run: EvaluationContext) -> dict[str, Any] | None:
    """Return the conformal rule, and the coverage and size of its prediction sets on the tested split.

    The document::

        {"method": "least_ambiguous" | "risk_control" | "absolute_residual", "coverage": 0.9,
         "threshold": 0.23 | null, ["reason": "..."],
         "validation": 120,                                  images that the threshold is from
         "expected_coverage": {"low": 0.85, "high": 0.95} | null,        coverage of 95% of validation sets of this size
         "split": "test", "images": 150,
         "covered": {"value", "low", "high"},                multi_label: share of an image's labels in its set
         "alone": {"value", "low", "high"} | null,           accuracy of the predicted class alone
         "mean_size": {"value", "low", "high"},              classes or labels in a set; regression: interval width
         "sizes": [{"size": 1, "images": 120, "covered": {"value", "low", "high"}}],
         "classes": [{"class": "cat", "images": 20, "covered": {"value", "low", "high"}, "mean_size": 1.2}],
         ["ranges": [{"range": "up to 12.5", "images": 30, "covered": {...}}]]}      of numbers, by the prediction

    Returns:
        The document; None without validation images, or where no tested image has a known label.
    """
    name = choose_tested_split(run)
    tested, val = get_known_split(run, name), get_known_split(run, "val")
    if tested is None or val is None:
        return None
    task, coverage = run.data.task, run.evaluate.conformal_coverage
    rule = choose_conformal_rule(val.predictions, coverage)
    count = int(find_known_rows(val.predictions).sum())
    document: dict[str, Any] = {**rule.model_dump(mode="json"), "validation": count}
    if rule.threshold is None:
        # The smallest n with ceil((n + 1) * coverage) <= n; until then the quantile would lie beyond all scores.
        needed = int(np.ceil(coverage / (1 - coverage) - 1e-9))
        document["reason"] = (
            f"{count} validation images are too few to guarantee {100 * coverage:g}% coverage: it takes {needed}; "
            "until then every set holds all classes"
        )
    # The beta distribution is that of a rank among scores; risk control averages shares, for which it doesn't hold.
    expected = _default_coverage(count, coverage) if task != "multi_label" and rule.threshold is not None else None
    images = int(find_known_rows(tested.predictions).sum())
    document |= {"expected_coverage": expected, "split": name, "images": images}
    if task == "regression":
        return document | _measure_intervals(tested, rule, build_draws(tested, run.evaluate, seed=run.seed))
    return document | _measure_sets(tested, rule, build_draws(tested, run.evaluate, seed=run.seed))


def choose_conformal_rule(val: Predictions, coverage: float) -> ConformalRule:
    """Return the conformal rule: its method, and the threshold that reaches the coverage on validation.

    Args:
        val: Predictions for validation; at least one image has a known label.
        coverage: Probability with which the set shall hold the true class.
    """
    known, task = find_known_rows(val), val.rule.task
    probabilities = val.probabilities[known]
    threshold: float | None
    if task == "multi_label":
        threshold = choose_risk_threshold(probabilities, build_truth_matrix(val), coverage)
    elif task == "regression":
        threshold = compute_conformal_quantile(np.abs(val.targets[:, 0] - probabilities[:, 0]), coverage)
    else:
        score = compute_conformal_quantile(1 - (probabilities * build_truth_matrix(val)).sum(axis=1), coverage)
        threshold = None if score is None else 1 - score
    return ConformalRule(method=METHODS[task], coverage=coverage, threshold=threshold)


def compute_conformal_quantile(scores: Floats, coverage: float) -> float | None:
    """Return the ``ceil((n + 1) * coverage)``-th smallest of (n,) scores; None where n are too few for it."""
    # Subtracted against rounding: a product such as 0.9 * 10 may lie just above a whole number.
    place = int(np.ceil((len(scores) + 1) * coverage - 1e-9))
    return None if place > len(scores) else float(np.sort(scores)[place - 1])


def choose_risk_threshold(probabilities: Floats, truth: Floats, coverage: float) -> float | None:
    """Return the highest threshold at which at most ``1 - coverage`` of an image's labels are missed, on average.

    The mean share is corrected for the number of images: ``(n * risk + 1) / (n + 1)``.

    Args:
        probabilities: (n, k) of the labels.
        truth: (n, k) zeros and ones; an image without labels misses none.
        coverage: Share of an image's labels that its set shall hold.

    Returns:
        The threshold; None where n images are too few for any.
    """
    count = len(truth)
    allowed = ((1 - coverage) * (count + 1) - 1) + 1e-9
    if allowed < 0:
        return None
    rows, columns = np.nonzero(truth)
    # Without any label none can be missed, whatever the threshold.
    if not len(rows):
        return 1.0
    order = np.argsort(probabilities[rows, columns], kind="stable")
    own = probabilities[rows, columns][order]
    # A threshold just above a label's probability misses this and all labels below it.
    missed = np.cumsum((1 / truth.sum(axis=1)[rows])[order])
    group_end = np.searchsorted(own, own, side="right") - 1
    too_many = missed[group_end] > allowed
    return float(own[int(too_many.argmax())]) if too_many.any() else 1.0


def _default_coverage(images: int, coverage: float) -> dict[str, float]:
    """Return the coverage that 95% of validation sets of this size give, as an interval (Vovk 2012, arXiv 1209.2673).

    Over validation sets the coverage has a beta distribution.
    """
    place = int(np.ceil((images + 1) * coverage - 1e-9))
    low, high = betaincinv(place, images + 1 - place, [0.025, 0.975])
    return {"low": float(low), "high": float(high)}


def _measure_sets(split: EvaluatedSplit, rule: ConformalRule, draws: Draws) -> dict[str, Any]:
    predictions = split.predictions
    known, truth = find_known_rows(predictions), build_truth_matrix(predictions)
    members = build_prediction_sets(predictions, rule)[known]
    sizes = members.sum(axis=1)
    several = predictions.rule.task == "multi_label"
    named = (members * truth).sum(axis=1)
    if several:
        labels = truth.sum(axis=1)
        # An image without labels misses none, as where the threshold was chosen.
        found = np.where(labels > 0, named / np.maximum(labels, 1), 1.0)
        covered, alone = draws.mean(found), None
    else:
        hit = named > 0
        covered = draws.share(hit)
        alone = draws.share(predictions.predicted[known] == predictions.labels[known]).to_dict()
    return {
        "covered": covered.to_dict(),
        "alone": alone,
        "mean_size": draws.mean(sizes.astype(np.float64)).to_dict(),
        "sizes": [
            {
                "size": int(size),
                "images": int((sizes == size).sum()),
                "covered": None if several else draws.share(hit, sizes == size).to_dict(),
            }
            for size in np.unique(sizes)
        ],
        "classes": [
            _describe_class(
                predictions.class_names[index], members, truth[:, index] > 0, index, draws.bootstrap.confidence
            )
            for index in range(truth.shape[1])
        ],
    }


def _describe_class(name: str, members: Bools, own: Bools, index: int, confidence: float) -> dict[str, Any]:
    """Return the coverage of one class: the share of its images whose prediction set holds it."""
    images = int(own.sum())
    named = int(members[own, index].sum())
    covered = estimate_share(named, images, confidence) if images else Estimate(None, reason="no images of this class")
    size = float(members[own].sum(axis=1).mean()) if images else None
    return {"class": name, "images": images, "covered": covered.to_dict(), "mean_size": size}


def _measure_intervals(split: EvaluatedSplit, rule: ConformalRule, draws: Draws) -> dict[str, Any]:
    predictions = split.predictions
    true, given = predictions.targets[:, 0], predictions.probabilities[:, 0]
    low, high = build_prediction_intervals(given, rule)
    width = None if rule.threshold is None else 2 * rule.threshold
    held = (true >= low) & (true <= high)
    # By the prediction, not the truth: only the former is known in use, and one width for all may fail in some range.
    codes, names = bin_numbers(given, most=MAX_RANGES, least=MIN_IMAGES)
    return {
        "covered": draws.share(held).to_dict(),
        "alone": None,
        "mean_size": Estimate(width).to_dict(),
        "sizes": [],
        "classes": [],
        "ranges": [
            {
                "range": name,
                "images": int((codes == code).sum()),
                "covered": draws.share(held, codes == code).to_dict(),
            }
            for code, name in enumerate(names if len(names) > 1 else ())
        ],
    }
