"""Which of many looks may be alike, without comparing each with each: locality-sensitive hashing of a cosine transform.

A look is its lowest 8 x 8 frequencies. Their signs are cut into four bands by parity, because a mirrored image
changes the sign of all its odd frequencies: of a symmetric one these are zero but for noise, while the even ones
hold. Two looks meet where a band agrees after any of its least certain signs are turned (query-directed probing: Lv
et al., "Multi-Probe LSH", 2007). So a cropped or marked copy, which turns up to a third of all signs, still meets its
original.
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
# So many signs of a band may be wrong, if they are the least certain: 2 to that power look-ups.
UNCERTAIN_SIGNS = 6
# Of the length of all frequencies: weaker ones are no more than noise, and count as negative whichever way it turned.
COUNTS_FROM = 0.02
# Up to so many looks a product of matrices is quicker than look-ups.
ALL_PAIRS = 4096

_CHUNK = 1 << 20
_ROWS = 512


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the eight orientations of an image: mirrored at the diagonal first, then upside down, then sideways."""

    diagonal: bool = False
    rows: bool = False
    columns: bool = False

    @property
    def undoes_itself(self) -> bool:
        """Whether doing it twice changes nothing; a quarter turn alone does not."""
        return not self.diagonal or self.rows == self.columns

    def of_frequencies(self, frequencies: Floats) -> Floats:
        """Return the frequencies (n, 8, 8) of the turned images."""
        signs = np.where(np.arange(FREQUENCIES) % 2, np.float32(-1), np.float32(1))
        turned = frequencies.transpose(0, 2, 1) if self.diagonal else frequencies
        turned = turned * signs[:, None] if self.rows else turned
        return turned * signs if self.columns else turned

    def of_pixels(self, pixels: npt.NDArray[_Pixel]) -> npt.NDArray[_Pixel]:
        """Return the turned images; rows and columns are the last two axes."""
        turned = pixels.swapaxes(-1, -2) if self.diagonal else pixels
        turned = turned[..., ::-1, :] if self.rows else turned
        return turned[..., ::-1] if self.columns else turned


UPRIGHT = Turn()
# A quarter turn to the left is one to the right with the two images exchanged.
TURNS = (
    UPRIGHT,
    Turn(columns=True),
    Turn(rows=True),
    Turn(rows=True, columns=True),
    Turn(diagonal=True),
    Turn(diagonal=True, columns=True),
    Turn(diagonal=True, rows=True, columns=True),
)


class LookIndex:
    """Finds candidates among looks.

    Args:
        frequencies: ``(n, 8, 8)`` float32 of length 1, the mean set to zero.
        min_cosine: Pairs below it need not be yielded.
    """

    def __init__(self, frequencies: Floats, *, min_cosine: float) -> None:
        self._frequencies, self._least = frequencies, min_cosine
        self._tables = [_table(_codes(frequencies, band)) for band in _BANDS] if len(frequencies) > ALL_PAIRS else []

    def candidates(self, turn: Turn, families: Places) -> Iterator[tuple[Places, Places]]:
        """Yield pairs of positions whose looks may be alike once the first is turned; some come several times.

        Args:
            turn: How the first of each pair is turned.
            families: ``(n,)`` numbers that the caller may change as it goes on: pairs of equal ones may be left out.
        """
        turned = turn.of_frequencies(self._frequencies)
        if not self._tables:
            yield from self._compared(turned)
            return
        for band, (order, starts) in zip(_BANDS, self._tables, strict=True):
            codes, uncertain = _codes(turned, band), _uncertain(turned, band)
            for probe in range(1 << UNCERTAIN_SIGNS):
                mask = np.zeros(len(codes), np.int64)
                for sign in range(UNCERTAIN_SIGNS):
                    if probe >> sign & 1:
                        mask |= uncertain[sign]
                wanted = codes ^ mask
                left = starts[wanted]
                yield from _expand(left, starts[wanted + 1] - left, order, families)

    def _compared(self, turned: Floats) -> Iterator[tuple[Places, Places]]:
        """Yield the pairs of few looks, each compared with each."""
        others = self._frequencies.reshape(len(self._frequencies), -1).T
        for start in range(0, len(turned), _ROWS):
            rows = turned[start : start + _ROWS].reshape(-1, len(others))
            first, second = np.nonzero(rows @ others >= self._least)
            yield first + start, second


def _bands() -> tuple[npt.NDArray[np.intp], ...]:
    rows, columns = np.divmod(np.arange(FREQUENCIES * FREQUENCIES), FREQUENCIES)
    parities = rows % 2 * 2 + columns % 2
    return tuple(np.flatnonzero((parities == parity) & (rows + columns > 0)) for parity in range(4))


_BANDS = _bands()


def _codes(frequencies: Floats, band: npt.NDArray[np.intp]) -> Places:
    """Return the signs of a band as one number a look."""
    signs = frequencies.reshape(len(frequencies), -1)[:, band] > COUNTS_FROM
    codes: Places = signs @ (1 << np.arange(len(band), dtype=np.int64))
    return codes


def _uncertain(frequencies: Floats, band: npt.NDArray[np.intp]) -> list[Places]:
    """Return the bits of the least certain signs, one array (n,) each."""
    sizes = np.abs(frequencies.reshape(len(frequencies), -1)[:, band] - np.float32(COUNTS_FROM))
    least = np.argpartition(sizes, UNCERTAIN_SIGNS, axis=1)[:, :UNCERTAIN_SIGNS].astype(np.int64)
    return [np.int64(1) << least[:, sign] for sign in range(UNCERTAIN_SIGNS)]


def _table(codes: Places) -> tuple[Places, Places]:
    """Return the positions in order of their codes, and where each code begins among them."""
    order = np.argsort(codes, kind="stable").astype(np.int64)
    counts = np.bincount(codes, minlength=1 << 16)
    return order, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _expand(left: Places, count: Places, order: Places, families: Places) -> Iterator[tuple[Places, Places]]:
    """Turn ranges of the ordered index into pairs, about a million at a time."""
    rows = np.flatnonzero(count)
    while len(rows):
        rows = rows[~_settled(rows, left, order, families)]
        ends = np.cumsum(count[rows])
        some = max(1, int(np.searchsorted(ends, _CHUNK, "right")))
        part, rows = rows[:some], rows[some:]
        first = np.repeat(part, count[part])
        within = np.arange(len(first)) - np.repeat(np.cumsum(count[part]) - count[part], count[part])
        yield first, order[np.repeat(left[part], count[part]) + within]


def _settled(rows: Places, left: Places, order: Places, families: Places) -> npt.NDArray[np.bool]:
    """Return for which rows the whole range is of the row's own family."""
    starts, which = np.unique(left[rows], return_inverse=True)
    ordered = families[order]
    lowest, highest = np.minimum.reduceat(ordered, starts), np.maximum.reduceat(ordered, starts)
    # A range ends where the next begins or, where keys in between are not asked for, earlier: then it may seem mixed.
    same: npt.NDArray[np.bool] = (lowest[which] == families[rows]) & (highest[which] == families[rows])
    return same
