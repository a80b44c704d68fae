"""Limits of a recipe's augmentation: each transform is tried on an image, where one number can take all memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Largest number in arguments whose names hold one of these words, the first that fits; the last is for all others.
_LARGEST = {
    **dict.fromkeys(("iteration", "step"), 20),
    **dict.fromkeys(("scale", "zoom", "factor"), 10),
    **dict.fromkeys(("blur", "kernel", "radius", "distance", "num_", "count", "segments"), 500),
    **dict.fromkeys(("height", "width", "size", "crop"), 4_096),
    "": 20_000,
}
_MOST_TRANSFORMS = 50


def find_excess(spec: Any) -> str:
    """Return that an augmentation has more transforms than can be tried within seconds; "" where it has not."""
    count = _count_transforms(spec)
    return f"has {count:,} transforms, and the most is {_MOST_TRANSFORMS}" if count > _MOST_TRANSFORMS else ""


def find_large_numbers(arguments: Mapping[str, Any]) -> dict[str, int]:
    """Return the limit of each argument of a transform that holds a number beyond it."""
    found = {}
    for name, value in arguments.items():
        limit = next(limit for word, limit in _LARGEST.items() if word in str(name))
        if not all(-limit <= number <= limit for number in _list_numbers(value)):
            found[str(name)] = limit
    return found


def _count_transforms(node: Any) -> int:
    """Return the number of mappings in lists, also in those of compositions: each is a transform."""
    if isinstance(node, Mapping):
        return sum(map(_count_transforms, node.values()))
    return (
        sum(isinstance(one, Mapping) + _count_transforms(one) for one in node) if isinstance(node, (list, tuple)) else 0
    )


def _list_numbers(value: Any) -> Iterator[float]:
    if isinstance(value, (int, float)):
        yield value
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _list_numbers(inner)
