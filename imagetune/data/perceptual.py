"""Nearly identical pictures: a 64-bit perceptual hash, and a second look at the edges of each candidate pair.

The hash is the sign of the 63 lowest frequencies of a 32 x 32 grey cosine transform around their median (Zauner,
"Implementation and Benchmarking of Perceptual Image Hash Functions", 2010), taken after plain margins are trimmed. On
drawings that alone lumps flags with flags, so a pair must also correlate in the strength of its edges. The two limits
were set by looking at the families found in the shipped clipart set: copies, recoloured and retouched ones join, other
drawings of the same thing do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    _Places = npt.NDArray[np.int64]

SIDE = 32
HASH_DISTANCE = 6
EDGE_CORRELATION = 0.85
SIDES_RATIO = 1.12
# All plain pictures look alike: those with less contrast (grey levels) than this, or with fewer frequencies that count
# (at least 2% of the strongest). Stripes and crosses have 3 to 20 of the 63, other drawings 20 to 60.
LEAST_CONTRAST = 4.0
LEAST_FREQUENCIES = 20
COUNTS_FROM = 0.02
# Longer sides are shrunk to this before plain margins are cut off.
TRIM_SIDE = 128

_TRIM_LEVELS = 32
_TRIM_SHARE = 0.02
_BANDS = 4
_BAND_BITS = 16
_CHUNK = 1 << 20
# The first pairs of a family connect most of it, and the rest needs no look: blocks grow.
_FIRST_BLOCK, _LARGEST_BLOCK = 1 << 8, 1 << 16
# A matrix product of all rows and columns is quicker than single pairs even when a quarter of its cells is asked for.
_DENSE = 4


def look_of(picture: npt.NDArray[np.uint8]) -> tuple[int | None, bytes, float]:
    """Return what `near_pairs` compares.

    Args:
        picture: ``(h, w, 3)`` uint8 RGB.

    Returns:
        The hash (None for a picture too plain to be told from others), its trimmed 32 x 32 grey thumbnail as bytes, and
        the ratio of width to height after trimming.
    """
    trimmed = _trim(picture)
    grey = cv2.cvtColor(cv2.resize(trimmed, (SIDE, SIDE), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    ratio = trimmed.shape[1] / trimmed.shape[0]
    if float(grey.std()) < LEAST_CONTRAST or min(trimmed.shape[:2]) < 4:
        return None, b"", ratio
    low = cv2.dct(grey.astype(np.float32))[:8, :8].ravel()[1:]
    if np.count_nonzero(np.abs(low) > COUNTS_FROM * np.abs(low).max()) < LEAST_FREQUENCIES:
        return None, b"", ratio
    median = np.partition(low, len(low) // 2)[len(low) // 2]
    bits = np.packbits(np.append(low > median, False))
    return int.from_bytes(bits.tobytes(), "big"), grey.tobytes(), ratio


def near_pairs(
    hashes: Sequence[int], thumbnails: Sequence[bytes], ratios: Sequence[float]
) -> Iterator[tuple[int, int]]:
    """Yield the pairs of positions whose pictures look nearly the same.

    Candidates come from an index over four bands of 16 bits: within a distance of 6 at least one band differs in at
    most one bit, so 17 look-ups a band find them all (Norouzi et al., "Fast Search in Hamming Space with Multi-Index
    Hashing", 2012).

    Enough pairs come to tell what belongs together; one that earlier pairs have connected is passed over. So the many
    pictures of a film cost little more than as many different ones.

    Args:
        hashes: 64-bit hashes of `look_of`.
        thumbnails: Their thumbnails.
        ratios: Their ratios of width to height.
    """
    if len(hashes) < 2:
        return
    codes = np.array(hashes, np.uint64)
    sides = np.log(np.array(ratios))
    families, edges = _Families(len(codes)), _Edges(thumbnails)
    for first, second in _candidates(codes, families.names):
        distance = np.bitwise_count(codes[first] ^ codes[second])
        close = (distance <= HASH_DISTANCE) & (np.abs(sides[first] - sides[second]) <= np.log(SIDES_RATIO))
        yield from _alike(first[close], second[close], families, edges)


def _alike(first: _Places, second: _Places, families: _Families, edges: _Edges) -> Iterator[tuple[int, int]]:
    """Yield the pairs whose edges correlate and that connect what was apart."""
    start, size = 0, _FIRST_BLOCK
    while start < len(first):
        block = slice(start, start + size)
        apart = families.names[first[block]] != families.names[second[block]]
        ones, others = first[block][apart], second[block][apart]
        alike = edges.correlations(ones, others) >= EDGE_CORRELATION
        for one, other in zip(ones[alike].tolist(), others[alike].tolist(), strict=True):
            if families.join(one, other):
                yield one, other
        start, size = start + size, min(2 * size, _LARGEST_BLOCK)


def edge_correlation(one: bytes, other: bytes) -> float:
    """Return the Pearson correlation of the edge strengths (Sobel) of two thumbnails, -1 to 1."""
    first, second = _edges(one), _edges(other)
    scale = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / scale if scale else 0.0


class _Families:
    """What is connected so far: ``names`` has one number for all positions of a family."""

    def __init__(self, count: int) -> None:
        self.names = np.arange(count)
        self._members: dict[int, list[int]] = {}

    def join(self, one: int, other: int) -> bool:
        """Make one family of two; False where they are one already."""
        names = sorted((int(self.names[one]), int(self.names[other])), key=lambda name: len(self._of(name)))
        if names[0] == names[1]:
            return False
        moved = self._of(names[0])
        self.names[moved] = names[1]
        self._members[names[1]] = self._of(names[1]) + moved
        self._members.pop(names[0], None)
        return True

    def _of(self, name: int) -> list[int]:
        return self._members.get(name, [name])


class _Edges:
    """The edge strengths of thumbnails, of length 1, computed for those that are asked for."""

    def __init__(self, thumbnails: Sequence[bytes]) -> None:
        self._thumbnails = thumbnails
        # Pages that nobody has written take no memory.
        self._rows = np.empty((len(thumbnails), SIDE * SIDE), np.float32)
        self._there = np.zeros(len(thumbnails), bool)

    def correlations(self, ones: _Places, others: _Places) -> npt.NDArray[np.float32]:
        """Return the Pearson correlation of each pair."""
        if not len(ones):
            return np.zeros(0, np.float32)
        rows, row = np.unique(ones, return_inverse=True)
        columns, column = np.unique(others, return_inverse=True)
        if len(rows) * len(columns) <= _DENSE * len(ones):
            products: npt.NDArray[np.float32] = (self._of(rows) @ self._of(columns).T)[row, column]
            return products
        sums: npt.NDArray[np.float32] = np.einsum("ij,ij->i", self._of(ones), self._of(others))
        return sums

    def _of(self, places: _Places) -> npt.NDArray[np.float32]:
        for place in np.unique(places[~self._there[places]]).tolist():
            edges = _edges(self._thumbnails[place])
            self._rows[place] = edges / max(float(np.linalg.norm(edges)), 1e-12)
            self._there[place] = True
        return self._rows[places]


def _edges(thumbnail: bytes) -> npt.NDArray[np.float32]:
    grey = np.frombuffer(thumbnail, np.uint8).reshape(SIDE, SIDE)
    strength = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)).ravel()
    centred: npt.NDArray[np.float32] = strength - strength.mean()
    return centred


def _candidates(codes: npt.NDArray[np.uint64], families: _Places | None = None) -> Iterator[tuple[_Places, _Places]]:
    """Yield arrays of pairs ``first < second`` that agree in a band but for one bit, each pair once.

    Args:
        codes: Hashes.
        families: ``(n,)`` numbers that the caller may change as it goes on: pairs of equal ones may be left out.
    """
    masks = np.array([0, *(1 << bit for bit in range(_BAND_BITS))], np.uint16)
    bands = [((codes >> np.uint64(band * _BAND_BITS)) & np.uint64(0xFFFF)).astype(np.uint16) for band in range(_BANDS)]
    for band, keys in enumerate(bands):
        order = np.argsort(keys, kind="stable").astype(np.int64)
        ordered = keys[order]
        for mask in masks:
            wanted = keys ^ mask
            left = np.searchsorted(ordered, wanted, "left")
            count = np.searchsorted(ordered, wanted, "right") - left
            for first, second in _expand(left, count, order, families):
                keep = first < second
                for other in bands[:band]:
                    keep &= np.bitwise_count(other[first] ^ other[second]) > 1
                yield first[keep], second[keep]


def _expand(
    left: _Places, count: _Places, order: _Places, families: _Places | None
) -> Iterator[tuple[_Places, _Places]]:
    """Turn ranges of the ordered index into pairs, about a million at a time."""
    rows = np.flatnonzero(count)
    while len(rows):
        if families is not None:
            rows = rows[~_settled(rows, left, order, families)]
        ends = np.cumsum(count[rows])
        some = max(1, int(np.searchsorted(ends, _CHUNK, "right")))
        part, rows = rows[:some], rows[some:]
        first = np.repeat(part, count[part])
        within = np.arange(len(first)) - np.repeat(np.cumsum(count[part]) - count[part], count[part])
        yield first, order[np.repeat(left[part], count[part]) + within]


def _settled(rows: _Places, left: _Places, order: _Places, families: _Places) -> npt.NDArray[np.bool]:
    """Return for which rows the whole range is of the row's own family."""
    starts, which = np.unique(left[rows], return_inverse=True)
    ordered = families[order]
    lowest, highest = np.minimum.reduceat(ordered, starts), np.maximum.reduceat(ordered, starts)
    # A range ends where the next begins or, where keys in between are not asked for, earlier: then it may seem mixed.
    same: npt.NDArray[np.bool] = (lowest[which] == families[rows]) & (highest[which] == families[rows])
    return same


def _trim(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Cut plain margins off a copy of at most 128 pixels a side."""
    scale = TRIM_SIDE / max(picture.shape[:2])
    if scale < 1:
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    border = np.sort(np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]]), axis=0).astype(np.int16)
    middle = len(border) // 2
    margin = (border[middle - 1] + border[middle]) // 2
    lowest, highest = np.clip(margin - _TRIM_LEVELS, 0, 255), np.clip(margin + _TRIM_LEVELS, 0, 255)
    content = cv2.inRange(picture, lowest, highest) == 0
    rows = np.flatnonzero(content.mean(axis=1) > _TRIM_SHARE)
    columns = np.flatnonzero(content.mean(axis=0) > _TRIM_SHARE)
    if not len(rows) or not len(columns):
        return picture
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
