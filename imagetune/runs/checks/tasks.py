"""Checks of a recipe against its task: losses, metrics, and settings that need classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from imagetune.core.text import format_list
from imagetune.errors import RecipeError
from imagetune.recipe.document import NodePath
from imagetune.recipe.loading import LoadedRecipe
from imagetune.recipe.metrics import list_epoch_metrics, list_test_metrics
from imagetune.recipe.problems import format_path, suggest_known_word
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.learning import LOSS_NAMES
from imagetune.recipe.tasks import Task

LOSSES: Mapping[Task, tuple[str, ...]] = {
    "single_label": ("cross_entropy", "focal"),
    "multi_label": ("cross_entropy", "focal"),
    "ordinal": ("squared_emd", "cross_entropy"),
    "regression": ("huber", "mse", "mae"),
}
_NO_CLASSES = ("multi_label", "regression")


def find_task_errors(loaded: LoadedRecipe) -> list[RecipeError]:
    """Return the mistakes in settings that don't fit ``data.task``, each with its place in the file."""
    return [
        *_loss_errors(loaded),
        *_setting_errors(loaded),
        *_watched_errors(loaded),
        *_required_errors(loaded),
        *_decision_errors(loaded),
    ]


def check_classes(recipe: Recipe, class_names: Sequence[str]) -> None:
    """Check the settings that name classes against the classes that the images have.

    Args:
        recipe: The resolved recipe.
        class_names: The class of each of the model's outputs.

    Raises:
        RecipeError: ``evaluate.costs`` or ``evaluate.operating_point`` doesn't fit them.
    """
    errors = [
        RecipeError(what, where=format_path(path), hint=hint) for path, what, hint in _misfits(recipe, class_names)
    ]
    if errors:
        raise errors[0].with_also(tuple(errors[1:]))


def _loss_errors(loaded: LoadedRecipe) -> Iterator[RecipeError]:
    task, loss = loaded.recipe.data.task, loaded.recipe.train.loss.name
    # The loss of a plug-in declares its tasks itself.
    if loss != "auto" and loss in LOSS_NAMES and loss not in LOSSES[task]:
        what = f"the loss {loss} is not for {task}"
        yield loaded.error(("train", "loss"), what, hint=f"use {' or '.join(LOSSES[task])}, or leave it out")


def _setting_errors(loaded: LoadedRecipe) -> Iterator[RecipeError]:
    task, train = loaded.recipe.data.task, loaded.recipe.train
    if task in _NO_CLASSES:
        asked: dict[NodePath, bool] = {
            ("train", "class_weights"): train.class_weights != "none",
            ("train", "sampling"): train.sampling != "natural",
            ("train", "loss", "logit_adjustment"): train.loss.logit_adjustment > 0,
            ("train", "teacher"): train.teacher is not None,
        }
        for path, set_ in asked.items():
            if set_:
                yield loaded.error(path, f"needs one class an image; the task is {task}", hint="leave it out")
    if task == "ordinal" and train.loss.logit_adjustment > 0 and train.loss.name != "cross_entropy":
        hint = "set train.loss to cross_entropy, or leave it out"
        yield loaded.error(("train", "loss", "logit_adjustment"), "is made for cross_entropy", hint=hint)
    if task == "regression" and train.label_smoothing:
        yield loaded.error(("train", "label_smoothing"), "has no meaning for numbers", hint="leave it out")
    if task == "regression" and loaded.recipe.data.classes is not None:
        yield loaded.error(("data", "classes"), "regression has no classes", hint="leave it out")


def _watched_errors(loaded: LoadedRecipe) -> Iterator[RecipeError]:
    recipe = loaded.recipe
    task = recipe.data.task
    watched: dict[NodePath, str] = {("train", "early_stopping", "metric"): recipe.train.early_stopping.metric}
    for index, stage in enumerate(recipe.train.stages):
        if stage.early_stopping is not None:
            watched["train", "stages", index, "early_stopping", "metric"] = stage.early_stopping.metric
    # Without spaces the recipe is no search, and its default objective need not fit the task.
    if loaded.spaces:
        watched["search", "objective"] = recipe.search.objective
    for path, metric in watched.items():
        if metric not in list_epoch_metrics(task):
            what = f"{task} has no {metric}"
            yield loaded.error(path, what, hint=f"use {', '.join(list_epoch_metrics(task))}")


def _required_errors(loaded: LoadedRecipe) -> Iterator[RecipeError]:
    task = loaded.recipe.data.task
    for index, requirement in enumerate(loaded.recipe.evaluate.require):
        if requirement.metric not in list_test_metrics(task):
            hint = suggest_known_word(requirement.metric, list_test_metrics(task))
            yield loaded.error(
                ("evaluate", "require", index, "metric"), f"{task} has no {requirement.metric}", hint=hint
            )


def _decision_errors(loaded: LoadedRecipe) -> Iterator[RecipeError]:
    """Yield the mistakes in costs and operating point; against the classes only where the recipe names them."""
    recipe = loaded.recipe
    task, evaluate = recipe.data.task, recipe.evaluate
    if evaluate.costs is not None and task in _NO_CLASSES:
        what = f"needs one class an image; the task is {task}"
        yield loaded.error(("evaluate", "costs"), what, hint="leave it out")
    elif evaluate.costs is not None and (rough := _rough_rows(evaluate.costs)):
        yield loaded.error(
            ("evaluate", "costs"), rough, hint="give a row for each true class, with a cost for each prediction"
        )
    if evaluate.operating_point is not None and task == "regression":
        yield loaded.error(("evaluate", "operating_point"), "regression has no classes", hint="leave it out")
    elif recipe.data.classes is not None and task != "regression":
        yield from (loaded.error(path, what, hint=hint) for path, what, hint in _misfits(recipe, recipe.data.classes))


def _rough_rows(costs: Sequence[Sequence[float]]) -> str:
    """Return why a cost matrix is not square; empty where it is."""
    lengths = sorted({len(row) for row in costs})
    if lengths == [len(costs)] and len(costs) > 1:
        return ""
    return f"is no square table: {len(costs)} rows of {' or '.join(map(str, lengths)) or 'no'} costs"


def _misfits(recipe: Recipe, class_names: Sequence[str]) -> Iterator[tuple[NodePath, str, str]]:
    """Yield path, message and hint for a cost matrix and an operating point that don't fit the classes."""
    costs, point = recipe.evaluate.costs, recipe.evaluate.operating_point
    # A table that isn't square has its own message.
    if costs is not None and not _rough_rows(costs) and len(costs) != len(class_names):
        what = f"is a table of {len(costs)} x {len(costs)} for {len(class_names)} classes"
        yield ("evaluate", "costs"), what, f"the classes are, in order: {format_list(class_names)}"
    if point is not None and point.positive not in class_names:
        path: NodePath = ("evaluate", "operating_point", "positive")
        yield path, f"there is no class {point.positive!r}", suggest_known_word(point.positive, class_names)
