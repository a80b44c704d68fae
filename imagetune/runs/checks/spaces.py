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
from imagetune.recipe.spaces import kind_hint

# What trials are compared by.
_FIXED_SECTIONS = ("evaluate", "tracking", "search", "card", "name", "seed")
_FIXED_DATA = (
    *("source", "split", "columns", "classes", "audit", "task", "label_separator"),
    *("on_bad_image", "max_pixels"),
)
# A range of whole numbers with more points is checked at its ends.
_MAX_POINTS = 32


def space_errors(loaded: LoadedRecipe, check: Callable[[LoadedRecipe], object]) -> list[RecipeError]:
    """Return spaces where none can be, or what is wrong with the values of the spaces.

    Args:
        loaded: A recipe that is good as it stands.
        check: Raises a RecipeError for a recipe that can't be trained.
    """
    if misplaced := [path for path in loaded.spaces if _is_fixed(path)]:
        what = "can't be searched: it would change what trials are compared by"
        return [loaded.error(path, what, hint="give it a value") for path in misplaced]
    found: dict[str, RecipeError] = {}
    for path, settings in tried_settings(loaded):
        for error in _errors(loaded, settings, path, check):
            found.setdefault(error.line(), error)
    return list(found.values())


def tried_settings(loaded: LoadedRecipe) -> Iterator[tuple[NodePath, dict[NodePath, Value]]]:
    """Yield each value of each space, of long ranges the ends, as a space's path and the settings to try.

    The settings hold the value and what brings the space into force; the other spaces are at their defaults.
    """
    for path, space in loaded.spaces.items():
        for value in _values(space):
            settings = settings_with(loaded.spaces, path, value)
            if path not in in_force(loaded.spaces, {**_defaults(loaded), **settings}):
                continue
            yield path, settings


def explained(error: RecipeError, settings: dict[NodePath, Value], path: NodePath, space: Space) -> RecipeError:
    """Return an error that says which value it comes from, where that stands elsewhere.

    Args:
        error: What is wrong with the recipe that has the settings.
        settings: As from `tried_settings`.
        path: Of the space that was tried.
        space: That space.
    """
    key = error.where.rsplit(" ", 1)[-1]
    others = [at for at in settings if at != path]
    named = others if key.startswith(dotted(path)) else [path, *others]
    hint = error.hint or kind_hint(space, error)
    if not named:
        return RecipeError(error.what, where=error.where, hint=hint)
    tried = ", ".join(f"{dotted(at)}: {json.dumps(settings[at], ensure_ascii=False)}" for at in named)
    return RecipeError(f"{error.what} (tried with {tried})", where=error.where, hint=hint)


def _is_fixed(path: NodePath) -> bool:
    return path[0] in _FIXED_SECTIONS or path == ("data",) or (path[0] == "data" and path[1] in _FIXED_DATA)


def _values(space: Space) -> Iterator[Value]:
    if isinstance(space, ChoiceSpace):
        yield from space.values
    elif isinstance(space, IntSpace) and len(space.points) <= _MAX_POINTS:
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
        return [explained(each, settings, path, loaded.spaces[path]) for each in (error, *error.also)]
    return []
