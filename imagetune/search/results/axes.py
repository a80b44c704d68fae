"""Axes of a search's plots: each space scaled to [0, 1], with ticks, short names and values as text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imagetune.recipe.sections.search import Value

_MAX_TEXT = 40
# More powers of ten on one axis would touch each other.
_MAX_POWERS = 6


@dataclass(frozen=True)
class Axis:
    """A search space as an axis scaled to [0, 1], made from its description in search.json.

    Attributes:
        name: Dotted path in the recipe.
        kind: ``log_uniform``, ``uniform``, ``int`` or ``choice``.
        low: Lowest value of a range; 0 for a choice.
        high: Highest value of a range; 0 for a choice.
        values: What a choice offers, in its order; empty for a range.
    """

    name: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    values: tuple[Value, ...] = ()

    @property
    def is_choice(self) -> bool:
        """Whether the space is a choice between values and not a range."""
        return self.kind == "choice"

    def place(self, value: Value) -> float | None:
        """Return the place of a value in [0, 1]; None for a value that the space doesn't have.

        A range has its own scale, linear or logarithmic; the values of a choice lie in equal steps.
        """
        if self.is_choice:
            index = self.index(value)
            return None if index is None else (index + 0.5) / len(self.values)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return None
        if self.kind == "log_uniform":
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def value(self, place: float) -> float:
        """Return the value of a range at a place in [0, 1]."""
        if self.kind == "log_uniform":
            return float(self.low * (self.high / self.low) ** place)
        return self.low + place * (self.high - self.low)

    def index(self, value: Value) -> int | None:
        """Return the index of a value among a choice's, None if it isn't there; 1, 1.0 and true are different."""
        texts = [json.dumps(offered, sort_keys=True) for offered in self.values]
        text = json.dumps(value, sort_keys=True)
        return texts.index(text) if text in texts else None

    def ticks(self) -> list[tuple[float, str]]:
        """Return the ticks of the axis as places in [0, 1] with their labels, from the lowest."""
        if self.is_choice:
            return [((index + 0.5) / len(self.values), format_value(value)) for index, value in enumerate(self.values)]
        inner = self._powers() if self.kind == "log_uniform" else self._steps()
        marks = [self.low, *inner, self.high]
        return [(place, format_value(mark)) for mark in marks if (place := self.place(mark)) is not None]

    def _powers(self) -> list[float]:
        """Return the powers of ten on a logarithmic axis, without those so near its ends that labels would overlap."""
        first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
        stride = 1 + (last - first) // _MAX_POWERS
        powers = [10.0**power for power in range(first, last + 1) if power % stride == 0]
        return [power for power in powers if self.low < power < self.high and 0.12 < (self.place(power) or 0) < 0.88]

    def _steps(self) -> list[float]:
        """Return round values on a linear axis, without those so near its ends that labels would overlap."""
        span = self.high - self.low
        step = 10.0 ** math.floor(math.log10(span / 2))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)
        if self.kind == "int":
            step = max(1.0, step)
        first = math.floor(self.low / step) + 1
        marks = [round(step * (first + count), 10) for count in range(int(span / step) + 1)]
        kept = [mark for mark in marks if self.low < mark < self.high and 0.12 < (mark - self.low) / span < 0.88]
        return [int(mark) for mark in kept] if self.kind == "int" else kept


def read_axes(description: Mapping[str, Any]) -> tuple[Axis, ...]:
    """Return the axes of the spaces that search.json describes, in their order."""
    return tuple(_axis(name, space) for name, space in description.get("spaces", {}).items())


def shorten_names(names: Sequence[str], stages: Sequence[str] = ()) -> dict[str, str]:
    """Return for each dotted path the shortest ending that distinguishes it from the others.

    Args:
        names: Dotted paths.
        stages: Names of the recipe's stages, which read better than their numbers.
    """
    keys = {name: _split_path(name, stages) for name in names}
    short: dict[str, str] = {}
    for name, own in keys.items():
        others = [other_keys for other, other_keys in keys.items() if other != name]
        for length in range(1, len(own) + 1):
            end = own[-length:]
            if all(other[-length:] != end for other in others):
                break
        short[name] = ".".join(end)
    return short if len(set(short.values())) == len(short) else {name: name for name in names}


def format_value(value: Value) -> str:
    """Return a recipe value as short text, cut to 40 characters."""
    if isinstance(value, bool) or value is None:
        # As YAML writes them, so that a value can be copied into a recipe.
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, float):
        return _number_text(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):  # a whole section
        text = ", ".join(_entry_text(key, entry) for key, entry in value.items())
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def _entry_text(key: str, value: Value) -> str:
    """Return an entry of a section as text: a text value alone, such as ``sgd``, a number with its key."""
    return value if isinstance(value, str) else f"{key} {format_value(value)}"


def _number_text(value: float) -> str:
    text = f"{value:.3g}"
    if "e" not in text:
        return text
    digits, _, power = text.partition("e")
    return f"{digits}e{int(power)}"


def _axis(name: str, space: Mapping[str, Any]) -> Axis:
    kind = str(space.get("search"))
    if "values" in space:
        return Axis(name, "choice", values=tuple(space["values"]))
    low, high = space.get("low", 0.0), space.get("high", 1.0)
    return Axis(name, kind, low, high)


def _split_path(name: str, stages: Sequence[str]) -> list[str]:
    """Return the keys of a dotted path, with a stage's name in place of its number."""
    found: list[str] = []
    for part in name.replace("[", ".[").split("."):
        number = part[1:-1] if part.startswith("[") else ""
        if number.isdigit() and found and found[-1] == "stages" and int(number) < len(stages):
            found[-1] = stages[int(number)]
        elif number and found:
            found[-1] += part
        elif part:
            found.append(part)
    return found
