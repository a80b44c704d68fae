"""Checks of a whole recipe: names of backbones, transforms and findings, its stages and its search spaces."""

from __future__ import annotations

from collections import Counter

from imagetune.core.text import suggest_name
from imagetune.data.findings import CODES
from imagetune.data.loading.augmentation import find_augmentation_problems
from imagetune.errors import RecipeError
from imagetune.model.backbones.table import find_size_problem, get_backbone
from imagetune.model.test_time_augmentation import find_unfit_tta
from imagetune.recipe.document import NodePath
from imagetune.recipe.loading import LoadedRecipe, Overrides, RecipeSource, load_recipe
from imagetune.recipe.schema import Recipe
from imagetune.runs.checks.spaces import find_space_errors
from imagetune.runs.checks.stages import find_stage_errors
from imagetune.runs.checks.tasks import find_task_errors

HED_BACKBONE = "vgg16"
_CODES_HINT = "`imagetune data check --codes` lists them"


def load_checked_recipe(source: RecipeSource, overrides: Overrides = ()) -> LoadedRecipe:
    """Return a recipe whose names are checked, as is every value of its search spaces.

    Args:
        source: The YAML file, or the same as a mapping.
        overrides: ``KEY=VALUE`` texts, or Python values by dotted key.

    Raises:
        RecipeError: All mistakes, each with its place in the file.
    """
    loaded = check_recipe(load_recipe(source, overrides))
    if errors := find_space_errors(loaded, check_recipe):
        raise errors[0].with_also(tuple(errors[1:]))
    return loaded


def check_recipe(loaded: LoadedRecipe) -> LoadedRecipe:
    """Return the same recipe if all names in it are known and fit each other.

    Args:
        loaded: A recipe as it was loaded, or with a trial's values in the place of its search spaces.

    Raises:
        RecipeError: All mistakes, each with its place in the file.
    """
    # All of them at once, not the first alone: a recipe is repaired in one go.
    errors = [*_backbone_errors(loaded), *_augmentation_errors(loaded), *_tta_errors(loaded), *find_task_errors(loaded)]
    errors += _audit_errors(loaded)
    # Without a backbone there are no blocks to check stages against.
    if not any(error.where.endswith("model.backbone") for error in errors):
        errors += find_stage_errors(loaded)
    if errors:
        raise errors[0].with_also(tuple(errors[1:]))
    return loaded


def _backbone_errors(loaded: LoadedRecipe) -> list[RecipeError]:
    recipe: Recipe = loaded.recipe
    try:
        backbone = get_backbone(recipe.model.backbone)
    except RecipeError as error:
        return [loaded.error(("model", "backbone"), error.what, hint=error.hint)]
    size = recipe.data.image
    if problem := find_size_problem(backbone, (size.height, size.width)):
        return [loaded.error(("data", "image_size"), problem[0], hint=problem[1])]
    if recipe.model.head.pooling == "token" and not backbone.has_class_token:
        what = f"token is for vision transformers, and {backbone.name} has no class token"
        return [loaded.error(("model", "head", "pooling"), what, hint="use avg or max")]
    if recipe.model.weights == "hed" and backbone.name != HED_BACKBONE:
        what = f"`hed` weights are for {HED_BACKBONE}, not {backbone.name}"
        return [loaded.error(("model", "weights"), what, hint="use imagenet, random or a file")]
    return []


def _augmentation_errors(loaded: LoadedRecipe) -> list[RecipeError]:
    at: NodePath = ("data", "augmentation")
    image = loaded.recipe.data.image
    problems = find_augmentation_problems(loaded.recipe.data.augmentation, size=(image.height, image.width))
    return [loaded.error((*at, *problem.where), problem.what) for problem in problems]


def _tta_errors(loaded: LoadedRecipe) -> list[RecipeError]:
    at: NodePath = ("evaluate", "tta")
    tta, image = loaded.recipe.evaluate.tta, loaded.recipe.data.image
    size, hint = f"{image.height}x{image.width}", "leave it out, or set data.image_size to one number"
    unfit = [
        loaded.error(at, f"{name} needs square images, not {size}", hint=hint) for name in find_unfit_tta(tta, image)
    ]
    twice = [name for name, count in Counter(tta).items() if count > 1]
    return [*unfit, *(loaded.error(at, f"names {name} more than once", hint="name it once") for name in twice)]


def _audit_errors(loaded: LoadedRecipe) -> list[RecipeError]:
    audit = loaded.recipe.data.audit
    at: NodePath = ("data", "audit")
    unknown = [
        loaded.error(
            (*at, key, place), f"no finding has the code {code!r}", hint=suggest_name(code, CODES) or _CODES_HINT
        )
        for key, codes in (("fail_on", audit.fail_on), ("allow", audit.allow))
        for place, code in enumerate(codes)
        if code not in CODES
    ]
    both = [
        loaded.error((*at, "allow", place), f"{code!r} is in fail_on as well", hint="keep it in one of them")
        for place, code in enumerate(audit.allow)
        if code in audit.fail_on
    ]
    return [*unknown, *both]
