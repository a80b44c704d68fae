"""Which items belong together: connected components."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np


def components(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Return for each of ``count`` items the smallest item that it is connected with, over any number of pairs."""
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for one, other in pairs:
        first, second = sorted((root(one), root(other)))
        parent[second] = first
    return [root(item) for item in range(count)]


def equal_pairs(keys: Sequence[Hashable]) -> Iterable[tuple[int, int]]:
    """Yield a pair of positions for each item whose key came before; None is equal to nothing."""
    first: dict[Hashable, int] = {}
    for position, key in enumerate(keys):
        if key is not None and first.setdefault(key, position) != position:
            yield first[key], position


def members(roots: Sequence[int]) -> Iterator[list[int]]:
    """Yield the positions of each component, in order of its first item."""
    _, first, which = np.unique(np.array(roots, np.int64), return_index=True, return_inverse=True)
    order = np.argsort(first[which], kind="stable")
    ends = np.cumsum(np.bincount(which)[np.argsort(first)])
    for start, end in pairwise([0, *ends.tolist()]):
        yield order[start:end].tolist()
