"""The metrics of a test, and the plan of a dry run, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagetune.cli.render.lines import format_line
from imagetune.cli.render.tables import format_table
from imagetune.core import run_files
from imagetune.core.text import format_count, format_duration, format_list
from imagetune.recipe.metrics import METRICS, fill_in
from imagetune.run_folder.sizes import estimate_sizes

if TYPE_CHECKING:
    from imagetune.recipe.schema import Recipe
    from imagetune.training.measure.plan import StagePlan

# A requirement sets one of these: a bound of the confidence interval, or the value itself.
_BOUNDS = ("lower_bound", "upper_bound", "value")


def format_evaluation(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the headline metrics of the test split with their confidence intervals, and the verdict."""
    test = document.get("splits", {}).get("test")
    if test is None:
        return
    yield format_line("test", _describe_images(test))
    if unusable := document.get("unusable"):
        reasons = format_list((f"{path} ({why})" for path, why in unusable.items()), most=3)
        yield format_line("left out", f"{format_count(len(unusable), 'image')} that can't be used: {reasons}")
    yield from _seen_lines(document.get("seen"), test.get("per_class", []))
    yield from _averaged_lines(document)
    # The errors of a regression have its units, so that three decimals may be too few or too many.
    style = ".4g" if document.get("task") == "regression" else ".3f"
    known = {name: metric for name, metric in test["metrics"].items() if metric["value"] is not None}
    rows = [
        (_name(name, document), f"{metric['value']:{style}}", _interval(metric, style))
        for name, metric in known.items()
    ]
    yield from format_table(rows, align="<><")
    yield from (
        _requirement_line(requirement, document)
        for requirement in document.get("requirements", [])
        if requirement["met"]
    )
    if verdict := document.get("verdict"):
        yield format_line("verdict", verdict["text"])
    yield from _fold_lines(document, style)


def format_run(folder: Path) -> Iterator[str]:
    """Yield the path of a run's report, and the command that shows it among other runs."""
    yield format_line("report", str(folder / run_files.REPORT))
    yield format_line("review", "imagetune ui")


def format_use(folder: Path) -> str:
    """Return the command that predicts with a run."""
    return format_line("use", f"imagetune predict {folder} IMAGES...")


def _describe_images(test: Mapping[str, Any]) -> str:
    """Return how many images were tested, and how many independent groups intervals count where it makes a difference.

    An evaluation.json of before there were groups has no count of them.
    """
    groups = test.get("groups", 0)
    images = format_count(test["images"], "image")
    return f"{images} in {groups:,} groups (near-duplicates or given); intervals count groups" if groups else images


def _requirement_line(requirement: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    bound = next(bound for bound in _BOUNDS if requirement.get(bound) is not None)
    return format_line(
        "required",
        f"{_name(requirement['metric'], document)}: {bound.replace('_', ' ')} {requirement['found']:.4f} meets "
        f"the threshold {requirement[bound]:g}",
    )


def _fold_lines(document: Mapping[str, Any], style: str) -> Iterator[str]:
    """Yield the cross-validated metrics: the mean of the folds, its corrected confidence interval, and their range."""
    folds = document.get("folds")
    if folds is None:
        return
    yield format_line(
        "folds",
        f"{folds['count']} folds, {folds['images']} images, each predicted by a model that was not trained on it",
    )
    rows = [("", "mean", "interval", "folds from", "to")]
    for name, metric in folds["metrics"].items():
        ends = (f"{metric['min']:{style}}", f"{metric['max']:{style}}")
        rows.append((_name(name, document), f"{metric['mean']:{style}}", _interval(metric, style), *ends))
    yield from format_table(rows)


def _seen_lines(seen: Mapping[str, Any] | None, classes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield how many of the test images a run was trained or selected with, and what could not be checked."""
    if seen is None:
        return
    if seen["images"] != 0:
        many = "an unknown number" if seen["images"] is None else format_count(seen["images"], "image")
        near = f" ({seen['near_duplicates']} near-duplicates)" if seen["near_duplicates"] else ""
        yield format_line("seen", f"{many}{near} in training or validation: the metrics say nothing about new images")
    if left_out := seen.get("left_out"):
        near = f" ({left_out['near_duplicates']} near-duplicates)" if left_out["near_duplicates"] else ""
        many = format_count(left_out["images"], "image")
        yield format_line("left out", f"{many}{near} in training or validation; the metrics are of the others")
        # A class of which all images were left out is in no metric any more.
        if lacking := [found["class"] for found in classes if not found["images"]]:
            left = [f"{found['class']} ({found['images']})" for found in classes if found["images"]]
            yield format_line(
                "classes", f"{format_list(left, most=8)} are left; none of {format_list(lacking, most=8)}"
            )
    yield from (format_line("note", note) for note in seen["notes"])


def _averaged_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the runs or the test-time augmentation that each prediction is the mean of, if any."""
    members = document.get("members", [])
    for member in members:
        copies = f", test-time augmentation: {', '.join(member['tta'])}" if member["tta"] else ""
        yield format_line("member", f"{member['run']}{copies}")
    # Of an ensemble each member has its own augmentation, listed with it.
    if document.get("tta") and not members:
        yield format_line("tta", f"mean over test-time augmentations: {', '.join(document['tta'])}")


def _name(metric: str, document: Mapping[str, Any]) -> str:
    """Return what a metric is called on every screen and page."""
    return fill_in(METRICS[metric].in_words, k=document.get("top_k", "k"))


def _interval(metric: Mapping[str, Any], style: str) -> str:
    return f"[{metric['low']:{style}}, {metric['high']:{style}}]" if metric["low"] is not None else ""


def format_plan(recipe: Recipe, plans: list[StagePlan]) -> Iterator[str]:
    """Yield the stages of a training, with estimates of its time and memory."""
    # Imported here, as it imports Keras, which the output of other commands doesn't need.
    from imagetune.training.measure.plan import measure_peak_memory

    for number, plan in enumerate(plans, 1):
        yield from _stage_lines(plan, f"stage {number}/{len(plans)}")
    in_all = format_duration(sum(plan.seconds for plan in plans))
    yield format_line("in all", f"about {in_all} of training, without reading the data and validation")
    if recipe.evaluate.folds is not None:
        yield format_line("folds", f"{recipe.evaluate.folds} more trainings of about the same length")
    peak = measure_peak_memory() / 2**30
    yield format_line("memory", f"{peak:.1f} GiB at batch size {recipe.train.batch_size}, without the data workers")
    yield format_line("disk", _describe_disk(recipe, plans))
    yield format_line("dry run", "nothing was written")


def _describe_disk(recipe: Recipe, plans: list[StagePlan]) -> str:
    """Return what the run will take of the disk; each fold is a run of its own."""
    trained = (0 if plan.stage.solve is True else plan.trainable_parameters for plan in plans)
    sizes = estimate_sizes(plans[0].parameters, trained)
    runs = 1 + (recipe.evaluate.folds or 0)
    model, checkpoints = runs * sizes.model / 1e6, runs * sizes.checkpoints / 1e6
    return (
        f"about {model:,.0f} MB for the model, at most {checkpoints:,.0f} MB for checkpoints, "
        "which `imagetune runs prune` removes afterwards"
    )


def _stage_lines(plan: StagePlan, label: str) -> Iterator[str]:
    stage = plan.stage
    steps = f"{format_count(stage.epochs, 'epoch')} of {format_count(plan.steps_per_epoch, 'step')}"
    yield format_line(
        label,
        f"{stage.name}: unfreeze {stage.unfreeze}, {'solved by L-BFGS' if stage.solve is True else steps}, "
        f"{plan.trainable_parameters:,} of {plan.parameters:,} parameters are trainable",
    )
    rows = []
    for group, rate in () if stage.solve is True else plan.learning_rates.items():
        measured = f"auto x {rate:.3g}" if rate < 1.0 else "auto"
        shown = measured if stage.learning_rate == "auto" else f"{rate:.3g}"
        rows.append((group, f"learning rate {shown} ({stage.schedule.name})"))
    once = f", {format_duration(plan.features_seconds)} of it for features" if plan.features_seconds else ""
    rows.append(("features", plan.features))
    rows.append(
        ("time", f"about {format_duration(plan.seconds)}, {format_duration(plan.epoch_seconds)} an epoch{once}")
    )
    yield from format_table(rows, align="<<")
