"""Search spaces: conversion to and from KerasTuner's hyperparameters, random draws, neighbours and grids.

KerasTuner allows one type in a choice and no null, so it gets the index of a choice's value instead. Its own
``tuner/*`` keys stay on its side: only paths of the recipe come back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from imagetune.recipe.conditions import find_conditions, is_active, select_active, sort_by_conditions
from imagetune.recipe.document import NodePath
from imagetune.recipe.problems import format_path
from imagetune.recipe.sections.search import (
    ChoiceSpace,
    IntSpace,
    LogUniformSpace,
    Space,
    UniformSpace,
    Value,
    find_index,
)

Spaces = Mapping[NodePath, Space]
Values = Mapping[NodePath, Value]

# Of a continuous range on a grid or in a sweep.
GRID_POINTS = 5
# Of a proposed number, so that recipes stay readable.
SIGNIFICANT_DIGITS = 6


def convert_to_hyperparameters(spaces: Spaces) -> Any:
    """Return the spaces as ``keras_tuner.HyperParameters``, named by dotted path and with their conditions."""
    import keras_tuner

    hyperparameters = keras_tuner.HyperParameters()
    for path in sort_by_conditions(spaces):
        with ExitStack() as scopes:
            for parent, wanted in find_conditions(spaces, path).items():
                values = [_proposed(spaces[parent], value) for value in wanted]
                scopes.enter_context(hyperparameters.conditional_scope(format_path(parent), values))
            _add(hyperparameters, format_path(path), spaces[path])
    return hyperparameters


def parse_proposal(spaces: Spaces, proposal: Mapping[str, Any]) -> dict[NodePath, Value]:
    """Return the recipe values of KerasTuner's proposal, without those of spaces that aren't in force.

    Args:
        spaces: The search spaces that the proposal was made from.
        proposal: KerasTuner's values by name; names that are no search space are ignored.
    """
    return {
        path: _value(space, proposal[format_path(path)])
        for path, space in spaces.items()
        if format_path(path) in proposal
    }


def build_proposal(spaces: Spaces, values: Values) -> dict[str, Any]:
    """Return recipe values as KerasTuner holds them: the inverse of ``values_of``.

    Raises:
        ValueError: A value isn't in its space.
    """
    return {format_path(path): _proposed(space, values[path]) for path, space in spaces.items() if path in values}


def get_default_setting(spaces: Spaces) -> dict[NodePath, Value]:
    """Return the default setting, which `fit` would train with, of the spaces that are in force with it."""
    return select_active(spaces, {path: space.fallback for path, space in spaces.items()})


def is_setting(spaces: Spaces, values: Values) -> bool:
    """Return whether values are a setting of the spaces: each space in force has one of its values, others none."""
    try:
        build_proposal(spaces, values)
        return select_active(spaces, values) == {path: values[path] for path in spaces if path in values}
    except (ValueError, KeyError):
        return False


def discretise_spaces(spaces: Spaces) -> dict[NodePath, Space]:
    """Return the spaces with every continuous range replaced by evenly spaced points, both ends included.

    KerasTuner's own grid takes ten points that leave both ends out and adds the default as an eleventh.
    """
    return {path: _points(space) for path, space in spaces.items()}


def count_grid_points(spaces: Spaces) -> int:
    """Return the number of points of spaces from ``on_grid``; what isn't in force multiplies nothing."""
    named = {parent for path in spaces for parent in find_conditions(spaces, path)}
    order = sort_by_conditions(spaces)

    def count(index: int, values: Values) -> int:
        if index == len(order):
            return 1
        path = order[index]
        if not is_active(spaces, path, values):
            return count(index + 1, values)
        offered = _offered(spaces[path])
        # No condition depends on this space, so that all of its values leave equally many points: no branch for each of
        # them.
        if path not in named:
            return len(offered) * count(index + 1, values)
        return sum(count(index + 1, {**values, path: value}) for value in offered)

    return count(0, {})


def count_settings(spaces: Spaces) -> int | None:
    """Return how many different settings spaces have; None where one of those is a continuous range."""
    if any(isinstance(space, (LogUniformSpace, UniformSpace)) for space in spaces.values()):
        return None
    return count_grid_points(spaces)


def draw_setting(spaces: Spaces, random: np.random.Generator) -> dict[NodePath, Value]:
    """Return a random setting of the spaces."""
    return _setting(spaces, lambda path: _draw_value(spaces[path], random))


def draw_neighbour(
    spaces: Spaces, values: Values, random: np.random.Generator, *, width: float
) -> dict[NodePath, Value]:
    """Return a random setting near another.

    Args:
        spaces: The search spaces by recipe path.
        values: The other setting.
        random: Random generator.
        width: Standard deviation of the step in a range, as a share of it; a choice changes with this probability, or
            with one in the number of spaces if that is more.
    """

    def near(path: NodePath) -> Value:
        space = spaces[path]
        if path not in values or (isinstance(space, ChoiceSpace) and random.random() < max(width, 1 / len(spaces))):
            return _draw_value(space, random)
        if isinstance(space, ChoiceSpace):
            return values[path]
        place = compute_position(space, values[path]) + random.normal(0.0, width)
        return _value_at(space, float(np.clip(place, 0.0, 1.0)))

    return _setting(spaces, near)


def compute_position(space: Space, value: Value) -> float:
    """Return the place of a value in its space, in [0, 1]; the values of a choice lie in their order."""
    number = _proposed(space, value)
    if isinstance(space, ChoiceSpace):
        return (number + 0.5) / len(space.values)
    if isinstance(space, LogUniformSpace):
        return math.log(number / space.low) / math.log(space.high / space.low)
    return (number - space.low) / (space.high - space.low)


def _setting(spaces: Spaces, value_for: Callable[[NodePath], Value]) -> dict[NodePath, Value]:
    values: dict[NodePath, Value] = {}
    for path in sort_by_conditions(spaces):
        if is_active(spaces, path, values):
            values[path] = value_for(path)
    return {path: values[path] for path in spaces if path in values}


def _draw_value(space: Space, random: np.random.Generator) -> Value:
    if isinstance(space, ChoiceSpace):
        return space.values[int(random.integers(len(space.values)))]
    if isinstance(space, IntSpace):
        return space.points[int(random.integers(len(space.points)))]
    return _value_at(space, random.random())


def _value_at(space: LogUniformSpace | UniformSpace | IntSpace, share: float) -> Value:
    if isinstance(space, IntSpace):
        return space.points[round(share * (len(space.points) - 1))]
    return _rounded(space, _between(space, share))


def _offered(space: Space) -> Sequence[Value]:
    if isinstance(space, ChoiceSpace):
        return space.values
    if isinstance(space, IntSpace):
        return space.points
    raise TypeError(f"{space!r} has no number of points")


def _add(hyperparameters: Any, name: str, space: Space) -> None:
    if isinstance(space, ChoiceSpace):
        hyperparameters.Choice(name, list(range(len(space.values))), default=_proposed(space, space.fallback))
    elif isinstance(space, IntSpace):
        # A default between the steps isn't among the values that KerasTuner proposes.
        default = space.fallback if space.fallback in space.points else space.low
        hyperparameters.Int(name, space.low, space.high, step=space.step, default=default)
    else:
        sampling = "log" if isinstance(space, LogUniformSpace) else "linear"
        hyperparameters.Float(name, space.low, space.high, sampling=sampling, default=space.fallback)


def _value(space: Space, proposed: Any) -> Value:
    if isinstance(space, ChoiceSpace):
        return space.values[int(proposed)]
    if isinstance(space, IntSpace):
        return int(proposed)
    return _rounded(space, float(proposed))


def _proposed(space: Space, value: Value) -> int | float:
    if isinstance(space, ChoiceSpace):
        index = find_index(space.values, value)
        if index is None:
            raise ValueError(f"{value!r} is not among the values {list(space.values)}")
        return index
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not space.low <= value <= space.high:
        raise ValueError(f"{value!r} is not between {space.low:g} and {space.high:g}")
    return int(value) if isinstance(space, IntSpace) else float(value)


def _points(space: Space) -> Space:
    if isinstance(space, (ChoiceSpace, IntSpace)):
        return space
    shares = [index / (GRID_POINTS - 1) for index in range(GRID_POINTS)]
    points = [_rounded(space, _between(space, share)) for share in shares]
    return ChoiceSpace(search="choice", values=tuple(points), when=space.when)


def _between(space: LogUniformSpace | UniformSpace, share: float) -> float:
    if isinstance(space, UniformSpace):
        return space.low + share * (space.high - space.low)
    return space.low * math.pow(space.high / space.low, share)


def _rounded(space: LogUniformSpace | UniformSpace, value: float) -> float:
    """Return a number rounded to six significant digits, without leaving the range."""
    return min(max(float(f"{value:.{SIGNIFICANT_DIGITS}g}"), space.low), space.high)
