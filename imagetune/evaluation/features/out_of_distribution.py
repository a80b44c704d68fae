"""Out-of-distribution (OOD) detection: a score of how unlike the training images an image is, and its threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, betabinom, binom

from imagetune.core import run_files
from imagetune.core.text import format_count
from imagetune.evaluation.context import EvaluationContext
from imagetune.evaluation.errors.mistakes import find_mistakes
from imagetune.evaluation.features.feature_models import LabelledFeatures, limit_threads
from imagetune.evaluation.features.out_of_fold import FOLDS, deal_folds, find_units, pool_splits
from imagetune.evaluation.predictions import Predictions, make_relative_path
from imagetune.evaluation.statistics.intervals import Estimate, estimate_share
from imagetune.evaluation.statistics.tolerance import count_scores_above
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import POOLING
from imagetune.model.manifest import update_manifest
from imagetune.model.out_of_distribution import (
    FeatureStatistics,
    OutOfDistribution,
    Score,
    compute_energies,
    feature_statistics,
    write_statistics,
)
from imagetune.model.split_model import split_model_at

# Test images with the highest scores that are listed, highest first.
STRANGEST = 12
_SPLITS = {"train": "training", "val": "validation"}
_BATCH = 1024
_BINS = 40

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Scored:
    """The scores of all splits, and those that the threshold is chosen on.

    Attributes:
        splits: Scores by split; cross-fitted where the statistics have learned from the split.
        known: Scores (n,) of images as they look to a detector that hasn't learned from them.
        names: The splits that these are of.
        statistics: For mahalanobis: those of all training and validation images.
    """

    splits: Mapping[str, Floats]
    known: Floats
    names: tuple[str, ...]
    statistics: FeatureStatistics | None = None


def analyse_out_of_distribution(run: EvaluationContext) -> dict[str, Any] | None:
    """Choose the OOD threshold on images that the detector hasn't seen, keep it in the manifest, and return its effect.

    The distance is measured by statistics of training and validation images; each of these gets its score from
    statistics of the other folds (cross-fitting), so that all of them together choose the threshold. A backbone that
    was fine-tuned has learned the training images, and so has a head, whose logits give the energy: validation images
    alone choose then. The threshold is an order statistic that at most the share of new images from the same source
    exceeds with a certainty of 90%; what share it will flag is a beta distribution. Where there are so few images that
    even the highest score may be too low for the share, no image is flagged: a threshold that hangs on one image means
    nothing.

    The document::

        {"score": "energy", "threshold": -3.1, "share": 0.05, "recipe_score": "energy",
         "chosen_on": {"splits": ["train", "val"], "images": 335},
         "false_alarms": {"value": 0.04, "low": 0.02, "high": 0.06},      share of new images of the source flagged
         "threshold_interval": [-3.3, -2.9],
         "splits": {"val" | "test" | "train": {"images": 80, "flagged": {"value", "low", "high"}}},
         "expected": [0.0, 0.09],                    range of the share that is flagged of so many test images by chance
         "wrong": {"kept": {"value", "low", "high"}, "flagged": {...}},   share of wrong predictions on the test
         "histogram": {"edges": [...], "counts": {"train": [...], "val": [...], "test": [...]}},
         "highest_scores": [{"path", "score", "flagged"}]}                     test images with the highest scores

    or, with too few images, {"score", "share", "threshold": null, "images": 28, "needed": 72, "reason": "..."}.

    Regression has no class logits to compute an energy from, so it always uses the Mahalanobis distance.

    Returns:
        The document; None where the recipe asks for none, or where features are missing.
    """
    wanted = run.evaluate.out_of_distribution
    if wanted == "off":
        return None
    score: Score = "mahalanobis" if run.data.task == "regression" else wanted
    scored = _score_by_distance(run) if score == "mahalanobis" else _score_by_energy(run)
    # Diverged features have no distances, and a threshold among NaN would flag nothing.
    if scored is None or not all(np.isfinite(values).all() for values in scored.splits.values()):
        return None
    share, confidence = run.evaluate.out_of_distribution_share, run.evaluate.confidence
    needed = count_images_needed(share, confidence)
    if len(scored.known) < needed:
        return _describe_lack(score, share, scored, needed) | {"recipe_score": wanted}
    statistics = scored.statistics
    rule = OutOfDistribution(
        score=score,
        threshold=choose_score_threshold(scored.known, share),
        share=share,
        statistics_sha256=write_statistics(statistics, run.folder / run_files.MODEL) if statistics else None,
    )
    update_manifest(run.folder, {"out_of_distribution": rule.model_dump(mode="json")})
    return {**_describe_rule(run, rule, scored), "recipe_score": wanted}


def count_images_needed(share: float, confidence: float) -> int:
    """Return how many images it takes until the highest score is hardly ever below the threshold that is sought.

    That of n independent scores all lie below the quantile of ``share`` has a chance of (1 - share)^n.
    """
    return ceil(log((1 - confidence) / 2) / log(1 - share))


def choose_score_threshold(scores: Floats, share: float) -> float:
    """Return the lowest score that hardly more than ``share`` of new images exceed: a one-sided tolerance limit.

    With a certainty of 90% at most that share exceeds it, whatever the distribution (Wilks, Annals of Mathematical
    Statistics 12, 1941). The order statistic that the share of the scores themselves exceeds is too low as often as too
    high.

    Args:
        scores: (n,) scores of images that the detector hasn't learned.
        share: Largest share that is to exceed it, in (0, 1). Of too few images for that the highest score is returned.
    """
    return float(np.sort(scores)[len(scores) - 1 - count_scores_above(len(scores), share)])


def estimate_expected_flags(above: int, known: int, images: int, confidence: float) -> list[float]:
    """Return the range of the share that is flagged of so many new images of the same source (beta-binomial).

    Args:
        above: How many of the scores that the threshold was chosen from exceed it.
        known: Number of these scores.
        images: Number of new images.
        confidence: Coverage of the range, in (0, 1).
    """
    ends = betabinom(images, above + 1, known - above).ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    return [float(end / images) for end in ends]


def estimate_false_alarms(above: int, images: int, confidence: float) -> Estimate:
    """Return the share of new images of the same source that exceed an order statistic, with its exact interval.

    Args:
        above: How many of the scores that it was chosen from exceed it.
        images: Number of these scores.
        confidence: Coverage of the interval, in (0, 1).
    """
    # The share above the order statistic of rank r from the top, of any continuous distribution.
    drawn = beta(above + 1, images - above)
    low, high = drawn.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(drawn.mean()), float(low), float(high), method="order statistic")


def estimate_threshold_interval(scores: Floats, share: float, confidence: float) -> list[float]:
    """Return the interval of the score that ``share`` of all images of the source exceed: two order statistics."""
    # The number of scores below a quantile is binomial (David and Nagaraja, Order Statistics, 2003, section 7.1).
    ends = binom(len(scores), 1 - share).ppf([(1 - confidence) / 2, (1 + confidence) / 2]).astype(int)
    ordered = np.sort(scores)
    return [float(ordered[max(ends[0] - 1, 0)]), float(ordered[min(ends[1], len(ordered) - 1)])]


def _score_by_distance(run: EvaluationContext) -> _Scored | None:
    """Return the Mahalanobis distances of all splits, those of training and validation cross-fitted."""
    pool = pool_splits(run, ("train", "val"))
    if pool is None or len(pool.taught) < 2 * FOLDS:
        return None
    taught, classes = pool.taught, _classes(pool.taught)
    folds = deal_folds(find_units(run, pool), taught, folds=FOLDS, seed=run.seed)
    if folds.max() < 1:
        return None
    distances = np.zeros(len(taught))
    with limit_threads(taught):
        for fold in range(int(folds.max()) + 1):
            rest, held = folds != fold, folds == fold
            own = None if classes is None else classes[rest]
            statistics = feature_statistics(taught.features[rest], own, seed=run.seed)
            distances[held] = statistics.distances(taught.features[held])
        statistics = feature_statistics(taught.features, classes, seed=run.seed)
    splits = {name: distances[pool.splits == place] for place, name in enumerate(pool.names)}
    if (test := run.splits.get("test")) is not None and test.features is not None:
        splits["test"] = statistics.distances(np.asarray(test.features, np.float32))
    chosen = ("val",) if run.fine_tuned else pool.names
    known = np.concatenate([splits[name] for name in chosen if name in splits] or [np.zeros(0)])
    return _Scored(splits, known, chosen, statistics)


def _score_by_energy(run: EvaluationContext) -> _Scored | None:
    val = run.splits.get("val")
    if val is None or val.features is None:
        return None
    splits = {
        name: compute_energies(_logits(run, np.asarray(split.features, np.float32)), run.data.task)
        for name, split in run.splits.items()
        if split.features is not None
    }
    return _Scored(splits, splits["val"], ("val",))


def _describe_lack(score: Score, share: float, scored: _Scored, needed: int) -> dict[str, Any]:
    images, where = len(scored.known), " and ".join(_SPLITS[name] for name in scored.names)
    reason = (
        f"no image is flagged: {format_count(images, f'{where} image')} are too few to say which score only "
        f"{share:.0%} of images exceed; it takes {needed}"
    )
    return {
        "score": score,
        "share": share,
        "threshold": None,
        "chosen_on": {"splits": list(scored.names), "images": images},
        "images": images,
        "needed": needed,
        "reason": reason,
    }


def _classes(taught: LabelledFeatures) -> NDArray[np.int64] | None:
    return taught.labels if taught.task in ("single_label", "ordinal") else None


def _logits(run: EvaluationContext, features: NDArray[np.float32]) -> NDArray[np.float32]:
    halves = split_model_at(run.model, get_backbone(run.backbone), POOLING)
    if halves is None:  # the pooling is always the only way
        raise ValueError(f"the model can't be cut behind {POOLING}")
    chunks = [
        np.asarray(keras.ops.convert_to_numpy(halves.logits(features[start : start + _BATCH], training=False)))
        for start in range(0, len(features), _BATCH)
    ]
    return np.concatenate(chunks)


def _describe_rule(run: EvaluationContext, rule: OutOfDistribution, scored: _Scored) -> dict[str, Any]:
    confidence, scores, known = run.evaluate.confidence, scored.splits, scored.known
    above = int((known > rule.threshold).sum())
    flagged = {name: values > rule.threshold for name, values in scores.items()}
    tested = "test" if "test" in scores else "val"
    return {
        "score": rule.score,
        "threshold": rule.threshold,
        "share": rule.share,
        "chosen_on": {"splits": list(scored.names), "images": len(known)},
        "false_alarms": estimate_false_alarms(above, len(known), confidence).to_dict(),
        "threshold_interval": estimate_threshold_interval(known, rule.share, confidence),
        "splits": {
            name: {
                "images": len(found),
                "flagged": estimate_share(float(found.sum()), len(found), confidence).to_dict(),
            }
            for name, found in flagged.items()
        },
        "expected": estimate_expected_flags(above, len(known), len(scores[tested]), confidence),
        "tested": tested,
        "wrong": _estimate_wrong(run.splits[tested].predictions, flagged[tested], confidence),
        "histogram": _compute_histogram(scores),
        "highest_scores": _list_highest_scores(run, tested, scores[tested], rule.threshold),
    }


def _estimate_wrong(predictions: Predictions, flagged: NDArray[np.bool_], confidence: float) -> dict[str, Any] | None:
    """Return the share of wrong predictions among the images that are kept, and among those flagged as OOD."""
    if predictions.rule.task == "regression":
        return None
    wrong = np.zeros(len(flagged), bool)
    wrong[find_mistakes(predictions)] = True
    known = predictions.labels >= 0 if predictions.rule.task != "multi_label" else np.ones(len(flagged), bool)
    found: dict[str, Any] = {}
    for name, chosen in (("kept", ~flagged & known), ("flagged", flagged & known)):
        count = int(chosen.sum())
        found[name] = estimate_share(float(wrong[chosen].sum()), count, confidence).to_dict() if count else None
    return found


def _compute_histogram(scores: Mapping[str, Floats]) -> dict[str, Any]:
    # Common edges, so that the histograms of the splits can be drawn over each other.
    edges = np.histogram_bin_edges(np.concatenate([*scores.values()]), bins=_BINS)
    counts = {name: np.histogram(values, bins=edges)[0].tolist() for name, values in scores.items()}
    return {"edges": [float(edge) for edge in edges], "counts": counts}


def _list_highest_scores(run: EvaluationContext, split: str, scores: Floats, threshold: float) -> list[dict[str, Any]]:
    records = run.splits[split].records
    names = run.splits[split].predictions
    texts = list(names.texts())
    return [
        {
            "path": make_relative_path(records[index].path, run.root),
            "label": names.rule.describe(records[index].label),
            "predicted": names.rule.describe(texts[index][1]),
            "score": float(scores[index]),
            "flagged": bool(scores[index] > threshold),
        }
        for index in np.argsort(-scores, kind="stable")[:STRANGEST].tolist()
    ]
