"""Baselines: class prior, nearest neighbours and a linear probe on the same backbone features.

All three learn from the training images alone; the number of neighbours and the strength of the probe's penalty are
chosen on validation. They see the same features as the model's head, so the difference shows what the head and its
training add. Where the backbone was fine-tuned, the features are those of the fine-tuned backbone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.data.loading.targets import compute_median_class
from imagetune.evaluation.context import EvaluationContext
from imagetune.evaluation.document import evaluate_split
from imagetune.evaluation.features.feature_models import (
    LabelledFeatures,
    collect_labelled_features,
    compute_probe_loss,
    fit_probe,
    limit_threads,
    list_strengths,
    predict_by_neighbours,
    sample_training_rows,
)
from imagetune.evaluation.metrics.multilabel import choose_thresholds
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.bootstrap import Bootstrap, compute_precision, draw_weights
from imagetune.evaluation.statistics.intervals import Estimate, encode_groups, estimate_from_samples
from imagetune.recipe.metrics import METRICS, TASK_METRICS, list_baseline_metrics
from imagetune.recipe.tasks import Task

# Numbers of neighbours to choose from: beyond 20, small classes would often be outvoted.
NEIGHBOURS = (1, 3, 5, 10, 20)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Baseline:
    """The predictions of a baseline model for the tested and the validation images.

    Attributes:
        name: prior, neighbours or probe.
        tested: (m, k) predictions for the tested images.
        val: (v, k) predictions for the validation images; empty where there are none.
        chosen: Hyperparameters that were chosen on validation, by name.
    """

    name: str
    tested: Floats
    val: Floats
    chosen: Mapping[str, float] = field(default_factory=dict)


def analyse_baselines(run: EvaluationContext) -> dict[str, Any] | None:
    """Return the metrics of the baselines on the test, each with the model's difference to it.

    The document::

        {"tested": "test", "trained_on": 3000, "training_images": 9000, "validated": true, "fine_tuned": true,
         "task": "single_label", "compared": "accuracy",
         "models": [{"name": "prior" | "neighbours" | "probe", "chosen": {"neighbours": 5} | {"strength": 0.01},
                     "metrics": {"accuracy": {"value", "low", "high"}},
                     "difference": {"value", "low", "high"}}]}     of ``compared``: the model's minus the baseline's

    The interval of a difference is that of a paired bootstrap: both models are tested on the same resampled images.

    Args:
        run: A run with features of its splits.

    Returns:
        The document; None where the recipe asks for none, or where features or training labels are missing.
    """
    tested_name = "test" if "test" in run.splits else "val"
    taught, tested = (
        collect_labelled_features(run.splits.get("train")),
        collect_labelled_features(run.splits.get(tested_name)),
    )
    if not run.evaluate.baselines or taught is None or tested is None:
        return None
    val = collect_labelled_features(run.splits.get("val"))
    # The prior costs nothing and uses all images; neighbours and probe are limited to what they can learn in seconds.
    learnt = taught.taken(sample_training_rows(taught, seed=run.seed))
    predictions = _select_rows(run.splits[tested_name].predictions, tested)
    groups = [run.splits[tested_name].records[row].group for row in tested.rows]
    known = None if val is None else _select_rows(run.splits["val"].predictions, val)
    with limit_threads(learnt):
        found = [
            _predict_prior(taught, tested, val),
            _predict_by_neighbours(learnt, tested, val),
            fit_linear_probe_baseline(learnt, tested, val),
        ]
    made = [_describe_baseline(model, predictions, known, run, groups) for model in found]
    return {
        "tested": tested_name,
        "trained_on": len(learnt),
        "training_images": len(taught),
        "validated": val is not None,
        "fine_tuned": run.fine_tuned,
        "task": taught.task,
        "compared": TASK_METRICS[taught.task].per_image,
        "models": made,
    }


def compute_errors(predictions: Predictions) -> Floats:
    """Return the error (n,) of each prediction: 0 or 1, ranks, the share of wrong labels, or an absolute error."""
    task = predictions.rule.task
    if task == "regression":
        far: NDArray[Any] = np.abs(predictions.probabilities - predictions.targets)[:, 0]
    elif task == "multi_label":
        far = (predictions.given != (predictions.targets >= 0.5)).mean(axis=1)
    else:
        far = np.abs(predictions.predicted - predictions.labels)
        far = np.minimum(far, 1) if task == "single_label" else far
    return far.astype(np.float64)


def estimate_paired_difference(
    one: Predictions, other: Predictions, bootstrap: Bootstrap, groups: Sequence[str | None] = ()
) -> Estimate:
    """Return the difference of two models' mean metric on the same images, with its paired bootstrap interval.

    Args:
        one: Predictions of one model for n images.
        other: Predictions of the other model for the same images in the same order.
        bootstrap: Settings of the interval.
        groups: The group of each image, None for one without; empty where there are none.
    """
    # Errors are compared image by image, but the document promises the model's metric minus the baseline's.
    positive = METRICS[TASK_METRICS[one.rule.task].per_image].higher_is_better
    gaps = compute_errors(other) - compute_errors(one) if positive else compute_errors(one) - compute_errors(other)
    codes = encode_groups(groups) if len(groups) else None
    chunks = [gaps @ weights / weights.sum(axis=0) for weights in draw_weights(one.labels, bootstrap, groups=codes)]
    return estimate_from_samples(
        float(gaps.mean()),
        np.concatenate(chunks).astype(np.float64),
        compute_precision(one.labels, bootstrap, codes),
    )


def fit_linear_probe_baseline(
    taught: LabelledFeatures, tested: LabelledFeatures, val: LabelledFeatures | None
) -> Baseline:
    """Return the predictions of a linear probe whose penalty has the lowest loss on validation.

    Args:
        taught: Training images.
        tested: Images to predict.
        val: Validation images, on which the penalty is chosen; without them it is the middle one of those to choose
            from.
    """
    tried = list_strengths(taught)
    if val is None:
        middle = tried[len(tried) // 2]
        predictions = fit_probe(taught, middle)(tested.features)
        return Baseline("probe", predictions, np.zeros((0, predictions.shape[1])), {"strength": middle})
    best: tuple[float, Baseline] | None = None
    for strength in tried:
        model = fit_probe(taught, strength)
        said = model(val.features)
        loss = compute_probe_loss(said, val)
        if best is not None and loss >= best[0]:
            break  # the loss has one minimum along the penalty: weaker ones would only over-fit more
        best = (loss, Baseline("probe", model(tested.features), said, {"strength": strength}))
    assert best is not None  # noqa: S101 - the first one is always better than none
    return best[1]


def _predict_prior(taught: LabelledFeatures, tested: LabelledFeatures, val: LabelledFeatures | None) -> Baseline:
    """Return the class prior as the prediction for every image: training's class shares, or its median number."""
    # Of all constant predictions the median has the lowest mean absolute error, by which numbers are compared.
    middle = np.median if taught.task == "regression" else np.mean
    prediction = np.asarray(middle(taught.targets, axis=0), np.float64)
    return Baseline(
        "prior", np.tile(prediction, (len(tested), 1)), np.tile(prediction, (0 if val is None else len(val), 1))
    )


def _predict_by_neighbours(
    taught: LabelledFeatures, tested: LabelledFeatures, val: LabelledFeatures | None
) -> Baseline:
    """Return the predictions of k nearest neighbours, with the k that is best on validation; 1 without validation."""
    counts = [count for count in NEIGHBOURS if count <= len(taught)]
    if val is None:
        predictions = predict_by_neighbours(taught, tested.features, [1])
        return Baseline("neighbours", predictions[1], np.zeros((0, predictions[1].shape[1])), {"neighbours": 1})
    said = predict_by_neighbours(taught, val.features, counts)
    # Of equally good numbers the smallest; rounding keeps float noise from deciding.
    best = min(counts, key=lambda count: (round(_mean_error(said[count], val), 9), count))
    return Baseline(
        "neighbours", predict_by_neighbours(taught, tested.features, [best])[best], said[best], {"neighbours": best}
    )


def _mean_error(predictions: Floats, truth: LabelledFeatures) -> float:
    """Return the mean of `compute_errors` over validation, by which the number of neighbours is chosen."""
    if truth.task == "multi_label":
        return float(((predictions >= 0.5) != (truth.targets >= 0.5)).mean())
    if truth.task == "regression":
        return float(np.abs(predictions - truth.targets).mean())
    wrong = np.abs(_predicted(predictions, truth.task) - truth.labels)
    return float(np.minimum(wrong, 1).mean() if truth.task == "single_label" else wrong.mean())


def _predicted(predictions: Floats, task: Task) -> NDArray[np.int64]:
    return compute_median_class(predictions) if task == "ordinal" else predictions.argmax(axis=1).astype(np.int64)


def _select_rows(predictions: Predictions, chosen: LabelledFeatures) -> Predictions:
    """Return the predictions of the images whose label is known."""
    return replace(
        predictions,
        paths=tuple(predictions.paths[row] for row in chosen.rows),
        labels=predictions.labels[chosen.rows],
        probabilities=predictions.probabilities[chosen.rows],
        targets=predictions.targets[chosen.rows] if len(predictions.targets) else predictions.targets,
    )


def _describe_baseline(
    found: Baseline, model: Predictions, val: Predictions | None, run: EvaluationContext, groups: Sequence[str | None]
) -> dict[str, Any]:
    config, seed = run.evaluate, run.seed
    thresholds: tuple[float, ...] = ()
    if model.rule.task == "multi_label" and val is not None:
        thresholds = choose_thresholds(replace(val, probabilities=found.val))
    predictions = replace(model, probabilities=found.tested, thresholds=thresholds)
    metrics = evaluate_split(predictions, config=config, seed=seed, groups=groups).metrics
    # The same settings as for the model's own metrics, so that both intervals can be compared.
    stratified = model.rule.task in ("single_label", "ordinal")
    bootstrap = Bootstrap(config.bootstrap_samples, config.confidence, seed, stratified)
    return {
        "name": found.name,
        "chosen": dict(found.chosen),
        "metrics": {name: metrics[name].to_dict() for name in list_baseline_metrics(model.rule.task)},
        "difference": estimate_paired_difference(model, predictions, bootstrap, groups).to_dict(),
    }
