"""evaluation.json: the metrics of every split, the verdict, and whether the test reaches what the recipe requires."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

from imagetune.evaluation.metrics.classification import ClassEvaluation, SplitEvaluation, evaluate_predictions
from imagetune.evaluation.metrics.multilabel import LabelEvaluation, evaluate_labels
from imagetune.evaluation.metrics.regression import ValueEvaluation, evaluate_values
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.power import (
    ERROR_SHARES,
    gap_documents,
    resolution_document,
    value_resolution_document,
)
from imagetune.evaluation.statistics.verdict import judge
from imagetune.recipe.evaluate import EvaluateConfig, Requirement
from imagetune.recipe.metrics import METRICS, TASK_METRICS

FORMAT = 1
# Below this difference between two models nobody complains that a test can't see it.
_NOTICED = 0.05
Evaluation: TypeAlias = SplitEvaluation | LabelEvaluation | ValueEvaluation


def evaluate_split(
    predictions: Predictions, *, config: EvaluateConfig, seed: int, groups: Sequence[str | None] = ()
) -> Evaluation:
    """Compute every metric of the predictions' task with its interval.

    Args:
        predictions: Of one split.
        config: How intervals are made.
        seed: Of the resamplings.
        groups: The group of each image, None for one without; empty where there are none. Images of a group go
            together, so that intervals are made of whole groups.

    Raises:
        DataError: No image has a label among the classes.
        DivergedError: A prediction is not a finite number.
    """
    if predictions.rule.task == "multi_label":
        return evaluate_labels(predictions, config=config, seed=seed, groups=groups)
    if predictions.rule.task == "regression":
        return evaluate_values(predictions, config=config, seed=seed, groups=groups)
    return evaluate_predictions(predictions, config=config, seed=seed, groups=groups)


def evaluation_document(evaluations: Mapping[str, Evaluation], *, config: EvaluateConfig) -> dict[str, Any]:
    """Return the content of evaluation.json: plain JSON values, null and a reason where a metric is not defined.

    The document::

        {"format": 1,
         "task": "single_label" | "multi_label" | "ordinal" | "regression",
         "class_names": [...],
         "top_k": 3,
         "tta": ["horizontal_flip"],         whose probabilities were averaged with those of the image itself
         "bootstrap": {"samples": 1000, "confidence": 0.95, "seed": 7, "stratified": true},
         "splits": {"train" | "val" | "test": {
             "images": 120, "left_out": 0, "groups": 0,      of how many groups intervals were made; 0: of images
             "metrics": {"accuracy" | "balanced_accuracy" | "precision" | "recall" | "f1" | "top_k_accuracy"
                         | "log_loss" | "roc_auc": {"value": 0.9, "low": 0.85, "high": 0.94,
                                                    ["reason": "..."], ["method": "wilson"]}},
             "averages": {"macro" | "weighted": {"precision": 0.9, "recall": 0.9, "f1": 0.9}},
             "per_class": [{"class": "birds", "images": 12, "predicted": 11, "right": 10,
                            "metrics": {"precision" | "recall" | "f1" | "roc_auc": {"value", "low", "high"}}}],
             "confusion_matrix": [[...]],      rows true, columns predicted, in the order of class_names
             "notes": ["..."]}},
         "gaps": {"train_val" | "train_test" | "val_test": {"accuracy" | ...: {"value", "low", "high", "method"}}},
         "resolution": {"images": 85, "min_detectable_difference": 0.13, "needed": [{"difference": 0.05, "images":
         550}],
                        "power": 0.8, "level": 0.05, "discordant": 0.18, "text": "..."},
                       of regression in the labels' units, with share_of_error and without discordant
         "verdict": {"code": "close", "title": "...", "text": "...", "advice": "..."} | null,
         "requirements": [{"metric": "f1", "lower_bound": 0.8, "upper_bound": null, "value": null, "found": 0.85,
                           "met": true, "message": ""}]}    message: by how much the requirement is missed

    Averaged metrics are macro: each class counts the same. log_loss is in nats. A gap is the first split's metric minus
    that of the second. ``bootstrap`` is how images were drawn again; how an interval was made of that, or without it,
    its own ``method`` says (`imagetune.evaluation.statistics.intervals`; ``mover`` is for differences).

    ordinal has the metrics mae (in ranks), quadratic_weighted_kappa and within_one_rank besides. multi_label has the
    metrics mean_average_precision, f1, micro_f1, precision, recall, subset_accuracy and hamming_loss; in per_class a
    threshold and the metrics average_precision, f1, precision and recall; no averages and no confusion_matrix.
    regression has the metrics mae, rmse (in the labels' units), r2 and spearman, and nothing by class.

    Args:
        evaluations: By split: train, val or test.
        config: The recipe's evaluate section, for the TTA transforms and the requirements that the test must reach.
    """
    some = next(iter(evaluations.values()))
    document: dict[str, Any] = {
        "format": FORMAT,
        "task": some.task,
        "class_names": list(some.class_names),
        **({"top_k": some.top_k} if isinstance(some, SplitEvaluation) else {}),
        "tta": list(config.tta),
        "bootstrap": asdict(some.bootstrap),
        "splits": {name: split_document(split) for name, split in evaluations.items()},
        "gaps": gap_documents({name: split.metrics for name, split in evaluations.items()}),
    }
    if "test" in evaluations and (resolution := _resolution(evaluations["test"])) is not None:
        document["resolution"] = resolution
    # The verdict comes last, as it quotes how much the test can tell.
    document["verdict"] = _verdict(evaluations, document.get("resolution", {}))
    if "test" in evaluations:
        document["requirements"] = [_requirement_document(document, requirement) for requirement in config.require]
    return document


def failed_requirements(document: Mapping[str, Any], require: Iterable[Requirement]) -> tuple[str, ...]:
    """Return a message for each requirement that the test misses, saying by how much.

    Args:
        document: Content of evaluation.json.
        require: The requirements of ``evaluate.require``.
    """
    messages = (_shortfall(document, requirement) for requirement in require)
    return tuple(message for message in messages if message)


def _shortfall(document: Mapping[str, Any], requirement: Requirement) -> str:
    """Return by how much the test misses a requirement; empty where it reaches it."""
    kind, needed = requirement.threshold
    found, told = _found(document, requirement), kind.replace("_", " ")
    if found is None:
        reason = _tested_metric(document, requirement.metric).get("reason") or "nothing was tested"
        return f"test {requirement.metric} has no {told} ({reason}); required is {needed:g}"
    short = found - needed if requirement.lower_is_better else needed - found
    if short <= 0:
        return ""
    side = "above" if requirement.lower_is_better else "below"
    # Labels' units may be large or small: so many digits tell.
    digits = ".6g" if METRICS[requirement.metric].has_units else ".4f"
    return f"test {requirement.metric}: its {told} {found:{digits}} is {short:{digits}} {side} the required {needed:g}"


def _found(document: Mapping[str, Any], requirement: Requirement) -> float | None:
    """Return what is held against a requirement: the metric, or an end of its interval."""
    end = {"lower_bound": "low", "upper_bound": "high", "value": "value"}[requirement.threshold[0]]
    found: float | None = _tested_metric(document, requirement.metric).get(end)
    return found


def _tested_metric(document: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = document["splits"].get("test", {}).get("metrics", {}).get(metric, {})
    return found


def _requirement_document(document: Mapping[str, Any], requirement: Requirement) -> dict[str, Any]:
    found, message = _found(document, requirement), _shortfall(document, requirement)
    return {**requirement.model_dump(mode="json"), "found": found, "met": not message, "message": message}


def _resolution(test: Evaluation) -> dict[str, Any] | None:
    metrics, confidence = test.metrics, test.bootstrap.confidence
    if test.task == "regression":
        return value_resolution_document(metrics["mae"], metrics["rmse"], test.images, confidence=confidence)
    right = metrics["subset_accuracy" if test.task == "multi_label" else "accuracy"]
    return resolution_document(right, test.images, confidence=confidence)


def _verdict(evaluations: Mapping[str, Evaluation], resolution: Mapping[str, Any]) -> dict[str, str] | None:
    """Return what the gap between the splits means, by the task's own measure of it."""
    some = next(iter(evaluations.values()))
    measure = TASK_METRICS[some.task].verdict
    return judge(
        {name: split.metrics[measure] for name, split in evaluations.items()},
        {name: split.images for name, split in evaluations.items()},
        baseline=evaluations["train"].baseline if "train" in evaluations else 0.0,
        confidence=some.bootstrap.confidence,
        measure=measure,
        resolution=str(resolution["text"]) if _is_rough(resolution) else "",
    )


def _is_rough(resolution: Mapping[str, Any]) -> bool:
    """Return whether the test is too small to see differences that people care about."""
    if "share_of_error" in resolution:
        return bool(resolution["share_of_error"] > ERROR_SHARES[-1])
    return bool(resolution.get("min_detectable_difference", 0.0) > _NOTICED)


def split_document(split: Evaluation) -> dict[str, Any]:
    """Return the metrics of one split as JSON values, as `evaluation_document` has them in ``splits``."""
    document: dict[str, Any] = {
        "images": split.images,
        "left_out": split.left_out,
        "groups": split.groups,
        "metrics": {name: metric.to_dict() for name, metric in split.metrics.items()},
    }
    if isinstance(split, SplitEvaluation):
        document["averages"] = {name: dict(values) for name, values in split.averages.items()}
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
