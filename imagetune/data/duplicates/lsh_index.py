"""Locality-sensitive hashing (LSH) of perceptual hashes: candidate pairs without comparing each image with each.

The hash has the signs of the lowest 8 x 8 frequencies of a cosine transform, in four bands by parity: mirroring an
image changes the sign of its odd frequencies, and those of a symmetric image are zero but for noise, while the even
ones hold. Two images are candidates where a band agrees after flipping any of its least certain signs (query-directed
probing: Lv et al., "Multi-Probe LSH", 2007). So a cropped or watermarked copy, in which up to a third of all signs
flip, is still found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Places = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float32]

_Pixel = TypeVar("_Pixel", bound=np.generic)

FREQUENCIES = 8
# So many of the least certain signs of a band may be wrong, at the price of 2 to that power look-ups.
UNCERTAIN_SIGNS = 6
# Share of the norm of all frequencies: a weaker one is noise and counts as negative, so that its sign can't flip.
MIN_STRENGTH = 0.02
# Up to so many images a product of matrices is faster than look-ups.
ALL_PAIRS = 4096

_CHUNK = 1 << 20
_ROWS = 512


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the eight orientations of an image: transposed first, then flipped vertically, then horizontally."""

    diagonal: bool = False
    rows: bool = False
    columns: bool = False

    @property
    def undoes_itself(self) -> bool:
        """Whether applying it twice restores the image, as all but the quarter turns do."""
        return not self.diagonal or self.rows == self.columns

    def orient_frequencies(self, frequencies: Floats) -> Floats:
        """Return the frequencies ``(n, 8, 8)`` of the images in this orientation."""
        signs = np.where(np.arange(FREQUENCIES) % 2, np.float32(-1), np.float32(1))
        turned = frequencies.transpose(0, 2, 1) if self.diagonal else frequencies
        turned = turned * signs[:, None] if self.rows else turned
        return turned * signs if self.columns else turned

    def orient_pixels(self, pixels: npt.NDArray[_Pixel]) -> npt.NDArray[_Pixel]:
        """Return the images in this orientation; rows and columns are the last two axes."""
        turned = pixels.swapaxes(-1, -2) if self.diagonal else pixels
        turned = turned[..., ::-1, :] if self.rows else turned
        return turned[..., ::-1] if self.columns else turned


UPRIGHT = Orientation()
# Seven are enough: a quarter turn to the left is one to the right with the two images exchanged.
ORIENTATIONS = (
    UPRIGHT,
    Orientation(columns=True),
    Orientation(rows=True),
    Orientation(rows=True, columns=True),
    Orientation(diagonal=True),
    Orientation(diagonal=True, columns=True),
    Orientation(diagonal=True, rows=True, columns=True),
)


class LshIndex:
    """Index that finds candidate pairs of near-duplicates.

    Args:
        frequencies: ``(n, 8, 8)`` float32 of norm 1, the mean set to zero.
        min_cosine: Pairs with a smaller cosine similarity need not be yielded.
    """

    def __init__(self, frequencies: Floats, *, min_cosine: float) -> None:
        self._frequencies, self._min_cosine = frequencies, min_cosine
        self._tables = (
            [_sort_by_code(_compute_codes(frequencies, band)) for band in _BANDS]
            if len(frequencies) > ALL_PAIRS
            else []
        )

    def candidates(self, orientation: Orientation, groups: Places) -> Iterator[tuple[Places, Places]]:
        """Yield pairs of positions that may be near-duplicates once the first is turned; some come several times.

        Args:
            orientation: How the first of each pair is turned.
            groups: ``(n,)`` group numbers, which the caller may change meanwhile: pairs within a group may be left out.
        """
        turned = orientation.orient_frequencies(self._frequencies)
        if not self._tables:
            yield from self._compare_all(turned)
            return
        for band, (order, starts) in zip(_BANDS, self._tables, strict=True):
            codes, uncertain = _compute_codes(turned, band), _find_uncertain_signs(turned, band)
            for probe in range(1 << UNCERTAIN_SIGNS):
                mask = np.zeros(len(codes), np.int64)
                for sign in range(UNCERTAIN_SIGNS):
                    if probe >> sign & 1:
                        mask |= uncertain[sign]
                wanted = codes ^ mask
                left = starts[wanted]
                yield from _expand(left, starts[wanted + 1] - left, order, groups)

    def _compare_all(self, turned: Floats) -> Iterator[tuple[Places, Places]]:
        """Yield the candidates among few images by comparing each with each."""
        others = self._frequencies.reshape(len(self._frequencies), -1).T
        for start in range(0, len(turned), _ROWS):
            rows = turned[start : start + _ROWS].reshape(-1, len(others))
            first, second = np.nonzero(rows @ others >= self._min_cosine)
            yield first + start, second


def _bands() -> tuple[npt.NDArray[np.intp], ...]:
    rows, columns = np.divmod(np.arange(FREQUENCIES * FREQUENCIES), FREQUENCIES)
    parities = rows % 2 * 2 + columns % 2
    # The lowest frequency is the mean, which is set to zero and so has no sign.
    return tuple(np.flatnonzero((parities == parity) & (rows + columns > 0)) for parity in range(4))


_BANDS = _bands()


def _compute_codes(frequencies: Floats, band: npt.NDArray[np.intp]) -> Places:
    """Return the signs of a band as one number for each image."""
    signs = frequencies.reshape(len(frequencies), -1)[:, band] > MIN_STRENGTH
    codes: Places = signs @ (1 << np.arange(len(band), dtype=np.int64))
    return codes


def _find_uncertain_signs(frequencies: Floats, band: npt.NDArray[np.intp]) -> list[Places]:
    """Return the bit of each of the least certain signs, as one array ``(n,)`` a sign."""
    sizes = np.abs(frequencies.reshape(len(frequencies), -1)[:, band] - np.float32(MIN_STRENGTH))
    least = np.argpartition(sizes, UNCERTAIN_SIGNS, axis=1)[:, :UNCERTAIN_SIGNS].astype(np.int64)
    return [np.int64(1) << least[:, sign] for sign in range(UNCERTAIN_SIGNS)]


def _sort_by_code(codes: Places) -> tuple[Places, Places]:
    """Return the positions sorted by code, and where each code begins among them."""
    order = np.argsort(codes, kind="stable").astype(np.int64)
    # A quarter of the 64 frequencies is in each band, so a code has at most 16 bits.
    counts = np.bincount(codes, minlength=1 << 16)
    return order, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _expand(left: Places, count: Places, order: Places, groups: Places) -> Iterator[tuple[Places, Places]]:
    """Yield the pairs in ranges of the sorted index, about a million at a time, which bounds the memory."""
    rows = np.flatnonzero(count)
    while len(rows):
        rows = rows[~_find_settled(rows, left, order, groups)]
        ends = np.cumsum(count[rows])
        some = max(1, int(np.searchsorted(ends, _CHUNK, "right")))
        part, rows = rows[:some], rows[some:]
        first = np.repeat(part, count[part])
        within = np.arange(len(first)) - np.repeat(np.cumsum(count[part]) - count[part], count[part])
        yield first, order[np.repeat(left[part], count[part]) + within]


def _find_settled(rows: Places, left: Places, order: Places, groups: Places) -> npt.NDArray[np.bool]:
    """Return for which rows the whole range is of the row's own group."""
    starts, which = np.unique(left[rows], return_inverse=True)
    ordered = groups[order]
    lowest, highest = np.minimum.reduceat(ordered, starts), np.maximum.reduceat(ordered, starts)
    # A range ends where the next begins or, where codes in between are not looked up, earlier: then it may seem mixed.
    same: npt.NDArray[np.bool] = (lowest[which] == groups[rows]) & (highest[which] == groups[rows])
    return same
