"""Search spaces in a recipe's raw values: finding and validating them, and replacing them by their defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from imagetune.errors import RecipeError
from imagetune.recipe.document import Document, Location, NodePath
from imagetune.recipe.problems import describe_expectation, format_path, format_value, suggest_known_word
from imagetune.recipe.sections.search import (
    ChoiceSpace,
    IntSpace,
    LogUniformSpace,
    Space,
    UniformSpace,
    Value,
    find_index,
)

_KINDS: dict[str, type[BaseModel]] = {
    "log_uniform": LogUniformSpace,
    "uniform": UniformSpace,
    "int": IntSpace,
    "choice": ChoiceSpace,
}
# More than anybody searches; what each depends on is followed through all of them.
_MAX_SPACES = 64
# An error message about a section with more search spaces doesn't list all their defaults.
_MAX_DEFAULTS = 4
_KEYS = {key for kind in _KINDS.values() for key in kind.model_fields}


class _SpaceField(BaseModel):
    """A model with a space as its only field: pydantic validates tagged unions only as fields."""

    space: Space


def is_space(node: Any) -> bool:
    """Return whether a raw value is a search space, or is meant as one.

    A number under the key ``search`` is none: there it is the weight of a class of that name.
    """
    return isinstance(node, dict) and "search" in node and not isinstance(node["search"], (int, float))


def is_inside_space(node: Any, key: Any) -> bool:
    """Return whether a key would be set inside a search space's values, rather than be a key of the space itself."""
    return is_space(node) and key not in _KEYS


def find_spaces(node: Any, path: NodePath = ()) -> Iterator[NodePath]:
    """Yield the paths of the outermost search spaces in raw values."""
    if path and is_space(node):
        yield path
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from find_spaces(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from find_spaces(value, (*path, index))


def take_spaces(document: Document) -> dict[NodePath, Space]:
    """Replace every search space in the document by its default value, and return the spaces.

    Raises:
        RecipeError: A space is not valid, or lies within another one's values.
    """
    spaces: dict[NodePath, Space] = {}
    errors: list[RecipeError] = []

    def visit(node: Any, path: NodePath) -> Any:
        if path and is_space(node):
            try:
                spaces[path] = _validate_space(node, path, document)
            # Collected, so that one attempt reports all broken spaces.
            except RecipeError as error:
                errors.append(error)
                return None
            return spaces[path].fallback
        if isinstance(node, dict):
            return {key: visit(value, (*path, key)) for key, value in node.items()}
        if isinstance(node, list):
            return [visit(value, (*path, index)) for index, value in enumerate(node)]
        return node

    if len(found := list(find_spaces(document.root))) > _MAX_SPACES:
        what = f"{len(found):,} search spaces, and the most is {_MAX_SPACES}"
        raise RecipeError(what, where=f"{document.where(found[-1])} {format_path(found[-1])}".strip())
    taken = visit(document.root, ())
    if errors:
        raise errors[0].with_also(tuple(errors[1:]))
    # In place, because the document is frozen, and its locations stay valid.
    document.root.clear()
    document.root.update(taken)
    return spaces


def find_place(space: Space, path: NodePath, value: Value) -> NodePath:
    """Return the path in the file of a value of a search space: among its values, or one of its ends."""
    if isinstance(space, ChoiceSpace):
        index = find_index(space.values, value)
        return path if index is None else (*path, "values", index)
    if value in (space.low, space.high):
        return (*path, "low" if value == space.low else "high")
    return path


def add_defaults_to_error(error: RecipeError, spaces: Mapping[NodePath, Space]) -> RecipeError:
    """Return a validation error with the defaults of the search spaces that it is about.

    The values in the message are those defaults, which the file may not show.
    """
    errors = [_add_defaults(each, spaces) for each in (error, *error.also)]
    return errors[0].with_also(tuple(errors[1:]))


def suggest_space_kind(space: Space, error: RecipeError) -> str:
    """Return the hint to write an int space where a space of real numbers met a whole-number key; else nothing."""
    numbers = isinstance(space, (LogUniformSpace, UniformSpace))
    return "for whole numbers write search: int" if numbers and "a whole number" in error.what else ""


def move_locations(
    locations: Mapping[NodePath, Location], source: NodePath, target: NodePath
) -> dict[NodePath, Location]:
    """Return the locations with those below ``source`` moved below ``target``, whose own are dropped."""
    if source == target or source not in locations:
        return dict(locations)
    kept = {path: place for path, place in locations.items() if path[: len(target)] != target}
    new = {(*target, *path[len(source) :]): place for path, place in locations.items() if path[: len(source)] == source}
    return {**kept, **new}


def _add_defaults(error: RecipeError, spaces: Mapping[NodePath, Space]) -> RecipeError:
    key = error.where.rsplit(" ", 1)[-1]
    own = next((space for path, space in spaces.items() if format_path(path) == key), None)
    if own is not None and not isinstance(own, ChoiceSpace):
        what = f"{error.what} (the default of this {own.search} space)"
        return RecipeError(what, where=error.where, hint=error.hint or suggest_space_kind(own, error))
    below = {
        format_path(path): space
        for path, space in spaces.items()
        if format_path(path).startswith((f"{key}.", f"{key}["))
    }
    if not below:
        return error
    defaults = ", ".join(f"{name}: {format_value(space.fallback)}" for name, space in [*below.items()][:_MAX_DEFAULTS])
    rest = ", ..." if len(below) > _MAX_DEFAULTS else ""
    return RecipeError(f"{error.what} (with the defaults {defaults}{rest})", where=error.where, hint=error.hint)


def _validate_space(node: dict[str, Any], path: NodePath, document: Document) -> Space:
    kind = node["search"]
    if not isinstance(kind, str) or kind not in _KINDS:
        where = f"{document.where((*path, 'search'))} {format_path(path)}".strip()
        truth = kind in ("bool", "boolean")
        hint = "write search: choice, values: [true, false]" if truth else suggest_known_word(str(kind), _KINDS)
        raise RecipeError(f"unknown search space {format_value(kind)}", where=where, hint=hint)
    for inner in find_spaces({key: value for key, value in node.items() if key != "search"}):
        where = f"{document.where((*path, *inner))} {format_path(path)}".strip()
        hint = "write it at its own key, outside these values, with `when:` if it depends on which of them is tried"
        raise RecipeError("search space: it contains another search space", where=where, hint=hint)
    try:
        return _SpaceField.model_validate({"space": node}).space
    except ValidationError as error:
        raise _build_error(error, node, path, document) from error


def _build_error(error: ValidationError, node: dict[str, Any], path: NodePath, document: Document) -> RecipeError:
    findings = error.errors(include_url=False)
    # A misspelt key says more than the missing one that it stands for.
    finding = next((one for one in findings if one["type"] == "extra_forbidden"), findings[0])
    inner = tuple(part for part in finding["loc"][2:] if isinstance(part, (str, int)))
    where = f"{document.where((*path, *inner))} {format_path(path)}".strip()
    key, hint = format_path(inner), ""
    match finding["type"]:
        case "missing":
            what = f"{key} is missing"
        case "extra_forbidden":
            what = f"unknown key {key!r}"
            hint = suggest_known_word(str(inner[-1]), _KINDS[node["search"]].model_fields)
        case "value_error":
            what = str(finding["ctx"]["error"])
        case _:
            what = f"{key}: {format_value(finding['input'])} is wrong: expected {describe_expectation(finding)}"
    return RecipeError(f"search space: {what}", where=where, hint=hint)
