"""Out-of-distribution (OOD) detection: a score of how unlike training an image is, with a threshold from validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.core import run_files
from imagetune.evaluation.context import EvaluatedSplit, EvaluationContext
from imagetune.evaluation.errors.mistakes import find_mistakes
from imagetune.evaluation.features.feature_models import LabelledFeatures, collect_labelled_features, limit_threads
from imagetune.evaluation.predictions import Predictions, make_relative_path
from imagetune.evaluation.statistics.intervals import estimate_share
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

# With fewer validation images, one or two of them would decide the threshold.
MIN_IMAGES = 20
# Test images with the highest scores that are listed, highest first.
STRANGEST = 12
_BATCH = 1024
_BINS = 40

Floats = NDArray[np.float64]


def analyse_out_of_distribution(run: EvaluationContext) -> dict[str, Any] | None:
    """Choose the OOD threshold on validation, keep it in the model's manifest, and return what it flags in each split.

    The document::

        {"score": "energy", "threshold": -3.1, "share": 0.05, "recipe_score": "energy",
         "splits": {"val" | "test" | "train": {"images": 80, "flagged": {"value", "low", "high"}}},
         "wrong": {"kept": {"value", "low", "high"}, "flagged": {...}},   share of wrong predictions on the test
         "histogram": {"edges": [...], "counts": {"train": [...], "val": [...], "test": [...]}},
         "highest_scores": [{"path", "score", "flagged"}]}                     test images with the highest scores

    Regression has no class logits to compute an energy from, so it always uses the Mahalanobis distance.

    Returns:
        The document; None where the recipe asks for none, where features are missing, or where validation has fewer
        than `MIN_IMAGES` images.
    """
    wanted = run.evaluate.out_of_distribution
    val = run.splits.get("val")
    if wanted == "off" or val is None or val.features is None or len(val.records) < MIN_IMAGES:
        return None
    score: Score = "mahalanobis" if run.data.task == "regression" else wanted
    statistics = _compute_statistics(run) if score == "mahalanobis" else None
    if score == "mahalanobis" and statistics is None:
        return None
    scores = {
        name: _compute_scores(run, split, statistics)
        for name, split in run.splits.items()
        if split.features is not None
    }
    # Diverged features have no distances, and a threshold among NaN would flag nothing.
    if not all(np.isfinite(values).all() for values in scores.values()):
        return None
    share = run.evaluate.out_of_distribution_share
    rule = OutOfDistribution(
        score=score,
        threshold=choose_score_threshold(scores["val"], share),
        share=share,
        statistics_sha256=write_statistics(statistics, run.folder / run_files.MODEL) if statistics else None,
    )
    update_manifest(run.folder, {"out_of_distribution": rule.model_dump(mode="json")})
    return {**_describe_rule(run, rule, scores), "recipe_score": wanted}


def choose_score_threshold(scores: Floats, share: float) -> float:
    """Return the threshold that at most ``share`` of validation's scores (n,) exceed: an order statistic of them."""
    ordered = np.sort(scores)
    # Subtracted against rounding: a product that should be whole may lie just above it.
    kept = min(int(np.ceil((1 - share) * len(ordered) - 1e-9)), len(ordered))
    return float(ordered[kept - 1])


def _compute_statistics(run: EvaluationContext) -> FeatureStatistics | None:
    taught = collect_labelled_features(run.splits.get("train"))
    if taught is None or len(taught) < 2:
        return None
    with limit_threads(taught):
        return feature_statistics(taught.features, _classes(taught), seed=run.seed)


def _classes(taught: LabelledFeatures) -> NDArray[np.int64] | None:
    return taught.labels if taught.task in ("single_label", "ordinal") else None


def _compute_scores(run: EvaluationContext, split: EvaluatedSplit, statistics: FeatureStatistics | None) -> Floats:
    features = np.asarray(split.features, np.float32)
    if statistics is not None:
        return statistics.distances(features)
    return compute_energies(_logits(run, features), run.data.task)


def _logits(run: EvaluationContext, features: NDArray[np.float32]) -> NDArray[np.float32]:
    halves = split_model_at(run.model, get_backbone(run.backbone), POOLING)
    if halves is None:  # the pooling is always the only way
        raise ValueError(f"the model can't be cut behind {POOLING}")
    chunks = [
        np.asarray(keras.ops.convert_to_numpy(halves.logits(features[start : start + _BATCH], training=False)))
        for start in range(0, len(features), _BATCH)
    ]
    return np.concatenate(chunks)


def _describe_rule(run: EvaluationContext, rule: OutOfDistribution, scores: Mapping[str, Floats]) -> dict[str, Any]:
    confidence = run.evaluate.confidence
    flagged = {name: values > rule.threshold for name, values in scores.items()}
    tested = "test" if "test" in scores else "val"
    return {
        "score": rule.score,
        "threshold": rule.threshold,
        "share": rule.share,
        "splits": {
            name: {
                "images": len(found),
                "flagged": estimate_share(float(found.sum()), len(found), confidence).to_dict(),
            }
            for name, found in flagged.items()
        },
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
