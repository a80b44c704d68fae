"""Every value of every search space tried in its recipe, so that a mistyped one fails before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from imagetune.errors import RecipeError
from imagetune.recipe.conditions import in_force, settings_with
from imagetune.recipe.document import NodePath
from imagetune.recipe.loading import LoadedRecipe
from imagetune.recipe.problems import dotted
from imagetune.recipe.search import ChoiceSpace, IntSpace, Space, Value

# A range of whole numbers with more points is checked at its ends.
_MOST_POINTS = 32


def space_errors(loaded: LoadedRecipe, check: Callable[[LoadedRecipe], object]) -> list[RecipeError]:
    """Return what is wrong with the values of the spaces, one value at a time, the other spaces at their defaults.

    Args:
        loaded: A recipe that is good as it stands.
        check: Raises a RecipeError for a recipe that can't be trained.
    """
    found: dict[str, RecipeError] = {}
    for path, space in loaded.spaces.items():
        for value in _values(space):
            settings = settings_with(loaded.spaces, path, value)
            if path not in in_force(loaded.spaces, {**_defaults(loaded), **settings}):
                continue
            for error in _errors(loaded, settings, path, check):
                found.setdefault(error.line(), error)
    return list(found.values())


def _values(space: Space) -> Iterator[Value]:
    if isinstance(space, ChoiceSpace):
        yield from space.values
    elif isinstance(space, IntSpace) and len(space.points) <= _MOST_POINTS:
        yield from space.points
    else:
        yield from (space.low, space.high)


def _defaults(loaded: LoadedRecipe) -> dict[NodePath, Value]:
    return {path: space.fallback for path, space in loaded.spaces.items()}


def _errors(
    loaded: LoadedRecipe,
    settings: dict[NodePath, Value],
    path: NodePath,
    check: Callable[[LoadedRecipe], object],
) -> list[RecipeError]:
    try:
        check(loaded.with_values(settings))
    except RecipeError as error:
        return [_explained(each, settings, path) for each in (error, *error.also)]
    return []


def _explained(error: RecipeError, settings: dict[NodePath, Value], path: NodePath) -> RecipeError:
    """Say which value it is that an error elsewhere comes from."""
    key = error.where.rsplit(" ", 1)[-1]
    others = [at for at in settings if at != path]
    named = others if key.startswith(dotted(path)) else [path, *others]
    if not named:
        return RecipeError(error.what, where=error.where, hint=error.hint)
    tried = ", ".join(f"{dotted(at)}: {json.dumps(settings[at], ensure_ascii=False)}" for at in named)
    return RecipeError(f"{error.what} (tried with {tried})", where=error.where, hint=error.hint)
