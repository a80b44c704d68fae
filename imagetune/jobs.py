"""A recipe's training made ready: the model with its weights, the teacher, and the job that runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np

from imagetune.data.holdout import open_holdout
from imagetune.data.splits import Splits
from imagetune.data.targets import ValueScale, value_scale
from imagetune.errors import DataError
from imagetune.finished import find_run
from imagetune.members import open_members, seen_pictures
from imagetune.model.backbones import get_backbone
from imagetune.model.build import build_model, value_scale_of
from imagetune.model.devices import find_device
from imagetune.model.manifest import load_model
from imagetune.model.weights import WeightsReport, load_weights
from imagetune.recipe.schema import Recipe
from imagetune.tracking.resolve import is_mlflow_uri, resolve_run
from imagetune.training.batch_size import Load, fitting_batch_size
from imagetune.training.events import SilentListener
from imagetune.training.features import keeps_features
from imagetune.training.job import Pictures, TrainingJob
from imagetune.training.stages import check_stages
from imagetune.training.stopping import StopRequest
from imagetune.training.teacher import Teacher, make_teacher
from imagetune.training.timing import time_calls
from imagetune.training.workers import choose_workers, count_reads, measure_loading_speeds

Say = Callable[[str], None]


def build_pretrained(recipe: Recipe, pictures: Pictures, *, say: Say) -> tuple[keras.Model, WeightsReport]:
    """Build the recipe's model for these pictures and load its backbone's weights, everything seeded."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy(recipe.train.precision)
    image, config = recipe.data.image, recipe.model
    scale = value_scale(pictures.train_labels) if recipe.data.task == "regression" else None
    model = _build(recipe, pictures.class_names, (image.height, image.width), scale)
    check_stages(model, get_backbone(config.backbone), recipe.train.stages)
    if is_mlflow_uri(config.weights):
        local = resolve_run(config.weights, uri=recipe.tracking.uri)
        config = config.model_copy(update={"weights": str(local)})
    report = load_weights(model, config)
    say(f"model       {report.note}")
    return model, report


def settle_batch_size(recipe: Recipe, pictures: Pictures, *, say: Say) -> Recipe:
    """Return the recipe with a number for ``train.batch_size: auto``: the largest that fits in memory.

    To be called before this process uses a GPU: the trials need its memory.

    Raises:
        ResourceError: Not even one picture at a time fits.
    """
    if recipe.train.batch_size != "auto":
        return recipe
    load = Load(model=recipe.model, train=recipe.train, data=recipe.data, outputs=len(pictures.class_names))
    return recipe.model_copy(update={"train": fitting_batch_size(load, say=say)})


def settle_workers(
    recipe: Recipe, pictures: Pictures, model: keras.Model, *, say: Say, one_of_many: bool = False
) -> Recipe:
    """Return the recipe with a number for ``data.workers: auto``, chosen by loading a few pictures.

    Which pixels a model learns from doesn't depend on it.

    Args:
        recipe: Its batch size is a number.
        pictures: What training may see.
        model: The recipe's, for how fast it is where the choice depends on that; its weights stay as they are.
        say: Prints a line for the user.
        one_of_many: Whether other trainings of the same pictures leave their features behind. Then only the first
            training of a head loads pictures at all, and measuring how would take longer than most of the others.

    Raises:
        BadPictureError: A picture vanished.
    """
    data = recipe.data
    if data.workers != "auto":
        return recipe
    if one_of_many and keeps_features(recipe.train):
        return recipe.model_copy(update={"data": data.model_copy(update={"workers": 0})})

    def step() -> float:
        images = np.zeros((recipe.train.pass_size, data.image.height, data.image.width, 3), np.uint8)
        return time_calls(lambda: model.predict_on_batch(images), len(images))[0].least

    choice = choose_workers(
        measure_loading_speeds(pictures.train, data, data.augmentation),
        count_reads(recipe.train, data, len(pictures.train)),
        shared=find_device().is_cpu,
        step=step,
    )
    say(f"workers     {choice.workers}: {choice.reason}")
    return recipe.model_copy(update={"data": data.model_copy(update={"workers": choice.workers})})


def refuse_inherited_leaks(recipe: Recipe, splits: Splits, hashes: Mapping[str, str], *, say: Say) -> None:
    """Make sure that no run which this one learns from has learned from the pictures that this one is tested on.

    Args:
        recipe: Its teacher and its starting weights may be runs; ``data.audit.on_leak`` says what a leak means.
        splits: Its pictures; the test split is opened only to be compared.
        hashes: Their SHA-256 by path, as far as known.
        say: Prints a line for the user.

    Raises:
        DataError: One has.
    """
    if recipe.data.audit.on_leak == "ignore":
        return
    for where, run in _ancestors(recipe).items():
        tested = open_holdout(splits)
        (ancestor,) = open_members([str(find_run(run, uri=recipe.tracking.uri).path)])
        if not ancestor.folder.splits.is_file():
            say(f"warning     {where}: {run} doesn't say which pictures it has learned from")
        elif seen := seen_pictures(ancestor, tested, hashes):
            what = f"{run} has learned from {seen} of this run's {len(tested)} test pictures"
            if recipe.data.audit.on_leak == "error":
                hint = "use the same split as that run (the same seed, or data.split: {method: hash} for both)"
                raise DataError(what, where=where, hint=f"{hint}, or set data.audit.on_leak: warn")
            say(f"warning     {where}: {what}: the test flatters")


def training_job(recipe: Recipe, pictures: Pictures, model: keras.Model, *, stop: StopRequest) -> TrainingJob:
    """Return the training that a recipe describes, without a folder for its checkpoints and with nobody listening.

    Args:
        recipe: The resolved recipe.
        pictures: What training may see.
        model: From ``build_pretrained``.
        stop: Asked after every step.

    Raises:
        RecipeError: The teacher has other classes.
        ModelFileError: The teacher can't be loaded.
    """
    return TrainingJob(
        model=model,
        backbone=get_backbone(recipe.model.backbone),
        config=recipe.train,
        pictures=pictures,
        folder=Path(),
        seed=recipe.seed,
        listener=SilentListener(),
        stop=stop,
        rebuild=lambda size: _build(recipe, pictures.class_names, size, value_scale_of(model)),
        teacher=_teacher(recipe, pictures.class_names),
    )


def _build(
    recipe: Recipe, class_names: tuple[str, ...], size: tuple[int, int], scale: ValueScale | None
) -> keras.Model:
    return build_model(recipe.model, num_classes=len(class_names), image_size=size, task=recipe.data.task, scale=scale)


def _teacher(recipe: Recipe, class_names: tuple[str, ...]) -> Teacher | None:
    config = recipe.train.teacher
    if config is None:
        return None
    folder = find_run(config.run, uri=recipe.tracking.uri)
    return make_teacher(load_model(folder.model), class_names, config.temperature)


def _ancestors(recipe: Recipe) -> dict[str, str]:
    """Return the runs that this one learns from, by the key that names them."""
    teacher, weights = recipe.train.teacher, recipe.model.weights
    found = {"train.teacher": teacher.run} if teacher is not None else {}
    if is_mlflow_uri(weights) or Path(weights).is_dir():
        found["model.weights"] = weights
    return found
