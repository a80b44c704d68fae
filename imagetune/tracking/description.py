"""The text at the top of a run's page in MLflow: what a reviewer wants to know first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagetune.recipe.metrics import METRICS
from imagetune.tracking.content import Estimate, ImageSet

# Those that some report shows first; the others are among the metrics.
_SHOWN = tuple(name for name, metric in METRICS.items() if metric.cards)
_MAX_FOLD_SHARE = 3
_SPLITS = (("train", "training"), ("val", "validation"), ("test", "test"))


def run_description(
    recipe: Mapping[str, Any],
    status: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    metrics: list[Estimate],
    images: ImageSet | None,
) -> str:
    """Return Markdown: state, test metrics with intervals, the verdict, model, stages and images."""
    parts = [
        _state(status),
        _table(metrics, evaluation),
        _missed(evaluation),
        _folds(evaluation),
        _verdict(evaluation),
        _facts(recipe, images),
        "The whole report is among the artifacts: `report.html`." if status.get("state") == "finished" else "",
    ]
    return "\n\n".join(part for part in parts if part)


def verdict_title(evaluation: Mapping[str, Any]) -> str:
    """Return the verdict in a few words; empty without one."""
    verdict = evaluation.get("verdict") or {}
    return str(verdict.get("title") or "")


def _state(status: Mapping[str, Any]) -> str:
    state = status.get("state")
    if state == "failed":
        return f"**Failed:** {status.get('error') or 'see debug.log in the run folder'}"
    if state == "killed" and not status.get("stage"):
        return "**Stopped.**"
    if state == "killed":
        return f"**Stopped** in stage {status.get('stage')}, epoch {status.get('epoch')}."
    return ""


def _table(metrics: list[Estimate], evaluation: Mapping[str, Any]) -> str:
    shown = [metric for metric in metrics if metric.name in _SHOWN]
    if not shown:
        return ""
    confidence = (evaluation.get("bootstrap") or {}).get("confidence", 0.95)
    rows = [f"| {_name(metric.name, evaluation)} | **{metric.value:.3f}** | {_interval(metric)} |" for metric in shown]
    return "\n".join([f"| on the test images | value | {confidence:.0%} interval |", "| --- | --- | --- |", *rows])


def _name(metric: str, evaluation: Mapping[str, Any]) -> str:
    return METRICS[metric].in_words.format(k=evaluation.get("top_k", "k"))


def _interval(metric: Estimate) -> str:
    return "" if metric.low is None else f"{metric.low:.3f} to {metric.high:.3f}"


def _missed(evaluation: Mapping[str, Any]) -> str:
    missed = [requirement for requirement in evaluation.get("requirements") or () if not requirement.get("met")]
    return "\n".join(f"**Requirement missed:** {requirement.get('message')}" for requirement in missed)


def _folds(evaluation: Mapping[str, Any]) -> str:
    """Return what cross-validation found, of the metrics that stand in the table's first rows."""
    folds = evaluation.get("folds") or {}
    spread = {name: entry for name, entry in (folds.get("metrics") or {}).items() if name in _SHOWN}
    told = [
        f"{_name(name, evaluation)} **{entry['mean']:.3f}** ({entry['low']:.3f} to {entry['high']:.3f})"
        for name, entry in list(spread.items())[:_MAX_FOLD_SHARE]
    ]
    return f"Cross-validation, {folds['count']} folds: {', '.join(told)}" if told else ""


def _verdict(evaluation: Mapping[str, Any]) -> str:
    title, verdict = verdict_title(evaluation), evaluation.get("verdict") or {}
    return f"**{title}.** {verdict.get('text', '')} {verdict.get('advice', '')}" if title else ""


def _facts(recipe: Mapping[str, Any], images: ImageSet | None) -> str:
    model = recipe.get("model") or {}
    lines = []
    if model.get("backbone"):
        lines.append(f"- model: **{model['backbone']}**, weights {model.get('weights')}")
    stages = (recipe.get("train") or {}).get("stages") or []
    lines += [
        f"- stage {stage.get('name')}: unfreeze {_plain(stage.get('unfreeze'))}, "
        f"{stage.get('epochs')} epochs at most, learning rate {stage.get('learning_rate')}"
        for stage in stages
        if isinstance(stage, Mapping)
    ]
    if images:
        counts = ", ".join(f"{images.counts[key]} {name}" for key, name in _SPLITS if images.counts.get(key))
        classes = f", {images.classes} classes" if images.classes else ""
        lines.append(f"- images: {images.name}{classes}; {counts}")
    return "\n".join(lines)


def _plain(value: Any) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
