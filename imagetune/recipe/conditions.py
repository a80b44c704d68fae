"""Conditional search spaces (``when:``): which spaces are active under given values, and checks of the conditions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from imagetune.errors import RecipeError
from imagetune.recipe.document import Document, NodePath, get_value
from imagetune.recipe.problems import (
    format_path,
    format_value,
    join_first_words,
    parse_path,
    suggest_known_word,
)
from imagetune.recipe.sections.search import ChoiceSpace, IntSpace, Space, Value, find_index

Spaces = Mapping[NodePath, Space]
# The search spaces that must be active with one of these values.
Conditions = Mapping[NodePath, tuple[Value, ...]]

_INDEX = re.compile(r"\[(\d+)\]")


def find_conditions(spaces: Spaces, path: NodePath) -> Conditions:
    """Return the conditions of a search space by path, from spaces that `check_conditions` has passed."""
    if not spaces[path].when:
        return {}
    found = {_find(spaces, name): wanted for name, wanted in spaces[path].when.items()}
    return {parent: wanted for parent, wanted in found.items() if parent is not None}


def sort_by_conditions(spaces: Spaces) -> list[NodePath]:
    """Return the paths of the search spaces in topological order: each after those that its conditions name."""
    seen: set[NodePath] = set()
    order: list[NodePath] = []

    def visit(path: NodePath) -> None:
        if path not in seen:
            seen.add(path)
            for parent in find_conditions(spaces, path):
                visit(parent)
            order.append(path)

    for path in spaces:
        visit(path)
    return order


def select_active(spaces: Spaces, values: Mapping[NodePath, Value]) -> dict[NodePath, Value]:
    """Return the values of the active search spaces, in the order of the spaces.

    Args:
        spaces: All search spaces.
        values: A value for at least every active space.
    """
    kept: dict[NodePath, Value] = {}
    for path in sort_by_conditions(spaces):
        if is_active(spaces, path, kept):
            kept[path] = values[path]
    return {path: kept[path] for path in spaces if path in kept}


def is_active(spaces: Spaces, path: NodePath, values: Mapping[NodePath, Value]) -> bool:
    """Return whether a search space is active: whether its conditions are met.

    Args:
        spaces: All search spaces.
        path: Path of the space in question.
        values: Values of the active spaces among those that it depends on.
    """
    conditions = find_conditions(spaces, path)
    return all(parent in values and _is_among(wanted, values[parent]) for parent, wanted in conditions.items())


def find_activating_values(spaces: Spaces, path: NodePath, value: Value) -> dict[NodePath, Value]:
    """Return the smallest set of values that makes a search space active with a value.

    Where its conditions allow several values of another space, its default is taken if it is one of them, else the
    first.
    """
    settings, waiting = {path: value}, [path]
    while waiting:
        for parent, wanted in find_conditions(spaces, waiting.pop(0)).items():
            # Each is asked once: conditions of conditions would otherwise be followed along every way through them.
            if parent not in settings:
                fallback = spaces[parent].fallback
                settings[parent] = fallback if _is_among(wanted, fallback) else wanted[0]
                waiting.append(parent)
    return settings


def settle_conditions(spaces: Spaces, fixed: Mapping[NodePath, Value]) -> dict[NodePath, Space]:
    """Return the search spaces that may still become active where overrides have fixed some that others depend on.

    Args:
        spaces: The search spaces that are left.
        fixed: Values by path of the spaces in the file that overrides have replaced.
    """
    kept: dict[NodePath, Space] = {}
    dropped: set[NodePath] = set()
    for path in sort_by_conditions(spaces):
        settled = {name: at for name in spaces[path].when if (at := _find([*fixed, *dropped], name)) is not None}
        if all(at in fixed and _is_among(spaces[path].when[name], fixed[at]) for name, at in settled.items()):
            left = {name: wanted for name, wanted in spaces[path].when.items() if name not in settled}
            kept[path] = spaces[path].model_copy(update={"when": left})
        else:
            dropped.add(path)
    return {path: kept[path] for path in spaces if path in kept}


def check_conditions(spaces: Spaces, document: Document) -> None:
    """Check the conditions of all search spaces of a recipe.

    Args:
        spaces: All search spaces of a recipe.
        document: The recipe file, for line and column.

    Raises:
        RecipeError: A condition names no search space, a space of real numbers, or a value that the space doesn't have;
            or conditions form a cycle.
    """
    errors = [error for path in spaces for error in _find_errors(spaces, path, document)]
    # Cycles are looked for last: they can't be followed through a condition that names nothing.
    errors = errors or [error for path in spaces for error in _find_cycles(spaces, path, document)]
    if errors:
        raise errors[0].with_also(tuple(errors[1:]))


def _find_errors(spaces: Spaces, path: NodePath, document: Document) -> Iterator[RecipeError]:
    for name, wanted in spaces[path].when.items():
        where = f"{document.where((*path, 'when', name))} {format_path(path)}".strip()
        parent = _find(spaces, name)
        if parent is None:
            others = [format_path(other) for other in spaces if other != path]
            hint = suggest_known_word(name, others) if others else "leave `when` out: nothing else is searched"
            what = f"search space: when names {name!r}, which {_describe_value(document, name)}"
            yield RecipeError(what, where=where, hint=hint)
            continue
        space = spaces[parent]
        if not isinstance(space, (ChoiceSpace, IntSpace)):
            what = f"search space: {name} is searched by {space.search}, which hardly ever gives the same value twice"
            yield RecipeError(what, where=where, hint="make it a choice or int space")
            continue
        for value in wanted:
            if not _has_value(space, value):
                what = f"search space: {format_value(value)} is not among the values of {name}"
                yield RecipeError(
                    what,
                    where=where,
                    hint=_suggest_value(value, space.values if isinstance(space, ChoiceSpace) else space.points),
                )


def _find_cycles(spaces: Spaces, path: NodePath, document: Document) -> Iterator[RecipeError]:
    """Yield an error for a search space whose conditions form a cycle back to it."""
    waiting, seen = [*find_conditions(spaces, path)], set[NodePath]()
    while waiting:
        parent = waiting.pop()
        if parent == path:
            where = f"{document.where((*path, 'when'))} {format_path(path)}".strip()
            what = "search space: its conditions form a cycle back to itself"
            yield RecipeError(what, where=where, hint="leave one of the conditions out")
            return
        if parent not in seen:
            seen.add(parent)
            waiting.extend(find_conditions(spaces, parent))


def _describe_value(document: Document, name: str) -> str:
    value = get_value(document.root, parse_path(name))
    return "is not a search space" if value is None else f"is {format_value(value)}, not a search space"


def _has_value(space: ChoiceSpace | IntSpace, value: Value) -> bool:
    if isinstance(space, ChoiceSpace):
        return find_index(space.values, value) is not None
    # In Python true is 1, and would lie in the range.
    return isinstance(value, int) and not isinstance(value, bool) and value in space.points


def _suggest_value(value: Value, offered: Sequence[Value]) -> str:
    if isinstance(value, str):
        return suggest_known_word(value, (other for other in offered if isinstance(other, str)))
    return f"available: {join_first_words(map(format_value, offered))}"


def _find(spaces: Iterable[NodePath], name: str) -> NodePath | None:
    """Return the path of the search space that ``train.stages.1.unfreeze`` or ``train.stages[1].unfreeze`` names."""
    wanted = _drop_brackets(name)
    return next((path for path in spaces if ".".join(map(str, path)) == wanted), None)


def _drop_brackets(name: str) -> str:
    return _INDEX.sub(r".\1", name)


def _is_among(values: tuple[Value, ...], value: Value) -> bool:
    return find_index(values, value) is not None
