"""Results as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from imagetune.core.text import format_count, format_duration, format_list

if TYPE_CHECKING:
    from imagetune.recipe.schema import Recipe
    from imagetune.training.plan import StagePlan


def evaluation_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the headline figures of the test split with their intervals, and the verdict."""
    test = document.get("splits", {}).get("test")
    if test is None:
        return
    yield f"test        {format_count(test['pictures'], 'picture')}"
    if unusable := document.get("unusable"):
        told = format_list((f"{path} ({why})" for path, why in unusable.items()), most=3)
        yield f"left out    {format_count(len(unusable), 'picture')} that can't be used: {told}"
    yield from _answer_lines(document)
    # Numbers have units, so that three decimals may be too few or too many.
    style = ".4g" if document.get("task") == "regression" else ".3f"
    width = max(18, *map(len, test["figures"]))
    for name, figure in test["figures"].items():
        if figure["value"] is not None:
            interval = f"  [{figure['low']:{style}}, {figure['high']:{style}}]" if figure["low"] is not None else ""
            yield f"  {name.replace('_', ' '):<{width}} {figure['value']:{style}}{interval}"
    for bar in document.get("requirements", []):
        if bar["met"]:
            kind = next(kind for kind in ("lower_bound", "upper_bound", "value") if bar.get(kind) is not None)
            name, told = bar["metric"].replace("_", " "), f"{bar['found']:.4f} reaches {bar[kind]:g}"
            yield f"required    {name}: {kind.replace('_', ' ')} {told}"
    verdict = document.get("verdict")
    if verdict:
        yield f"verdict     {verdict['text']}"
    yield from _fold_lines(document.get("folds"), style)


def _fold_lines(folds: Mapping[str, Any] | None, style: str) -> Iterator[str]:
    """Yield what cross-validation says: the mean of the folds, its corrected interval, and their spread."""
    if folds is None:
        return
    yield f"folds       {folds['count']}, {folds['pictures']} pictures, each answered by a model that hasn't seen it"
    for name, figure in folds["figures"].items():
        told = f"{figure['mean']:{style}}  [{figure['low']:{style}}, {figure['high']:{style}}]"
        yield f"  {name.replace('_', ' '):<18} {told}  {figure['least']:{style}} to {figure['most']:{style}} by fold"


def _answer_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an answer is the mean of, where it is one: views of the picture, or several runs."""
    for member in document.get("members", []):
        yield f"member      {member['run']}" + (f", views {', '.join(member['views'])}" if member["views"] else "")
    if document.get("views") and not document.get("members"):
        yield f"views       {', '.join(document['views'])}"


def plan_lines(recipe: Recipe, plans: list[StagePlan]) -> Iterator[str]:
    """Yield what a fit would do and cost."""
    from imagetune.training.plan import peak_memory_bytes

    for number, plan in enumerate(plans, 1):
        stage = plan.stage
        yield (
            f"stage {number}/{len(plans)}   {stage.name}: unfreeze {stage.unfreeze}, "
            f"{format_count(stage.epochs, 'epoch')} of {format_count(plan.steps_per_epoch, 'step')}, "
            f"{plan.trainable_parameters:,} of {plan.parameters:,} parameters learn"
        )
        for group, rate in plan.rates.items():
            measured = f"auto x {rate:.3g}" if rate < 1.0 else "auto"
            shown = measured if stage.learning_rate == "auto" else f"{rate:.3g}"
            yield f"  {group:<18} learning rate {shown} ({stage.schedule.name})"
        yield f"  features           {plan.features}"
        once = f", {format_duration(plan.features_seconds)} of it for features" if plan.features_seconds else ""
        yield f"  about {format_duration(plan.seconds)}, {format_duration(plan.epoch_seconds)} an epoch{once}"
    in_all = format_duration(sum(plan.seconds for plan in plans))
    yield f"in all      about {in_all} of training, reading and validation not counted"
    if recipe.evaluate.folds is not None:
        yield f"folds       {recipe.evaluate.folds} more trainings of about the same length"
    peak = peak_memory_bytes() / 2**30
    yield f"memory      {peak:.1f} GiB at batch size {recipe.train.batch_size}, workers not counted"
    yield "dry run     nothing was written"
