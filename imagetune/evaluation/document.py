"""evaluation.json: the figures of every split, the verdict, and whether the test reaches what the recipe requires."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

from imagetune.evaluation.metrics import ClassEvaluation, SplitEvaluation, evaluate_predictions
from imagetune.evaluation.multilabel import LabelEvaluation, evaluate_labels
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.regression import ValueEvaluation, evaluate_values
from imagetune.evaluation.resolution import gap_documents, resolution_document
from imagetune.evaluation.verdict import Measure, judge
from imagetune.recipe.tracking import EvaluateConfig, Requirement

FORMAT = 1
# Below this difference between two models nobody complains that a test can't see it.
_NOTICED = 0.05
Evaluation: TypeAlias = SplitEvaluation | LabelEvaluation | ValueEvaluation


def evaluate_split(
    predictions: Predictions, *, config: EvaluateConfig, seed: int, groups: Sequence[str | None] = ()
) -> Evaluation:
    """Compute every figure of the predictions' task with its interval.

    Args:
        predictions: Of one split.
        config: How intervals are made.
        seed: Of the resamplings.
        groups: The group of each picture, None for one without; empty where there are none. Pictures of a group go
            together, so that intervals are made of whole groups.

    Raises:
        DataError: No picture has a label among the classes.
        DivergedError: An answer is not a finite number.
    """
    if predictions.rule.task == "multi_label":
        return evaluate_labels(predictions, config=config, seed=seed, groups=groups)
    if predictions.rule.task == "regression":
        return evaluate_values(predictions, config=config, seed=seed, groups=groups)
    return evaluate_predictions(predictions, config=config, seed=seed, groups=groups)


def evaluation_document(evaluations: Mapping[str, Evaluation], *, config: EvaluateConfig) -> dict[str, Any]:
    """Return the content of evaluation.json: plain JSON values, null and a reason where a figure is not defined.

    The document::

        {"format": 1,
         "task": "single_label" | "multi_label" | "ordinal" | "regression",
         "class_names": [...],
         "top_k": 3,
         "views": ["horizontal_flip"],         whose probabilities were averaged with those of the picture itself
         "bootstrap": {"samples": 1000, "confidence": 0.95, "seed": 7, "stratified": true},
         "splits": {"train" | "val" | "test": {
             "pictures": 120, "left_out": 0, "groups": 0,      of how many groups intervals were made; 0: of pictures
             "figures": {"accuracy" | "balanced_accuracy" | "precision" | "recall" | "f1" | "top_k_accuracy"
                         | "log_loss" | "roc_auc": {"value": 0.9, "low": 0.85, "high": 0.94,
                                                    ["reason": "..."], ["method": "wilson"]}},
             "averages": {"macro" | "weighted": {"precision": 0.9, "recall": 0.9, "f1": 0.9}},
             "per_class": [{"class": "birds", "pictures": 12, "predicted": 11, "right": 10,
                            "figures": {"precision" | "recall" | "f1" | "roc_auc": {"value", "low", "high"}}}],
             "confusion_matrix": [[...]],      rows true, columns predicted, in the order of class_names
             "notes": ["..."]}},
         "gaps": {"train_val" | "train_test" | "val_test": {"accuracy" | ...: {"value", "low", "high", "method"}}},
         "resolution": {"pictures": 85, "least_difference": 0.13, "needed": [{"difference": 0.05, "pictures": 550}],
                        "power": 0.8, "level": 0.05, "discordant": 0.18, "text": "..."},    not for regression
         "verdict": {"code": "close", "title": "...", "text": "...", "advice": "..."} | null,
         "requirements": [{"metric": "f1", "lower_bound": 0.8, "value": null, "found": 0.85, "met": true,
                           "message": ""}]}    message: by how much the bar is missed

    Averaged figures are macro: each class counts the same. log_loss is in nats. A gap is the first split's figure minus
    that of the second. ``bootstrap`` is how pictures were drawn again; how an interval was made of that, or without it,
    its own ``method`` says (`imagetune.evaluation.intervals`; ``mover`` is for differences).

    ordinal has the figures mae (in ranks), quadratic_weighted_kappa and within_one_rank besides. multi_label has the
    figures mean_average_precision, f1, micro_f1, precision, recall, subset_accuracy and hamming_loss; in per_class a
    threshold and the figures average_precision, f1, precision and recall; no averages and no confusion_matrix.
    regression has the figures mae, rmse (in the labels' units), r2 and spearman, and nothing by class.

    Args:
        evaluations: By split: train, val or test.
        config: The recipe's evaluate section, for the views and the bars that the test must reach.
    """
    some = next(iter(evaluations.values()))
    document: dict[str, Any] = {
        "format": FORMAT,
        "task": some.task,
        "class_names": list(some.class_names),
        **({"top_k": some.top_k} if isinstance(some, SplitEvaluation) else {}),
        "views": list(config.views),
        "bootstrap": asdict(some.bootstrap),
        "splits": {name: split_document(split) for name, split in evaluations.items()},
        "gaps": gap_documents({name: split.figures for name, split in evaluations.items()}),
    }
    if "test" in evaluations and (resolution := _resolution(evaluations["test"])) is not None:
        document["resolution"] = resolution
    document["verdict"] = _verdict(evaluations, document.get("resolution", {}))
    if "test" in evaluations:
        document["requirements"] = [_requirement_document(document, bar) for bar in config.require]
    return document


def failed_requirements(document: Mapping[str, Any], require: Iterable[Requirement]) -> tuple[str, ...]:
    """Return a message for each bar that the test misses, saying by how much.

    Args:
        document: Content of evaluation.json.
        require: The bars of ``evaluate.require``.
    """
    messages = (_shortfall(document, bar) for bar in require)
    return tuple(message for message in messages if message)


def _shortfall(document: Mapping[str, Any], bar: Requirement) -> str:
    """Return by how much the test misses a bar; empty where it reaches it."""
    figure = _tested_figure(document, bar.metric)
    kind, needed = ("lower bound", bar.lower_bound) if bar.value is None else ("value", bar.value)
    found = figure.get("low" if bar.value is None else "value")
    if needed is None or (found is not None and found >= needed):
        return ""
    if found is None:
        reason = figure.get("reason") or "nothing was tested"
        return f"test {bar.metric} has no {kind} ({reason}); required is {needed:g}"
    return f"test {bar.metric}: its {kind} {found:.4f} is {needed - found:.4f} below the required {needed:g}"


def _tested_figure(document: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    figure: Mapping[str, Any] = document["splits"].get("test", {}).get("figures", {}).get(metric, {})
    return figure


def _requirement_document(document: Mapping[str, Any], bar: Requirement) -> dict[str, Any]:
    found = _tested_figure(document, bar.metric).get("low" if bar.value is None else "value")
    message = _shortfall(document, bar)
    return {**bar.model_dump(mode="json"), "found": found, "met": not message, "message": message}


def _resolution(test: Evaluation) -> dict[str, Any] | None:
    right = test.figures.get("subset_accuracy" if test.task == "multi_label" else "accuracy")
    if right is None:
        return None
    return resolution_document(right, test.pictures, confidence=test.bootstrap.confidence)


def _verdict(evaluations: Mapping[str, Evaluation], resolution: Mapping[str, Any]) -> dict[str, str] | None:
    """Judge by accuracy, for multi_label by F1, for regression by R squared."""
    some = next(iter(evaluations.values()))
    measure: Measure = {"multi_label": "f1", "regression": "r2"}.get(some.task, "accuracy")  # type: ignore[assignment]
    return judge(
        {name: split.figures[measure] for name, split in evaluations.items()},
        {name: split.pictures for name, split in evaluations.items()},
        baseline=evaluations["train"].baseline if "train" in evaluations else 0.0,
        confidence=some.bootstrap.confidence,
        measure=measure,
        resolution=str(resolution["text"]) if resolution.get("least_difference", 0.0) > _NOTICED else "",
    )


def split_document(split: Evaluation) -> dict[str, Any]:
    """Return the figures of one split as JSON values, as `evaluation_document` has them in ``splits``."""
    document: dict[str, Any] = {
        "pictures": split.pictures,
        "left_out": split.left_out,
        "groups": split.groups,
        "figures": {name: figure.to_dict() for name, figure in split.figures.items()},
    }
    if isinstance(split, SplitEvaluation):
        document["averages"] = {name: dict(values) for name, values in split.averages.items()}
    if not isinstance(split, ValueEvaluation):
        document["per_class"] = [_class_document(found) for found in split.classes]
    if isinstance(split, SplitEvaluation):
        document["confusion_matrix"] = split.confusion.tolist()
    return {**document, "notes": list(split.notes)}


def _class_document(found: ClassEvaluation) -> dict[str, Any]:
    figures = {name: figure.to_dict() for name, figure in found.figures.items()}
    counts: dict[str, Any] = {"pictures": found.pictures, "predicted": found.predicted, "right": found.right}
    if found.threshold is not None:
        counts["threshold"] = found.threshold
    return {"class": found.name, **counts, "figures": figures}
