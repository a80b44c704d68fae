"""Nearly identical images, in any of the eight orientations: what is kept of each, and which pairs are alike.

A look is a grey 32 x 32 thumbnail, its colours on a 4 x 4 grid and its shape; an image with plain margins has two,
with and without them. Looks that `look_index` brings together are compared by the features of the thumbnails: the
strength of their edges, laid over each other as well as a crop allows (`alignment`). There are two ways to be nearly
identical:

- a copy: turned, cropped, resized, recompressed or marked, which leaves colours and edges as they were;
- a redrawn one: the same edges in the same place, in other colours or with a detail changed.

The limits were set on planted copies and by the families that a person sees in the shipped clipart set
(`tests/data`). On 190 drawings and made-up photographs this found 97% of the copies without 5% of each side, 97% of the
watermarked and all but one of the other ones, and called no two sound images alike. pHash of the library imagehash,
in all eight orientations, found 83% of the cropped ones within 10 bits, and 95% within 14, where it called 13% of the
sound images alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from imagetune.data.duplicates.alignment import correlations, edge_strengths, overlaid, standard
from imagetune.data.duplicates.groups import Families
from imagetune.data.duplicates.lsh_index import FREQUENCIES, TURNS, UPRIGHT, LookIndex, Turn

if TYPE_CHECKING:
    import numpy.typing as npt

    from imagetune.data.duplicates.lsh_index import Floats, Places

    Mask = npt.NDArray[np.bool]

# To be raised when the same image would give another look than before.
LOOK_VERSION = 6
SIDE = 32
GRID = 4
# Longer sides are shrunk to this before anything else.
TRIM_SIDE = 128
# All plain images look alike: those with less contrast (grey levels) than this, or with fewer frequencies that count
# (at least 2% of the strongest). Stripes and crosses have 3 to 20 of the 63, other drawings 20 to 60.
MIN_CONTRAST = 4.0
MIN_FREQUENCIES = 20
COUNTS_FROM = 0.02
# Cosine of the frequencies of two looks: copies that lost 5% on every side have 0.8 and more, redrawn ones 0.95.
COPY_COSINE, REDRAWN_COSINE = 0.75, 0.95
# Mean difference of the 4 x 4 light and colour values of copies, in levels.
COPY_LIGHT, COPY_COLOURS = 26.0, 10.0
# Plain images of other colours are other images.
PLAIN_COLOURS = (5.0, 3.0)
# Of the edges of redrawn ones, where they are.
REDRAWN_EDGES = 0.87
# Of edges and of grey levels, once one thumbnail is laid over the other.
LAID_EDGES, LAID_GREY = 0.89, 0.9
# Soft images have so weak edges that compression blurs them.
SOFT_EDGES, SOFT_GREY = 0.7, 0.985
SIDES_RATIO, REDRAWN_SIDES_RATIO = 1.12, 1.06
# What was only turned, resized, squeezed or recompressed is the same all over.
SAME_EDGES = 0.95
# A look is common that resembles more others than this share of the images, bounded by these counts.
COMMON_SHARE, COMMON_COUNTS = 0.1, (20, 60)
# Looks that resemblance may join to one family: a longer chain has ends that don't resemble each other.
LONGEST_CHAIN = 64

_LOOK = np.dtype([("grey", "u1", (SIDE, SIDE)), ("colours", "u1", (2, GRID, GRID)), ("ratio", "<f4"), ("plain", "?")])
_TRIM_LEVELS = 32
_TRIM_SHARE = 0.02
# A look of the whole image is kept beside that without margins when they took more than this of a side, and left more
# than this of the area: small things on white paper are all alike from afar.
_TRIM_MATTERS, _TRIM_LEAVES = 0.03, 0.15
# The first pairs of a family connect most of it, and the rest needs no look: blocks grow.
_FIRST_BLOCK, _LARGEST_BLOCK = 1 << 8, 1 << 12


def shrunk(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the image with at most 128 pixels on its longer side, areas averaged; a smaller one as it is.

    Args:
        image: ``(h, w, 3)`` uint8.
    """
    scale = TRIM_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small: npt.NDArray[np.uint8] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return small


def look_of(image: npt.NDArray[np.uint8]) -> tuple[int | None, bytes]:
    """Return what `near_pairs` compares.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.

    Returns:
        A 64-bit hash: the signs of the lowest 63 frequencies (None for a plain image); and the looks as bytes (empty
        for one too plain to be told from any other).
    """
    whole = shrunk(image)
    trimmed = _trim(whole)
    look = _look(trimmed)
    if min(trimmed.shape[:2]) < 4 or float(look["grey"].std()) < MIN_CONTRAST:
        return None, b""
    sizes = np.abs(frequencies := _frequencies(look["grey"]))
    if np.count_nonzero(sizes > COUNTS_FROM * sizes.max()) < MIN_FREQUENCIES:
        # Without its margins a flag is one stripe, which many others have.
        return None, _look(whole, plain=True).tobytes()
    signs = np.packbits(frequencies.ravel() > 0)
    rows, columns = trimmed.shape[0] / whole.shape[0], trimmed.shape[1] / whole.shape[1]
    worth = min(rows, columns) < 1 - _TRIM_MATTERS and rows * columns > _TRIM_LEAVES
    beside = _look(whole).tobytes() if worth else b""
    return int.from_bytes(signs.tobytes(), "big"), look.tobytes() + beside


def near_pairs(looks: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yield pairs of positions whose images are nearly the same.

    Enough pairs come to tell what belongs together; one that earlier pairs have connected is passed over. So the many
    images of a film cost little more than as many different ones.

    Args:
        looks: Those of `look_of`, empty where there is none.
    """
    owners = np.repeat(np.arange(len(looks)), [len(look) // _LOOK.itemsize for look in looks])
    if len(owners) < 2:
        return
    judge, families = _Judge(np.frombuffer(b"".join(looks), _LOOK)), Families(len(owners))
    for look in np.flatnonzero(owners[1:] == owners[:-1]).tolist():
        families.join(look, look + 1)
    rest = _Rest(len(owners), most=int(np.clip(len(looks) * COMMON_SHARE, *COMMON_COUNTS)))
    index = LookIndex(judge.frequencies, min_cosine=COPY_COSINE)
    for turn in TURNS:
        for first, second in index.candidates(turn, families.names):
            pairs = rest.new(judge.likely(first, second, turn, families.names), turn)
            for one, other in _joined(pairs, turn, judge.same, families):
                yield int(owners[one]), int(owners[other])
    for turn in TURNS:
        for one, other in _joined(rest.pairs(turn), turn, judge.alike, families, most=LONGEST_CHAIN):
            yield int(owners[one]), int(owners[other])


def _joined(
    pairs: tuple[Places, Places],
    turn: Turn,
    judge: Callable[[Places, Places, Turn], Mask],
    families: Families,
    most: int | None = None,
) -> Iterator[tuple[int, int]]:
    """Yield the pairs of looks that are alike and connect what was apart, to families of at most ``most`` looks."""
    start, size = 0, _FIRST_BLOCK
    while start < len(pairs[0]):
        first, second = pairs[0][start : start + size], pairs[1][start : start + size]
        apart = families.names[first] != families.names[second]
        first, second = first[apart], second[apart]
        alike = judge(first, second, turn)
        for one, other in zip(first[alike].tolist(), second[alike].tolist(), strict=True):
            if families.join(one, other, most=most):
                yield one, other
        start, size = start + size, min(2 * size, _LARGEST_BLOCK)


class _Rest:
    """The pairs that a closer look may find to be alike, but for looks that resemble too many others.

    Digits, faces or X-rays that fill their frame all resemble each other: there only images that are the same all
    over are copies.
    """

    def __init__(self, count: int, *, most: int) -> None:
        self._count, self._most = count, most
        self._keys: dict[Turn, Places] = {turn: np.zeros(0, np.int64) for turn in TURNS}
        # How many others each look resembles in each orientation: a symmetric one resembles the same ones in several.
        self._resembled = {turn: np.zeros(count, np.int64) for turn in TURNS}

    def new(self, keys: Places, turn: Turn) -> tuple[Places, Places]:
        """Return those of the pairs that have not been met before, and note them."""
        keys = np.setdiff1d(keys, self._keys[turn], assume_unique=True)
        first, second = np.divmod(keys, self._count)
        self._resembled[turn] += np.bincount(np.concatenate([first, second]), minlength=self._count)
        self._keys[turn] = np.union1d(self._keys[turn], keys[self._rare(first) & self._rare(second)])
        return first, second

    def pairs(self, turn: Turn) -> tuple[Places, Places]:
        """Return the pairs of rare looks."""
        first, second = np.divmod(self._keys[turn], self._count)
        rare = self._rare(first) & self._rare(second)
        return first[rare], second[rare]

    def _rare(self, looks: Places) -> Mask:
        rare: Mask = np.max([counts[looks] for counts in self._resembled.values()], axis=0) <= self._most
        return rare


class _Judge:
    """Compares looks; the first of each pair is turned."""

    def __init__(self, looks: npt.NDArray[np.void]) -> None:
        self.count = len(looks)
        self.frequencies = _frequencies(looks["grey"])
        self._plain = looks["plain"]
        self._grey = looks["grey"]
        self._edges = np.empty((self.count, SIDE, SIDE), np.float16)
        for start in range(0, self.count, _LARGEST_BLOCK):
            part = slice(start, start + _LARGEST_BLOCK)
            self._edges[part] = standard(edge_strengths(looks["grey"][part].astype(np.float32)))
        light = looks["grey"].reshape(self.count, GRID, SIDE // GRID, GRID, SIDE // GRID).mean(axis=(2, 4))
        self._colours = np.concatenate([light[:, None], looks["colours"]], axis=1).astype(np.int16)
        self._sides = np.log(looks["ratio"])

    def likely(self, first: Places, second: Places, turn: Turn, families: Places) -> Places:
        """Return the pairs of different families worth a closer look, each once, as ``first * count + second``."""
        apart = families[first] != families[second]
        first, second = first[apart], second[apart]
        if turn.undoes_itself:
            first, second = np.minimum(first, second), np.maximum(first, second)
        first, second = np.divmod(np.unique(first * self.count + second), self.count)
        turned = turn.of_frequencies(self.frequencies[first])
        cosines = np.einsum("ijk,ijk->i", turned, self.frequencies[second])
        near = cosines >= COPY_COSINE
        first, second, cosines = first[near], second[near], cosines[near]
        likely = self._colours_agree(first, second, turn)
        if turn == UPRIGHT:
            likely |= (cosines >= REDRAWN_COSINE) & (self._apart(first, second, turn) <= np.log(REDRAWN_SIDES_RATIO))
        keys: Places = first[likely] * self.count + second[likely]
        return keys

    def same(self, first: Places, second: Places, turn: Turn) -> Mask:
        """Return which pairs are the same all over: turned, resized, squeezed or recompressed, or plain."""
        plain = self._plain[first] | self._plain[second]
        copies = self._colours_agree(first, second, turn)
        strict = self._colours_agree(first, second, turn, PLAIN_COLOURS)
        strict &= self._apart(first, second, turn) <= np.log(REDRAWN_SIDES_RATIO)
        same: Mask = (self._edge_correlations(first, second, turn) >= SAME_EDGES) & np.where(plain, strict, copies)
        return same

    def alike(self, first: Places, second: Places, turn: Turn) -> Mask:
        """Return which pairs are redrawn, cropped or marked."""
        apart = self._apart(first, second, turn)
        worth = ~self._plain[first] & ~self._plain[second]
        alike: Mask = np.zeros(len(first), bool)
        if turn == UPRIGHT:
            edges = self._edge_correlations(first, second, turn)
            alike = worth & (edges >= REDRAWN_EDGES) & (apart <= np.log(REDRAWN_SIDES_RATIO))
        rest = np.flatnonzero(
            ~alike & worth & (apart <= np.log(SIDES_RATIO)) & self._colours_agree(first, second, turn)
        )
        moved = np.ascontiguousarray(turn.of_pixels(self._grey[first[rest]])).astype(np.float32)
        fixed = self._grey[second[rest]].astype(np.float32)
        alike[rest] = _cropped(fixed, moved) | _cropped(moved, fixed)
        return alike

    def _edge_correlations(self, first: Places, second: Places, turn: Turn) -> npt.NDArray[np.float32]:
        moved = turn.of_pixels(self._edges[first]).astype(np.float32)
        sums: npt.NDArray[np.float32] = np.einsum("ijk,ijk->i", moved, self._edges[second].astype(np.float32))
        return sums / np.float32(SIDE * SIDE)

    def _apart(self, first: Places, second: Places, turn: Turn) -> npt.NDArray[np.float32]:
        """Return the logarithms of how much longer one is than the other."""
        sides = -self._sides[first] if turn.diagonal else self._sides[first]
        apart: npt.NDArray[np.float32] = np.abs(sides - self._sides[second])
        return apart

    def _colours_agree(
        self, first: Places, second: Places, turn: Turn, most: tuple[float, float] = (COPY_LIGHT, COPY_COLOURS)
    ) -> Mask:
        differences = np.abs(turn.of_pixels(self._colours[first]) - self._colours[second]).mean(axis=(2, 3))
        agree: Mask = (differences <= (most[0], most[1], most[1])).all(axis=1)
        return agree


def _cropped(fixed: Floats, moved: Floats) -> Mask:
    """Return whether the fixed one looks the same as a part of the moved one."""
    if not len(fixed):
        return np.zeros(0, bool)
    laid, covered = overlaid(fixed, moved)
    edges = correlations(edge_strengths(laid), edge_strengths(fixed), covered)
    grey = correlations(laid, fixed, covered)
    sharp = (edges >= LAID_EDGES) & (grey >= LAID_GREY)
    same: Mask = sharp | ((edges >= SOFT_EDGES) & (grey >= SOFT_GREY))
    return same


def _look(image: npt.NDArray[np.uint8], *, plain: bool = False) -> npt.NDArray[np.void]:
    look = np.zeros(1, _LOOK)
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    look["grey"] = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    grid = cv2.resize(small, (GRID, GRID), interpolation=cv2.INTER_AREA)
    look["colours"] = cv2.cvtColor(grid, cv2.COLOR_RGB2YCrCb)[:, :, 1:].transpose(2, 0, 1)
    look["ratio"] = image.shape[1] / image.shape[0]
    look["plain"] = plain
    return look


def _frequencies(grey: npt.NDArray[np.uint8]) -> Floats:
    """Return the lowest 8 x 8 frequencies (n, 8, 8) of thumbnails (n, 32, 32), of length 1 without the mean."""
    steps = np.arange(FREQUENCIES)[:, None] * (2 * np.arange(SIDE) + 1)[None]
    cosines = np.cos(np.pi * steps / (2 * SIDE)).astype(np.float32)
    cosines[0] /= np.sqrt(np.float32(2))
    frequencies = np.empty((len(grey), FREQUENCIES, FREQUENCIES), np.float32)
    for start in range(0, len(grey), _LARGEST_BLOCK):
        frequencies[start : start + _LARGEST_BLOCK] = cosines @ grey[start : start + _LARGEST_BLOCK] @ cosines.T
    frequencies[:, 0, 0] = 0
    lengths = np.linalg.norm(frequencies, axis=(1, 2), keepdims=True)
    scaled: Floats = frequencies / np.maximum(lengths, 1e-6)
    return scaled


def _trim(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Cut plain margins off."""
    border = np.sort(np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]), axis=0).astype(np.int16)
    middle = len(border) // 2
    margin = (border[middle - 1] + border[middle]) // 2
    lowest, highest = np.clip(margin - _TRIM_LEVELS, 0, 255), np.clip(margin + _TRIM_LEVELS, 0, 255)
    content = cv2.inRange(image, lowest, highest) == 0
    rows = np.flatnonzero(content.mean(axis=1) > _TRIM_SHARE)
    columns = np.flatnonzero(content.mean(axis=0) > _TRIM_SHARE)
    if not len(rows) or not len(columns):
        return image
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
