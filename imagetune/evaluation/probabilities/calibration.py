"""Analysis ``calibration``: calibration error, Brier score and log loss before and after temperature scaling.

The temperature is fitted on validation alone, and its effect is measured on validation and test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from imagetune.evaluation.context import EvaluationContext
from imagetune.evaluation.metrics.scores import TINY, estimate_log_loss
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.probabilities.confidence import (
    Draws,
    Floats,
    build_draws,
    build_truth_matrix,
    compute_confidences,
    find_known_rows,
    get_known_split,
)
from imagetune.evaluation.probabilities.reliability import (
    Bins,
    bin_predictions,
    compute_plain_ece,
    decompose_brier_score,
    estimate_calibration_error,
    simulate_chance_errors,
)
from imagetune.evaluation.probabilities.temperature import Temperature, apply_temperature, fit_temperature
from imagetune.evaluation.statistics.intervals import Estimate, estimate_share
from imagetune.model.manifest import update_manifest
from imagetune.recipe.tasks import Task

# Simulated ECEs of a calibrated model: p-values are then known to about 0.01 near 0.05.
CHANCE_SAMPLES = 500


def analyse_calibration(run: EvaluationContext) -> dict[str, Any] | None:
    """Fit the temperature on validation, keep it in the model's manifest, and return `describe_calibration`."""
    document = describe_calibration(run)
    if document is not None:
        update_manifest(run.folder, {"temperature": document["temperature"]["value"]})
    return document


def describe_calibration(run: EvaluationContext) -> dict[str, Any] | None:
    """Return the calibration measures of each split, before and after temperature scaling.

    The document::

        {"method": "temperature scaling",
         "temperature": {"value": 1.3, "low": 1.1, "high": 1.6, ["reason": "..."]},
         "fitted_on": 120,                     validation images
         "splits": {"val" | "test": {"images": 150, "before": MEASURES, "after": MEASURES | null,
                    "gain": {"log_loss" | "brier": {"value", "low", "high"}} | null}}}   before minus after

    with MEASURES::

        {"log_loss" | "brier" | "ece" | "overconfidence": {"value", "low", "high"},
         "ece_plain": 0.05,
         "ece_by_chance": {"mean": 0.03, "high": 0.05, "p_value": 0.2} | null,
         "brier_parts": {"reliability": 0.01, "resolution": 0.6, "uncertainty": 0.8},
         "bins": [{"from": 0.2, "to": 0.5, "predictions": 10, "probability": 0.4, "frequency": 0.3, "low": 0.1, "high":
         0.5}], ["labels": [{"label": "cat", "images": 20, "probability": 0.2, "frequency": 0.2, "brier": 0.1, "ece":
         0.02}]]}

    The log loss is in nats an image, summed over the labels of multi_label; the Brier score is summed over classes
    (0 to 2), for multi_label the mean over labels (0 to 1). ``ece`` is that of
    `imagetune.evaluation.probabilities.reliability.estimate_calibration_error`: over the predicted classes, for
    multi_label over all probabilities of all labels. ``overconfidence`` is the mean confidence minus the share that is
    right.

    Returns:
        The document; None for regression, and where no image has a known label.
    """
    task = run.data.task
    splits = {name: found for name in ("val", "test") if (found := get_known_split(run, name)) is not None}
    if task == "regression" or not splits:
        return None
    temperature = fit_validation_temperature(run)
    return {
        "method": "temperature scaling",
        "temperature": _describe_temperature(temperature),
        "fitted_on": int(find_known_rows(splits["val"].predictions).sum()) if "val" in splits else 0,
        "splits": {
            name: _describe_split(found.predictions, temperature.value, build_draws(found, run.evaluate, seed=run.seed))
            for name, found in splits.items()
        },
    }


def fit_validation_temperature(run: EvaluationContext) -> Temperature:
    """Return the temperature fitted on validation; one without a value where it can't be fitted."""
    val = get_known_split(run, "val")
    if val is None:
        return Temperature(None, reason="there are no validation images to fit it on")
    found = val.predictions
    return fit_temperature(
        found.probabilities[find_known_rows(found)],
        build_truth_matrix(found),
        found.rule.task,
        confidence=run.evaluate.confidence,
    )


def _describe_temperature(temperature: Temperature) -> dict[str, Any]:
    return Estimate(temperature.value, temperature.low, temperature.high, temperature.reason).to_dict()


def _describe_split(predictions: Predictions, temperature: float | None, draws: Draws) -> dict[str, Any]:
    task, truth = predictions.rule.task, build_truth_matrix(predictions)
    before = predictions.probabilities[find_known_rows(predictions)]
    document: dict[str, Any] = {"images": len(truth), "before": _measures(predictions, before, truth, draws)}
    if temperature is None:
        return {**document, "after": None, "gain": None}
    after = apply_temperature(before, temperature, task)
    # Paired by image: the gain's interval is far shorter than those of both losses would suggest.
    gain = {
        name: draws.mean(score(before, truth, task) - score(after, truth, task)).to_dict()
        for name, score in (("log_loss", _log_losses), ("brier", _briers))
    }
    return {**document, "after": _measures(predictions, after, truth, draws), "gain": gain}


def _measures(predictions: Predictions, probabilities: Floats, truth: Floats, draws: Draws) -> dict[str, Any]:
    """Return MEASURES of `analyse_calibration` for (n, k) probabilities and truth."""
    task = predictions.rule.task
    forecasts, outcomes = _collect_forecasts(predictions, probabilities, truth)
    bins = bin_predictions(forecasts, outcomes)
    plain = compute_plain_ece(bins)
    # Of all probabilities, not of the predicted classes alone: only so do the parts add up to the Brier score.
    parts = decompose_brier_score(probabilities, truth)
    # The Brier score is a mean over labels for multi_label, else a sum over classes; its components follow.
    share = 1 / truth.shape[1] if task == "multi_label" else 1.0
    document = {
        "log_loss": _estimate_log_loss(predictions, probabilities, truth, draws).to_dict(),
        "brier": draws.mean(_briers(probabilities, truth, task), scale="loss").to_dict(),
        "ece": estimate_calibration_error(bins, draws).to_dict(),
        "overconfidence": draws.mean((forecasts - outcomes).mean(axis=1)).to_dict(),
        "ece_plain": plain,
        # The simulation puts each image into one bin and draws its outcome alone; labels of one image are dependent.
        "ece_by_chance": _simulate_chance(bins, forecasts[:, 0], plain, draws.bootstrap.seed)
        if task != "multi_label"
        else None,
        "brier_parts": {
            "reliability": share * parts.reliability,
            "resolution": share * parts.resolution,
            "uncertainty": share * parts.uncertainty,
        },
        "bins": _bin_documents(bins, draws.bootstrap.confidence),
    }
    if task == "multi_label":
        document["labels"] = _label_documents(predictions.class_names, probabilities, truth, draws)
    return document


def _collect_forecasts(predictions: Predictions, probabilities: Floats, truth: Floats) -> tuple[Floats, Floats]:
    """Return confidences and what came true, (n, m): of the predicted classes; for multi_label of all labels."""
    if predictions.rule.task == "multi_label":
        return probabilities, truth
    # The predicted classes stay the model's own, as temperature scaling keeps the order of the classes.
    chosen = predictions.predicted[find_known_rows(predictions)]
    right = compute_confidences(predictions).right.astype(np.float64)
    return probabilities[np.arange(len(chosen)), chosen][:, None], right[:, None]


def _estimate_log_loss(predictions: Predictions, probabilities: Floats, truth: Floats, draws: Draws) -> Estimate:
    task, known = predictions.rule.task, find_known_rows(predictions)
    losses = _log_losses(probabilities, truth, task)
    if task == "multi_label":
        return draws.mean(losses, scale="loss")
    # As the metrics of the split have it: of classes whose sizes are fixed.
    labels, bootstrap = predictions.labels[known], replace(draws.bootstrap, stratified=True)
    return estimate_log_loss(losses, labels, labels == predictions.predicted[known], bootstrap, groups=draws.groups)


def _log_losses(probabilities: Floats, truth: Floats, task: Task) -> Floats:
    """Return the log loss (n,) of each image in nats, at most 36 for a class."""
    own = np.log(np.clip(probabilities, TINY, 1.0))
    other = np.log(np.clip(1 - probabilities, TINY, 1.0)) if task == "multi_label" else np.zeros_like(own)
    return np.asarray(-(truth * own + (1 - truth) * other).sum(axis=1), np.float64)


def _briers(probabilities: Floats, truth: Floats, task: Task) -> Floats:
    squares = (probabilities - truth) ** 2
    return np.asarray(squares.mean(axis=1) if task == "multi_label" else squares.sum(axis=1), np.float64)


def _simulate_chance(bins: Bins, forecasts: Floats, plain: float, seed: int) -> dict[str, float]:
    """Return the plain ECE of a perfectly calibrated model with these confidences, and the p-value of the observed."""
    errors = simulate_chance_errors(bins, forecasts, samples=CHANCE_SAMPLES, seed=seed)
    # The observed error counts as one of the samples, so that p is never 0 (Phipson and Smyth 2010).
    p_value = (1 + int((errors >= plain - 1e-12).sum())) / (1 + len(errors))
    return {"mean": float(errors.mean()), "high": float(np.quantile(errors, 0.95)), "p_value": p_value}


def _bin_documents(bins: Bins, confidence: float) -> list[dict[str, float | int | None]]:
    counts, forecasts, outcomes = (values.sum(axis=0) for values in (bins.counts, bins.forecasts, bins.outcomes))
    documents: list[dict[str, float | int | None]] = []
    for index, count in enumerate(counts):
        if not count:
            continue
        share = estimate_share(outcomes[index], count, confidence)
        documents.append(
            {
                "from": float(bins.edges[index]),
                "to": float(bins.edges[index + 1]),
                "predictions": int(count),
                "probability": float(forecasts[index] / count),
                "frequency": share.value,
                "low": share.low,
                "high": share.high,
            }
        )
    return documents


def _label_documents(
    names: tuple[str, ...], probabilities: Floats, truth: Floats, draws: Draws
) -> list[Mapping[str, Any]]:
    documents: list[Mapping[str, Any]] = []
    for index, name in enumerate(names):
        forecasts, outcomes = probabilities[:, [index]], truth[:, [index]]
        documents.append(
            {
                "label": name,
                "images": int(outcomes.sum()),
                "probability": float(forecasts.mean()),
                "frequency": draws.share(outcomes[:, 0] > 0).to_dict(),
                "brier": float(((forecasts - outcomes) ** 2).mean()),
                "ece": estimate_calibration_error(bin_predictions(forecasts, outcomes), draws).to_dict(),
            }
        )
    return documents
