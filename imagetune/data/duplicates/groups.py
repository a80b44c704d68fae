"""Groups of near-duplicates as connected components of a graph of pairs, and disjoint sets (union-find)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

_NAMED = "near-duplicates of "


def name_duplicate_group(path: str) -> str:
    """Return the name that a near-duplicate group has where others have that of a patient or a film."""
    return f"{_NAMED}{path}"


def is_duplicate_group(name: str | None) -> bool:
    """Return whether a group's name is one of `name_duplicate_group`."""
    return name is not None and name.startswith(_NAMED)


def find_components(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Return the connected component of each of ``count`` items, named by its smallest item."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.array(list(pairs), np.int64).reshape(-1, 2).T
    if not ends.size:
        return list(range(count))
    graph = coo_array((np.ones(ends.shape[1], np.int8), tuple(ends)), shape=(count, count))
    _, which = connected_components(graph, directed=False)
    _, smallest = np.unique(which, return_index=True)
    return [int(item) for item in smallest[which]]


def find_equal_pairs(keys: Sequence[Hashable]) -> Iterable[tuple[int, int]]:
    """Yield pairs of positions that connect all items with equal keys; None equals nothing."""
    first: dict[Hashable, int] = {}
    for position, key in enumerate(keys):
        if key is not None and first.setdefault(key, position) != position:
            yield first[key], position


def list_group_members(roots: Sequence[int]) -> Iterator[list[int]]:
    """Yield the positions in each component, in the order of their first items.

    Args:
        roots: The component of each item, as `find_components` returns it.
    """
    _, first, which = np.unique(np.array(roots, np.int64), return_index=True, return_inverse=True)
    # A stable sort keeps the items of a component in their order.
    order = np.argsort(first[which], kind="stable")
    ends = np.cumsum(np.bincount(which)[np.argsort(first)])
    for start, end in pairwise([0, *ends.tolist()]):
        yield order[start:end].tolist()


class DisjointSets:
    """Disjoint sets that grow as pairs are joined (union-find); the smaller set always moves.

    Attributes:
        names: ``(n,)`` int64, the set of each item by number; it changes as sets are joined.
    """

    def __init__(self, count: int) -> None:
        self.names = np.arange(count)
        self._members: dict[int, list[int]] = {}

    def join(self, one: int, other: int, *, most: int | None = None) -> bool:
        """Join the sets of two items; False where they are one set already or would have more than ``most`` items."""
        # Relabelling the smaller set bounds the work of all joins by n log n.
        names = sorted((int(self.names[one]), int(self.names[other])), key=lambda name: len(self._of(name)))
        if names[0] == names[1] or (most is not None and sum(len(self._of(name)) for name in names) > most):
            return False
        moved = self._of(names[0])
        self.names[moved] = names[1]
        self._members[names[1]] = self._of(names[1]) + moved
        self._members.pop(names[0], None)
        return True

    def _of(self, name: int) -> list[int]:
        return self._members.get(name, [name])
