"""Analysis ``rank_errors`` of ordered classes: by how many ranks predictions are off, and in which direction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.context import EvaluationContext
from imagetune.evaluation.errors.residuals import describe_bias
from imagetune.evaluation.probabilities.confidence import (
    Draws,
    build_draws,
    choose_tested_split,
    find_known_rows,
    get_known_split,
)
from imagetune.evaluation.statistics.intervals import Estimate, limit_estimate

Ints = NDArray[np.int64]


def analyse_rank_errors(run: EvaluationContext) -> dict[str, Any] | None:
    """Return the distribution of rank errors and the bias, overall and by class; None where classes have no order.

    The document::

        {"split": "test", "images": 85,
         "distances": [{"off": -1, "images": 7, "share": {"value", "low", "high"}}],  prediction minus truth, in ranks
         "bias": {...},                                                                    mean of ``off``
         "too_high": {...}, "too_low": {...},                                              shares of the images
         "classes": [{"class": "small", "images": 20, "error": {...}, "bias": {...}}],   error: mean distance
         "text": "..."}

    The lowest class can't be predicted as a lower one, nor the highest as a higher one, so that any mistake biases
    these two.
    """
    name = choose_tested_split(run)
    split = get_known_split(run, name)
    if run.data.task != "ordinal" or split is None:
        return None
    predictions = split.predictions
    known, draws = find_known_rows(predictions), build_draws(split, run.evaluate, seed=run.seed)
    labels = predictions.labels[known]
    off = predictions.predicted[known] - labels
    most = int(np.abs(off).max())
    document: dict[str, Any] = {
        "split": name,
        "images": len(off),
        "distances": [
            {"off": ranks, "images": int((off == ranks).sum()), "share": draws.share(off == ranks).to_dict()}
            for ranks in range(-most, most + 1)
        ],
        "bias": limit_estimate(
            draws.mean(off.astype(np.float64)), 1.0 - len(predictions.class_names), len(predictions.class_names) - 1.0
        ).to_dict(),
        "too_high": draws.share(off > 0).to_dict(),
        "too_low": draws.share(off < 0).to_dict(),
        "classes": [
            _describe_class(predictions.class_names, place, labels, off, draws)
            for place in range(len(predictions.class_names))
        ],
    }
    return {**document, "text": " ".join(_summarise(document))}


def _describe_class(names: Sequence[str], place: int, labels: Ints, off: Ints, draws: Draws) -> dict[str, Any]:
    """Return the mean rank error and the bias of one class's images."""
    found = {"error": Estimate(None, reason="no images of this class")}
    found["bias"] = found["error"]
    own, classes = labels == place, len(names)
    if own.any():
        drawn, ranks = draws.of(own), off[own].astype(np.float64)
        # No prediction is further off than the first class is from the last.
        most = float(max(place, classes - 1 - place))
        found = {
            "error": limit_estimate(drawn.mean(np.abs(ranks)), 0.0, most),
            "bias": limit_estimate(drawn.mean(ranks), -most, most),
        }
    return {"class": names[place], "images": int(own.sum()), **{key: metric.to_dict() for key, metric in found.items()}}


def _summarise(document: Mapping[str, Any]) -> Iterator[str]:
    shares = {row["off"]: row["share"]["value"] for row in document["distances"]}
    # Where no prediction is wrong, 0 is the only distance listed.
    near = shares.get(-1, 0.0) + shares.get(1, 0.0)
    # Rounding could make this -0.0%.
    beyond = max(0.0, 1 - shares[0] - near)
    yield f"{shares[0]:.1%} of the predictions are right, {near:.1%} are one rank off, {beyond:.1%} are further off."
    yield describe_bias(document["bias"], unit=" ranks")
