"""Checks of a recipe's stages and of ``model.drop_path`` against its backbone, without importing Keras."""

from __future__ import annotations

from collections.abc import Iterator

from imagetune.data.loading.augmentation import find_augmentation_problems
from imagetune.errors import RecipeError
from imagetune.model.backbones.table import Backbone, find_size_problem, get_backbone
from imagetune.recipe.document import NodePath
from imagetune.recipe.loading import LoadedRecipe
from imagetune.recipe.sections.train import StageConfig
from imagetune.recipe.solving import find_solver_obstacle

# Prefixes of the backbones whose blocks have a place for stochastic depth.
_DROP_PATH_PREFIXES = ("efficientnet", "convnext", "deit", "vit", "dinov2")


def find_stage_errors(loaded: LoadedRecipe) -> list[RecipeError]:
    """Return the mistakes in the stages and in ``model.drop_path``, each with its place in the file."""
    backbone = get_backbone(loaded.recipe.model.backbone)
    errors = [*_drop_path_errors(loaded, backbone)]
    for index, stage in enumerate(loaded.recipe.train.stages):
        at: NodePath = ("train", "stages", index)
        errors += [*_size_errors(loaded, stage, at, backbone), *_augmentation_errors(loaded, stage, at)]
        errors += _solve_errors(loaded, stage, at)
    return errors


def _drop_path_errors(loaded: LoadedRecipe, backbone: Backbone) -> Iterator[RecipeError]:
    if loaded.recipe.model.drop_path is not None and not backbone.name.startswith(_DROP_PATH_PREFIXES):
        what = f"{backbone.name} has no stochastic depth"
        hint = "EfficientNets, ConvNeXts and vision transformers have it; leave it out here"
        yield loaded.error(("model", "drop_path"), what, hint=hint)


def _size_errors(loaded: LoadedRecipe, stage: StageConfig, at: NodePath, backbone: Backbone) -> Iterator[RecipeError]:
    if stage.image_size is None:
        return
    place = (*at, "image_size")
    sides = (stage.image_size,) if isinstance(stage.image_size, int) else stage.image_size
    if problem := find_size_problem(backbone, sides):
        yield loaded.error(place, problem[0], hint=problem[1])
    if loaded.recipe.model.head.pooling == "flatten":
        what = "a head with pooling: flatten fits one image size only"
        yield loaded.error(place, what, hint="use pooling: avg or max, or leave the stage's image_size out")


def _solve_errors(loaded: LoadedRecipe, stage: StageConfig, at: NodePath) -> Iterator[RecipeError]:
    recipe = loaded.recipe
    if stage.solve is not True:
        return
    if obstacle := find_solver_obstacle(recipe.train, stage, recipe.model.head, recipe.data.task):
        hint = "set it to false and give epochs and learning_rate, or to auto"
        yield loaded.error((*at, "solve"), f"the head can't be solved: {obstacle}", hint=hint)


def _augmentation_errors(loaded: LoadedRecipe, stage: StageConfig, at: NodePath) -> Iterator[RecipeError]:
    data = loaded.recipe.data
    own = stage.image_size is not None
    # Then it is the recipe's augmentation at the recipe's size, which is checked already.
    if stage.augmentation is None and not own:
        return
    image = data.model_copy(update={"image_size": stage.image_size}).image if own else data.image
    augmentation = data.augmentation if stage.augmentation is None else stage.augmentation
    place = (*at, "image_size") if stage.augmentation is None else (*at, "augmentation")
    for problem in find_augmentation_problems(augmentation, size=(image.height, image.width)):
        where = () if stage.augmentation is None else problem.where
        yield loaded.error((*place, *where), problem.what)
