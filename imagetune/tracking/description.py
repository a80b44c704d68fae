"""Description of a run, at the top of its page in MLflow: what a reviewer wants to know first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagetune.core.text import escape_markdown, format_code
from imagetune.recipe.metrics import METRICS, fill_in
from imagetune.tracking.content import Estimate, ImageSet

# What some report shows first. A description is read at a glance; the other metrics have charts of their own.
_SHOWN = tuple(name for name, metric in METRICS.items() if metric.cards)
_MAX_FOLD_METRICS = 3
_SPLITS = (("train", "training"), ("val", "validation"), ("test", "test"))


def describe_run(
    recipe: Mapping[str, Any],
    status: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    metrics: list[Estimate],
    images: ImageSet | None,
) -> str:
    """Return a run's description as Markdown: state, test metrics with intervals, verdict, model, stages and images.

    Args:
        recipe: The resolved recipe's values; empty where they say nothing of the run, as for a search.
        status: Content of status.json.
        evaluation: Content of evaluation.json; empty before the test.
        metrics: From `test_metrics`.
        images: The image set; None before there are splits.
    """
    parts = [
        _state(status),
        _table(metrics, evaluation),
        _missed(evaluation),
        _folds(evaluation),
        _verdict(evaluation),
        _model_and_images(recipe, images),
        "The full report is the artifact `report.html`." if status.get("state") == "finished" else "",
    ]
    return "\n\n".join(part for part in parts if part)


def read_verdict_title(evaluation: Mapping[str, Any]) -> str:
    """Return the title of the verdict on training and test metrics; empty without one."""
    verdict = evaluation.get("verdict") or {}
    return str(verdict.get("title") or "")


def _state(status: Mapping[str, Any]) -> str:
    state = status.get("state")
    if state == "failed":
        return f"**The run failed:** {escape_markdown(str(status.get('error') or 'see debug.log in the run folder'))}"
    # A search has no stage, nor has a run that was stopped before its first step.
    if state == "killed" and not status.get("stage"):
        return "**The run was stopped.**"
    if state == "killed":
        return f"**The run was stopped** in stage {format_code(str(status.get('stage')))}, epoch {status.get('epoch')}."
    return ""


def _table(metrics: list[Estimate], evaluation: Mapping[str, Any]) -> str:
    shown = [metric for metric in metrics if metric.name in _SHOWN]
    if not shown:
        return ""
    confidence = (evaluation.get("bootstrap") or {}).get("confidence", 0.95)
    rows = [f"| {_name(metric.name, evaluation)} | **{metric.value:.3f}** | {_interval(metric)} |" for metric in shown]
    return "\n".join(
        [f"| metric on the test images | value | {confidence:.0%} confidence interval |", "| --- | --- | --- |", *rows]
    )


def _name(metric: str, evaluation: Mapping[str, Any]) -> str:
    return fill_in(METRICS[metric].in_words, k=evaluation.get("top_k", "k"))


def _interval(metric: Estimate) -> str:
    return "" if metric.low is None else f"{metric.low:.3f} to {metric.high:.3f}"


def _missed(evaluation: Mapping[str, Any]) -> str:
    missed = [requirement for requirement in evaluation.get("requirements") or () if not requirement.get("met")]
    return "\n".join(
        f"**Requirement missed:** {escape_markdown(str(requirement.get('message')))}" for requirement in missed
    )


def _folds(evaluation: Mapping[str, Any]) -> str:
    """Return the cross-validated mean and interval of the table's first metrics."""
    folds = evaluation.get("folds") or {}
    spread = {name: entry for name, entry in (folds.get("metrics") or {}).items() if name in _SHOWN}
    shown = [
        f"{_name(name, evaluation)} **{entry['mean']:.3f}** ({entry['low']:.3f} to {entry['high']:.3f})"
        for name, entry in list(spread.items())[:_MAX_FOLD_METRICS]
    ]
    return f"Cross-validation over {folds['count']} folds, mean and interval: {', '.join(shown)}" if shown else ""


def _verdict(evaluation: Mapping[str, Any]) -> str:
    title, verdict = read_verdict_title(evaluation), evaluation.get("verdict") or {}
    said = escape_markdown(f"{verdict.get('text', '')} {verdict.get('advice', '')}")
    return f"**{escape_markdown(title)}.** {said}" if title else ""


def _model_and_images(recipe: Mapping[str, Any], images: ImageSet | None) -> str:
    model = recipe.get("model") or {}
    lines = []
    if model.get("backbone"):
        backbone, weights = escape_markdown(str(model["backbone"])), escape_markdown(str(model.get("weights")))
        lines.append(f"- Model: **{backbone}**, weights {weights}")
    stages = (recipe.get("train") or {}).get("stages") or []
    lines += [
        f"- Stage {escape_markdown(str(stage.get('name')))}: unfreeze {_plain(stage.get('unfreeze'))}, "
        f"{escape_markdown(_describe_steps(stage))}"
        for stage in stages
        if isinstance(stage, Mapping)
    ]
    if images:
        counts = ", ".join(f"{images.counts[key]} {name}" for key, name in _SPLITS if images.counts.get(key))
        classes = f", {images.classes} classes" if images.classes else ""
        lines.append(f"- Images: {escape_markdown(images.name)}{classes}; {counts}")
    return "\n".join(lines)


def _describe_steps(stage: Mapping[str, Any]) -> str:
    if stage.get("solve") is True:
        return "the head solved by L-BFGS"
    return f"at most {stage.get('epochs')} epochs, learning rate {stage.get('learning_rate')}"


def _plain(value: Any) -> str:
    return escape_markdown(", ".join(str(item) for item in value) if isinstance(value, list) else str(value))
