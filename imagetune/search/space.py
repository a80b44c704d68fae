"""Search spaces of a recipe as KerasTuner's hyperparameters, and its proposals as recipe values.

KerasTuner wants one type a choice and knows no null, so it is given the index of a choice's value instead. Its own
``tuner/*`` keys stay on its side: only paths of the recipe come back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras_tuner

from imagetune.recipe.document import NodePath
from imagetune.recipe.problems import dotted
from imagetune.recipe.search import ChoiceSpace, IntSpace, LogUniformSpace, Scalar, Space, UniformSpace

Spaces = Mapping[NodePath, Space]
Values = Mapping[NodePath, Scalar]

GRID_POINTS = 5
SIGNIFICANT_DIGITS = 6


def hyperparameters_of(spaces: Spaces) -> Any:
    """Return the spaces as ``keras_tuner.HyperParameters``, each named by its dotted path."""
    hyperparameters = keras_tuner.HyperParameters()
    for path, space in spaces.items():
        _add(hyperparameters, dotted(path), space)
    return hyperparameters


def values_of(spaces: Spaces, proposal: Mapping[str, Any]) -> dict[NodePath, Scalar]:
    """Return the recipe values of a proposal.

    Args:
        spaces: The spaces that the proposal was made from.
        proposal: KerasTuner's values by name; names that are no space are left out.
    """
    return {path: _value(space, proposal[dotted(path)]) for path, space in spaces.items()}


def proposal_of(spaces: Spaces, values: Values) -> dict[str, Any]:
    """Return recipe values as KerasTuner holds them: the inverse of ``values_of``.

    Raises:
        ValueError: A value is none of its space's.
    """
    return {dotted(path): _proposed(space, values[path]) for path, space in spaces.items()}


def on_grid(spaces: Spaces) -> dict[NodePath, Space]:
    """Return the spaces with every continuous range replaced by evenly spaced points, both ends included.

    KerasTuner's own grid takes ten points that leave both ends out and adds the default as an eleventh.
    """
    return {path: _points(space) for path, space in spaces.items()}


def grid_size(spaces: Spaces) -> int:
    """Return the number of points of spaces from ``on_grid``."""
    return math.prod(_count(space) for space in spaces.values())


def _count(space: Space) -> int:
    if isinstance(space, ChoiceSpace):
        return len(space.values)
    if isinstance(space, IntSpace):
        return (space.high - space.low) // space.step + 1
    raise TypeError(f"{space!r} has no number of points")


def _add(hyperparameters: Any, name: str, space: Space) -> None:
    if isinstance(space, ChoiceSpace):
        hyperparameters.Choice(name, list(range(len(space.values))), default=_index(space, space.fallback))
    elif isinstance(space, IntSpace):
        hyperparameters.Int(name, space.low, space.high, step=space.step)
    else:
        sampling = "log" if isinstance(space, LogUniformSpace) else "linear"
        hyperparameters.Float(name, space.low, space.high, sampling=sampling)


def _value(space: Space, proposed: Any) -> Scalar:
    if isinstance(space, ChoiceSpace):
        return space.values[int(proposed)]
    if isinstance(space, IntSpace):
        return int(proposed)
    return _rounded(space, float(proposed))


def _proposed(space: Space, value: Scalar) -> int | float:
    if isinstance(space, ChoiceSpace):
        return _index(space, value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not space.low <= value <= space.high:  # type: ignore[operator]
        raise ValueError(f"{value!r} is not between {space.low:g} and {space.high:g}")
    return int(value) if isinstance(space, IntSpace) else float(value)  # type: ignore[arg-type]


def _index(space: ChoiceSpace, value: Scalar) -> int:
    for index, candidate in enumerate(space.values):
        # 1, 1.0 and True are equal in Python and mean different things in a recipe.
        if type(candidate) is type(value) and candidate == value:
            return index
    raise ValueError(f"{value!r} is not among the values {list(space.values)}")


def _points(space: Space) -> Space:
    if isinstance(space, (ChoiceSpace, IntSpace)):
        return space
    shares = [index / (GRID_POINTS - 1) for index in range(GRID_POINTS)]
    points = [_rounded(space, _between(space, share)) for share in shares]
    return ChoiceSpace(search="choice", values=tuple(points))


def _between(space: LogUniformSpace | UniformSpace, share: float) -> float:
    if isinstance(space, UniformSpace):
        return space.low + share * (space.high - space.low)
    return space.low * math.pow(space.high / space.low, share)


def _rounded(space: LogUniformSpace | UniformSpace, value: float) -> float:
    """Drop digits that nobody can tell apart, so that recipes stay readable, without leaving the range."""
    return min(max(float(f"{value:.{SIGNIFICANT_DIGITS}g}"), space.low), space.high)
