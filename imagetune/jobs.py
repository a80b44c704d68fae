"""A recipe's training made ready: the model with its weights, the teacher, and the job that runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras

from imagetune.data.targets import ValueScale, value_scale
from imagetune.model.backbones import get_backbone
from imagetune.model.build import build_model, value_scale_of
from imagetune.model.manifest import load_model
from imagetune.model.weights import WeightsReport, load_weights
from imagetune.recipe.schema import Recipe
from imagetune.run_folder import open_run_folder
from imagetune.tracking.resolve import is_mlflow_uri, resolve_run
from imagetune.training.batch_size import Load, fitting_batch_size
from imagetune.training.events import Listener
from imagetune.training.job import Pictures, TrainingJob
from imagetune.training.stages import check_stages
from imagetune.training.stopping import StopRequest
from imagetune.training.teacher import Teacher, make_teacher

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
        config = config.model_copy(update={"weights": str(_local(config.weights, recipe))})
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


def training_job(
    recipe: Recipe, pictures: Pictures, model: keras.Model, *, folder: Path, listener: Listener, stop: StopRequest
) -> TrainingJob:
    """Return the training that a recipe describes.

    Args:
        recipe: The resolved recipe.
        pictures: What training may see.
        model: From ``build_pretrained``.
        folder: Where checkpoints go.
        listener: Hears of progress.
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
        folder=folder,
        seed=recipe.seed,
        listener=listener,
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
    folder = open_run_folder(_local(config.run, recipe))
    return make_teacher(load_model(folder.model), class_names, config.temperature)


def _local(run: str, recipe: Recipe) -> Path:
    return resolve_run(run, uri=recipe.tracking.uri) if is_mlflow_uri(run) else Path(run)
