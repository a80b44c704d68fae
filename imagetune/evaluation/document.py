"""evaluation.json: metrics of every split, gaps, power, the verdict, and whether the recipe's requirements are met."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np

from imagetune.core.documents import CURRENT_FORMAT, FORMAT_VERSION
from imagetune.evaluation.metrics.classification import ClassEvaluation, SplitEvaluation, evaluate_predictions
from imagetune.evaluation.metrics.multilabel import LabelEvaluation, evaluate_labels
from imagetune.evaluation.metrics.regression import ValueEvaluation, evaluate_values
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.power import (
    ERROR_SHARES,
    describe_gaps,
    describe_power,
    describe_regression_power,
)
from imagetune.evaluation.statistics.verdict import TrainingCourse, judge_gap
from imagetune.recipe.metrics import METRICS, TASK_METRICS
from imagetune.recipe.sections.evaluate import EvaluateConfig, Requirement

# The verdict only mentions the power of a test that can't detect a difference of 5 points, which people would act on.
_NOTABLE_DIFFERENCE = 0.05
# From this share of left-out images on, the rest of a set proves nothing.
_NEARLY_ALL = 0.9
Evaluation: TypeAlias = SplitEvaluation | LabelEvaluation | ValueEvaluation


def evaluate_split(
    predictions: Predictions, *, config: EvaluateConfig, seed: int, groups: Sequence[str | None] = ()
) -> Evaluation:
    """Compute every metric of the predictions' task with its interval.

    Args:
        predictions: The predictions of one split.
        config: The recipe's evaluate section, for how intervals are made.
        seed: Seed of the resamplings.
        groups: The group of each image, None for one without; empty where there are none. Images of a group are not
            independent, so whole groups are resampled.

    Raises:
        DataError: No image has a label among the classes.
        DivergedError: A prediction is not a finite number.
    """
    # Without its only image, or one class, a metric is not defined: it is NaN then, which the intervals know.
    with np.errstate(invalid="ignore", divide="ignore"):
        return _evaluate_task(predictions, config, seed, groups)


def _evaluate_task(
    predictions: Predictions, config: EvaluateConfig, seed: int, groups: Sequence[str | None]
) -> Evaluation:
    if predictions.rule.task == "multi_label":
        return evaluate_labels(predictions, config=config, seed=seed, groups=groups)
    if predictions.rule.task == "regression":
        return evaluate_values(predictions, config=config, seed=seed, groups=groups)
    return evaluate_predictions(predictions, config=config, seed=seed, groups=groups)


def build_evaluation_document(
    evaluations: Mapping[str, Evaluation],
    *,
    config: EvaluateConfig,
    course: TrainingCourse | None = None,
    seen: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of evaluation.json: plain JSON values, null and a reason where a metric is not defined.

    The document::

        {"format_version": 1,
         "task": "single_label" | "multi_label" | "ordinal" | "regression",
         "class_names": [...],
         "top_k": 3,
         "tta": ["horizontal_flip"],         test-time augmentation: probabilities are averaged over these copies
         "bootstrap": {"samples": 1000, "confidence": 0.95, "seed": 7, "stratified": true},
         "splits": {"train" | "val" | "test": {
             "images": 120, "left_out": 0, "groups": 0,      number of groups that were resampled; 0: of images
             "metrics": {"accuracy" | "balanced_accuracy" | "precision" | "recall" | "f1" | "top_k_accuracy"
                         | "log_loss" | "roc_auc": {"value": 0.9, "low": 0.85, "high": 0.94,
                                                    ["reason": "..."], ["method": "wilson"]}},
             "averages": {"macro" | "weighted": {"precision": 0.9, "recall": 0.9, "f1": 0.9}},
             "per_class": [{"class": "birds", "images": 12, "predicted": 11, "right": 10,
                            "metrics": {"precision" | "recall" | "f1" | "roc_auc": {"value", "low", "high"}}}],
             "confusion_matrix": [[...]],      rows true, columns predicted, in the order of class_names
             "notes": ["..."]}},
         "gaps": {"train_val" | "train_test" | "val_test": {"accuracy" | ...: {"value", "low", "high", "method"}}},
         "power": {"images": 85, "min_detectable_difference": 0.13, "needed": [{"difference": 0.05, "images": 550}],
                   "power": 0.8, "level": 0.05, "discordant": 0.18, "text": "..."},
                  for regression in the labels' units, with share_of_error and without discordant
         "verdict": {"code": "close", "title": "...", "text": "...", "advice": "..."} | null,
         "requirements": [{"metric": "f1", "lower_bound": 0.8, "upper_bound": null, "value": null, "found": 0.85,
                           "met": true, "message": ""}],    message: by how much the requirement is missed
         "seen": {"images": 0 | null, "near_duplicates": 0, "paths": [], "notes": [],
                  "left_out": {...}}}    with evaluate --data or --with, or where a run's test split leaks; left_out, of
                                         the same kind, with --skip-seen

    Averaged metrics are macro: each class counts the same. log_loss is in nats. A gap is the first split's metric minus
    that of the second. ``bootstrap`` is how images were resampled; ``method`` is how each interval was made
    (`imagetune.evaluation.statistics.intervals`; ``mover`` is for differences).

    ordinal has the metrics mae (in ranks), quadratic_weighted_kappa and within_one_rank besides. multi_label has the
    metrics mean_average_precision, f1, micro_f1, precision, recall, subset_accuracy and hamming_loss; in per_class a
    threshold and the metrics average_precision, f1, precision and recall; no averages and no confusion_matrix.
    regression has the metrics mae, rmse (in the labels' units), r2 and spearman, and nothing by class.

    Args:
        evaluations: By split: train, val or test.
        config: The recipe's evaluate section, for the TTA transforms and the requirements that the test must reach.
        course: How the model was trained, for the verdict.
        seen: Which test images the model was trained or selected with, as JSON values whose ``images`` is their number,
            None where nobody knows; by default there are none. With any, no requirement is met.
    """
    some = next(iter(evaluations.values()))
    document: dict[str, Any] = {
        FORMAT_VERSION: CURRENT_FORMAT,
        "task": some.task,
        "class_names": list(some.class_names),
        **({"top_k": some.top_k} if isinstance(some, SplitEvaluation) else {}),
        "tta": list(config.tta),
        "bootstrap": asdict(some.bootstrap),
        "splits": {name: describe_split(split) for name, split in evaluations.items()},
        "gaps": describe_gaps({name: split.metrics for name, split in evaluations.items()}),
    }
    if seen is not None:
        # Before the requirements, which ask for it.
        document["seen"] = dict(seen)
    if "test" in evaluations and (power := _analyse_power(evaluations["test"])) is not None:
        document["power"] = power
    # After the power analysis, as the verdict quotes it.
    document["verdict"] = _judge_gap(evaluations, document.get("power", {}), course)
    if "test" in evaluations:
        document["requirements"] = [_requirement_document(document, requirement) for requirement in config.require]
    return document


def list_failed_requirements(document: Mapping[str, Any], require: Iterable[Requirement]) -> tuple[str, ...]:
    """Return a message for each requirement that the test metrics miss, with the shortfall.

    Args:
        document: Content of evaluation.json.
        require: The requirements of ``evaluate.require``.
    """
    messages = (_describe_shortfall(document, requirement) for requirement in require)
    return tuple(message for message in messages if message)


def _describe_shortfall(document: Mapping[str, Any], requirement: Requirement) -> str:
    """Return by how much the test misses a requirement; empty where it reaches it."""
    # What a model has learned proves nothing about new images, however good the metric.
    if seen := _describe_seen(document):
        return f"test {requirement.metric} meets no requirement: {seen}"
    kind, needed = requirement.threshold
    found, name = _get_compared_value(document, requirement), kind.replace("_", " ")
    # A bound that doesn't exist can't be reached, so it counts as missed: a test without images must not pass.
    if found is None:
        reason = _get_test_metric(document, requirement.metric).get("reason") or "nothing was tested"
        return f"test {requirement.metric} has no {name} ({reason}); required is {needed:g}"
    short = found - needed if requirement.lower_is_better else needed - found
    if short <= 0:
        return ""
    side = "above" if requirement.lower_is_better else "below"
    # Labels' units may be large or small, so four decimals could show nothing or far too much.
    digits = ".6g" if METRICS[requirement.metric].has_units else ".4f"
    return f"test {requirement.metric}: its {name} {found:{digits}} is {short:{digits}} {side} the required {needed:g}"


def _describe_seen(document: Mapping[str, Any]) -> str:
    """Return that the model was trained or selected with test images; empty where it wasn't."""
    seen, tested = document.get("seen", {"images": 0}), document["splits"].get("test", {}).get("images", 0)
    if seen["images"] is None:
        return "nobody knows which of the test images a run was trained on"
    left_out = seen.get("left_out", {}).get("images") or 0
    # Among the rest of such a set are likely edits of the others that the search for near-duplicates misses.
    if left_out >= _NEARLY_ALL * (left_out + tested) > 0:
        return f"{left_out} of {left_out + tested} images were left out, as the model was trained or selected with them"
    if not seen["images"]:
        return ""
    return f"{seen['images']} of {tested} test images are among the training or validation images"


def _get_compared_value(document: Mapping[str, Any], requirement: Requirement) -> float | None:
    """Return the value that a requirement is compared with: the test metric, or an end of its interval."""
    end = {"lower_bound": "low", "upper_bound": "high", "value": "value"}[requirement.threshold[0]]
    found: float | None = _get_test_metric(document, requirement.metric).get(end)
    return found


def _get_test_metric(document: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = document["splits"].get("test", {}).get("metrics", {}).get(metric, {})
    return found


def _requirement_document(document: Mapping[str, Any], requirement: Requirement) -> dict[str, Any]:
    found, message = _get_compared_value(document, requirement), _describe_shortfall(document, requirement)
    return {**requirement.model_dump(mode="json"), "found": found, "met": not message, "message": message}


def _analyse_power(test: Evaluation) -> dict[str, Any] | None:
    """Return the power analysis of the test split, by the task's own share of right predictions or error."""
    metrics, confidence = test.metrics, test.bootstrap.confidence
    if test.task == "regression":
        return describe_regression_power(metrics["mae"], metrics["rmse"], test.images, confidence=confidence)
    # McNemar's test counts images that are right or wrong as a whole, with several labels those with all labels right.
    right = metrics["subset_accuracy" if test.task == "multi_label" else "accuracy"]
    return describe_power(right, test.images, confidence=confidence)


def _judge_gap(
    evaluations: Mapping[str, Evaluation], power: Mapping[str, Any], course: TrainingCourse | None
) -> dict[str, str] | None:
    """Return the verdict on over-fitting, by the task's own metric for it."""
    some = next(iter(evaluations.values()))
    measure = TASK_METRICS[some.task].verdict
    return judge_gap(
        {name: split.metrics[measure] for name, split in evaluations.items()},
        {name: split.images for name, split in evaluations.items()},
        # Of training, as under-fitting is judged by the images that the model could have learned.
        baseline=evaluations["train"].baseline if "train" in evaluations else 0.0,
        confidence=some.bootstrap.confidence,
        measure=measure,
        power=str(power["text"]) if _has_low_power(power) else "",
        course=course,
    )


def _has_low_power(power: Mapping[str, Any]) -> bool:
    """Return whether the test is too small to detect differences that people care about."""
    if "share_of_error" in power:
        return bool(power["share_of_error"] > ERROR_SHARES[-1])
    return bool(power.get("min_detectable_difference", 0.0) > _NOTABLE_DIFFERENCE)


def describe_split(split: Evaluation) -> dict[str, Any]:
    """Return the metrics of one split as JSON values, as `build_evaluation_document` has them in ``splits``."""
    document: dict[str, Any] = {
        "images": split.images,
        "left_out": split.left_out,
        "groups": split.groups,
        "metrics": {name: metric.to_dict() for name, metric in split.metrics.items()},
    }
    if isinstance(split, SplitEvaluation):
        document["averages"] = {name: dict(values) for name, values in split.averages.items()}
    # A key that doesn't apply to the task is left out, so that readers needn't know which tasks have it.
    if not isinstance(split, ValueEvaluation):
        document["per_class"] = [_class_document(found) for found in split.classes]
    if isinstance(split, SplitEvaluation):
        document["confusion_matrix"] = split.confusion.tolist()
    return {**document, "notes": list(split.notes)}


def _class_document(found: ClassEvaluation) -> dict[str, Any]:
    metrics = {name: metric.to_dict() for name, metric in found.metrics.items()}
    counts: dict[str, Any] = {"images": found.images, "predicted": found.predicted, "right": found.right}
    if found.threshold is not None:
        counts["threshold"] = found.threshold
    return {"class": found.name, **counts, "metrics": metrics}
