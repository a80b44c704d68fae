"""Checks of search spaces: every value is tried in the recipe, so that a mistake shows before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from imagetune.errors import RecipeError
from imagetune.recipe.conditions import find_activating_values, select_active
from imagetune.recipe.document import NodePath
from imagetune.recipe.loading import LoadedRecipe
from imagetune.recipe.problems import format_path
from imagetune.recipe.sections.search import ChoiceSpace, IntSpace, Space, Value
from imagetune.recipe.spaces import suggest_space_kind

# Sections and keys that make trials comparable: a search over them would compare unlike metrics.
_FIXED_SECTIONS = ("evaluate", "tracking", "search", "card", "name", "seed")
_FIXED_DATA = (
    *("source", "split", "columns", "classes", "audit", "task", "label_separator"),
    *("on_bad_image", "max_pixels"),
)
# Values to try, times the values of the recipe that each is tried in: this takes five seconds. What each costs besides
# is counted in the same units; an ordinary recipe may list some 3,000 values.
_MAX_COST = 4_000_000
_COST_OF_A_CHECK = 1_000
# A range of whole numbers with more points is checked at its ends.
_MAX_POINTS = 32


def find_space_errors(loaded: LoadedRecipe, check: Callable[[LoadedRecipe], object]) -> list[RecipeError]:
    """Return the mistakes in search spaces: misplaced ones, or else values with which the recipe can't be trained.

    Args:
        loaded: A recipe that is valid with the defaults of its spaces.
        check: A function that raises a RecipeError for a recipe that can't be trained.
    """
    # Alone: other errors would be about trials that can't be compared anyway.
    if misplaced := [path for path in loaded.spaces if _is_fixed(path)]:
        what = "can't be searched: it would change what trials are compared by"
        return [loaded.error(path, what, hint="give it a value") for path in misplaced]
    count = sum(1 for space in loaded.spaces.values() for _ in _values(space))
    if count * (_count_values(loaded.document.root) + _COST_OF_A_CHECK) > _MAX_COST:
        path = max(loaded.spaces, key=lambda at: sum(1 for _ in _values(loaded.spaces[at])))
        what = f"the search spaces list {count:,} values, too many to check each in this recipe"
        return [loaded.error(path, what, hint="list fewer, or give a range")]
    found: dict[str, RecipeError] = {}
    for path, settings in list_tried_settings(loaded):
        for error in _errors(loaded, settings, path, check):
            # A mistake outside the spaces comes up with every value that is tried; it is reported once.
            found.setdefault(error.line(), error)
    return list(found.values())


def list_tried_settings(loaded: LoadedRecipe) -> Iterator[tuple[NodePath, dict[NodePath, Value]]]:
    """Yield the path of each space with the settings for each of its values; of long ranges only the ends.

    The settings hold the value and what brings the space into force; the other spaces are at their defaults.
    """
    for path, space in loaded.spaces.items():
        for value in _values(space):
            settings = find_activating_values(loaded.spaces, path, value)
            # No value of another space brings this one into force together with this value.
            if path not in select_active(loaded.spaces, {**_defaults(loaded), **settings}):
                continue
            yield path, settings


def explain_error(error: RecipeError, settings: dict[NodePath, Value], path: NodePath, space: Space) -> RecipeError:
    """Return an error whose message names the tried values, where the error's own place doesn't show them.

    Args:
        error: The error of the recipe with the settings.
        settings: Settings of `list_tried_settings`.
        path: The path of the space whose value was tried.
        space: That space.
    """
    key = error.where.rsplit(" ", 1)[-1]
    others = [at for at in settings if at != path]
    named = others if key.startswith(format_path(path)) else [path, *others]
    hint = error.hint or suggest_space_kind(space, error)
    if not named:
        return RecipeError(error.what, where=error.where, hint=hint)
    tried = ", ".join(f"{format_path(at)}: {json.dumps(settings[at], ensure_ascii=False)}" for at in named)
    return RecipeError(f"{error.what} (tried with {tried})", where=error.where, hint=hint)


def _is_fixed(path: NodePath) -> bool:
    # A space of the whole section would offer other images as well.
    return path[0] in _FIXED_SECTIONS or path == ("data",) or (path[0] == "data" and path[1] in _FIXED_DATA)


def _count_values(node: Value) -> int:
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return 1 + sum(map(_count_values, inner))


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
        return [explain_error(each, settings, path, loaded.spaces[path]) for each in (error, *error.also)]
    return []
