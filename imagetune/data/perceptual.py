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

SIDE = 32
HASH_DISTANCE = 6
EDGE_CORRELATION = 0.85
SIDES_RATIO = 1.12
# All plain pictures look alike: those with less contrast (grey levels) than this, or with fewer frequencies that count
# (at least 2% of the strongest). Stripes and crosses have 3 to 20 of the 63, other drawings 20 to 60.
LEAST_CONTRAST = 4.0
LEAST_FREQUENCIES = 20
COUNTS_FROM = 0.02

_TRIM_SIDE = 128
_TRIM_LEVELS = 32
_TRIM_SHARE = 0.02
_BANDS = 4
_BAND_BITS = 16
_CHUNK = 1 << 20


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
    bits = np.packbits(np.append(low > np.median(low), False))
    return int.from_bytes(bits.tobytes(), "big"), grey.tobytes(), ratio


def near_pairs(
    hashes: Sequence[int], thumbnails: Sequence[bytes], ratios: Sequence[float]
) -> Iterator[tuple[int, int]]:
    """Yield the pairs of positions whose pictures look nearly the same.

    Candidates come from an index over four bands of 16 bits: within a distance of 6 at least one band differs in at
    most one bit, so 17 look-ups a band find them all (Norouzi et al., "Fast Search in Hamming Space with Multi-Index
    Hashing", 2012).

    Args:
        hashes: 64-bit hashes of `look_of`.
        thumbnails: Their thumbnails.
        ratios: Their ratios of width to height.
    """
    if len(hashes) < 2:
        return
    codes = np.array(hashes, np.uint64)
    sides = np.log(np.array(ratios))
    for first, second in _candidates(codes):
        distance = np.bitwise_count(codes[first] ^ codes[second])
        close = (distance <= HASH_DISTANCE) & (np.abs(sides[first] - sides[second]) <= np.log(SIDES_RATIO))
        for one, other in zip(first[close].tolist(), second[close].tolist(), strict=True):
            if edge_correlation(thumbnails[one], thumbnails[other]) >= EDGE_CORRELATION:
                yield one, other


def edge_correlation(one: bytes, other: bytes) -> float:
    """Return the Pearson correlation of the edge strengths (Sobel) of two thumbnails, -1 to 1."""
    first, second = _edges(one), _edges(other)
    scale = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / scale if scale else 0.0


def _edges(thumbnail: bytes) -> npt.NDArray[np.float32]:
    grey = np.frombuffer(thumbnail, np.uint8).reshape(SIDE, SIDE)
    strength = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)).ravel()
    centred: npt.NDArray[np.float32] = strength - strength.mean()
    return centred


def _candidates(codes: npt.NDArray[np.uint64]) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield arrays of pairs ``first < second`` that agree in a band but for one bit; a pair may come more than once."""
    masks = np.array([0, *(1 << bit for bit in range(_BAND_BITS))], np.uint16)
    for band in range(_BANDS):
        keys = ((codes >> np.uint64(band * _BAND_BITS)) & np.uint64(0xFFFF)).astype(np.uint16)
        order = np.argsort(keys, kind="stable").astype(np.int64)
        ordered = keys[order]
        for mask in masks:
            wanted = keys ^ mask
            left = np.searchsorted(ordered, wanted, "left")
            count = np.searchsorted(ordered, wanted, "right") - left
            yield from _expand(left, count, order)


def _expand(
    left: npt.NDArray[np.int64], count: npt.NDArray[np.int64], order: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Turn ranges of the ordered index into pairs, about a million at a time."""
    ends = np.cumsum(count)
    start = 0
    while start < len(count):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CHUNK, "right")))
        part = count[start:stop]
        first = np.repeat(np.arange(start, stop), part)
        within = np.arange(len(first)) - np.repeat(np.cumsum(part) - part, part)
        second = order[np.repeat(left[start:stop], part) + within]
        keep = first < second
        yield first[keep], second[keep]
        start = stop


def _trim(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Cut plain margins off a copy of at most 128 pixels a side."""
    scale = _TRIM_SIDE / max(picture.shape[:2])
    if scale < 1:
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    margin = np.median(border, axis=0).astype(np.int16)
    content = (np.abs(picture.astype(np.int16) - margin) > _TRIM_LEVELS).any(axis=2)
    rows = np.flatnonzero(content.mean(axis=1) > _TRIM_SHARE)
    columns = np.flatnonzero(content.mean(axis=0) > _TRIM_SHARE)
    if not len(rows) or not len(columns):
        return picture
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
