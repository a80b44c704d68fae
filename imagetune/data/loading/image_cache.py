"""Cache of decoded and resized images, in memory or on disk, keyed by the SHA-256 of their files.

Cached pixels are identical to those of `load_image`. An image whose hash is unknown, which doesn't fit, or whose cached
row is corrupted is decoded as without a cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import psutil

from imagetune.core.row_store import (
    KEY_BYTES,
    MemoryRows,
    Rows,
    compute_row_bytes,
    find_cache_root,
    measure_free_disk,
    open_rows,
)
from imagetune.data.loading.decode import load_image

if TYPE_CHECKING:
    import numpy.typing as npt

    from imagetune.recipe.sections.data import DataConfig, ImageSettings

Kind = Literal["ram", "disk", "off"]

# Part of the cache key: to be raised whenever `load_image` returns other pixels for the same file.
DECODER_VERSION = 2
_TABLES = "images"
_GIB = 2**30


@dataclass(frozen=True)
class ImageCache:
    """Cache of the decoded images of one size.

    Attributes:
        kind: Where it is: in memory, on disk, or off.
        reason: Why it is there, as a clause.
        rows: The images ``(height, width, 3)`` uint8; None when the cache is off.
        places: The row of each image by path; images with the same content share one.
    """

    kind: Kind
    reason: str
    rows: Rows | None = None
    places: Mapping[str, int] = field(default_factory=dict)

    def find_places(self, paths: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the row of each image as ``(n,)`` int64, -1 for an image without one."""
        return np.fromiter((self.places.get(path, -1) for path in paths), np.int64, len(paths))


NO_CACHE = ImageCache("off", "data.cache is off")


class ImageCaches:
    """Caches of the decoded images of a run, one for each size, shared by all splits.

    Args:
        hashes: SHA-256 of each image by path, hexadecimal.
    """

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = hashes
        self._opened: dict[tuple[object, ...], ImageCache] = {}

    def open_cache(self, config: DataConfig, *, reads: int = 2) -> ImageCache:
        """Return the cache for the image size of ``config``, opened at the first call.

        Args:
            config: ``cache``, ``cache_gib``, ``workers`` and the image settings are used.
            reads: How often each image will be read; a cache doesn't pay for a single time.
        """
        # The number of workers and of reads decide which kind of cache it is, so they belong to the key.
        key = (config.image.model_dump_json(), config.cache, config.cache_gib, config.workers == 0, reads > 1)
        if key not in self._opened:
            self._opened[key] = open_image_cache(config, self._hashes, reads=reads)
        return self._opened[key]


@dataclass(frozen=True)
class ImageSource:
    """Images by position, from the cache where they are cached, else decoded from their files.

    Attributes:
        paths: Paths of the n files.
        image: Size, resize method, background and bit depth.
        max_pixels: Larger images are refused.
        rows: The cached images, or None without a cache.
        places: ``(n,)`` int64, row of each image in the cache, -1 without one.
    """

    paths: tuple[str, ...]
    image: ImageSettings
    max_pixels: int
    rows: Rows | None
    places: npt.NDArray[np.int64]

    def load(self, index: int) -> npt.NDArray[np.uint8]:
        """Return an image ``(height, width, 3)`` uint8 RGB that the caller may change.

        Raises:
            BadImageError: The image can't be decoded; ``where`` is its path.
        """
        place = int(self.places[index])
        if self.rows is None or place < 0:
            return self._decode(index)
        kept = self.rows.get(place)
        if kept is None:
            kept = self._decode(index)
            self.rows.put(place, kept)
        return kept

    def count_missing(self) -> int:
        """Return the number of images that are not cached yet."""
        if self.rows is None:
            return len(self.paths)
        known = self.places >= 0
        return len(self.paths) - int(self.rows.there()[self.places[known]].sum())

    def for_processes(self) -> ImageSource:
        """Return a source for other processes, without a cache in this process's memory."""
        return replace(self, rows=None) if isinstance(self.rows, MemoryRows) else self

    def _decode(self, index: int) -> npt.NDArray[np.uint8]:
        return load_image(self.paths[index], self.image, max_pixels=self.max_pixels)


def build_image_source(
    paths: Sequence[str], image: ImageSettings, *, max_pixels: int, cache: ImageCache | None
) -> ImageSource:
    """Return the image source of some files, with the cache if there is one."""
    cache = cache or NO_CACHE
    return ImageSource(tuple(paths), image, max_pixels, cache.rows, cache.find_places(paths))


def open_image_cache(
    config: DataConfig, hashes: Mapping[str, str], *, reads: int = 2, root: Path | None = None
) -> ImageCache:
    """Return the cache of decoded images, in memory, on disk or off, as the settings and the free space decide.

    Args:
        config: ``cache``, ``cache_gib``, ``workers`` and the image settings are used.
        hashes: SHA-256 of each image by path, hexadecimal; images without one are not cached.
        reads: How often each image will be read.
        root: Folder of all tables; `find_cache_root` by default.
    """
    if config.cache == "off":
        return NO_CACHE
    known = {path: code for path, code in hashes.items() if len(code) == 2 * KEY_BYTES}
    keys = list(dict.fromkeys(known.values()))
    if not keys:
        return ImageCache("off", "no image has a hash")
    numbers = {code: number for number, code in enumerate(keys)}
    root = root or find_cache_root()
    room = _Room(config, len(keys), disk=_measure_disk_room(root), memory=psutil.virtual_memory().available)
    kind, reason = _choose_kind(config, room)
    rows: Rows | None = None
    if kind == "disk":
        rows = _open_table(config, keys, room, root)
        kind, reason = ("disk", reason) if rows is not None else ("off", f"{root} can't be written")
        # A single read doesn't pay for filling a cache, but may use one that an earlier run has filled.
        if reads < 2 and config.cache == "auto" and rows is not None and not rows.there().all():
            return ImageCache("off", "each image is read once")
    elif kind == "ram":
        rows = MemoryRows(len(keys), _get_shape(config.image), np.uint8)
    if rows is None:
        return ImageCache("off", reason)
    return ImageCache(kind, reason, rows, {path: numbers[code] for path, code in known.items()})


@dataclass(frozen=True)
class _Room:
    """Space that decoded images need, and free space on disk and in memory, in bytes."""

    config: DataConfig
    count: int
    disk: int
    memory: int

    @property
    def needed(self) -> int:
        return self.count * compute_row_bytes(_get_shape(self.config.image), np.uint8)

    @property
    def on_disk(self) -> int:
        # The other half stays free for checkpoints and other programs.
        return min(self.config.cache_bytes, self.disk // 2)

    @property
    def description(self) -> str:
        return f"{self.count:,} decoded images take {self.needed / _GIB:.2g} GiB"


def _choose_kind(config: DataConfig, room: _Room) -> tuple[Kind, str]:
    """Return where to cache images, and why."""
    threads_only = config.workers == 0
    fits_disk = room.needed <= room.on_disk
    if config.cache == "ram":
        if threads_only and room.needed <= room.memory:
            return "ram", room.description
        why = "they don't fit into memory" if threads_only else "worker processes don't share memory"
        return "disk", f"{room.description}; {why}"
    if config.cache == "disk" or fits_disk:
        part = "" if fits_disk else f", {room.on_disk / _GIB:.2g} GiB of which are cached"
        return "disk", room.description + part
    if threads_only and room.needed <= room.memory // 4:
        return "ram", f"{room.description}, more than fits on the disk"
    return (
        "off",
        f"{room.description}, more than data.cache_gib, half of the free disk or a quarter of the memory allow",
    )


def _open_table(config: DataConfig, keys: Sequence[str], room: _Room, root: Path) -> Rows | None:
    image = config.image
    about = {
        "kind": _TABLES,
        "decoder": DECODER_VERSION,
        "resize": image.resize,
        "background": list(image.background),
        "bit_depth": image.bit_depth,
    }
    codes = [bytes.fromhex(code) for code in keys]
    return open_rows(about, codes, _get_shape(image), "|u1", budget_bytes=room.on_disk, root=root)


def _get_shape(image: ImageSettings) -> tuple[int, int, int]:
    return (image.height, image.width, 3)


def _measure_disk_room(root: Path) -> int:
    """Return the bytes available for tables: the free space, and what existing tables take up."""
    # Tables count as room, because old ones give way; and by their blocks, because they are sparse until rows come.
    try:
        taken = sum(file.stat().st_blocks * 512 for file in root.glob("*/*/*") if file.is_file())
    # Another process removes a table meanwhile, or there can be no folder of this name.
    except OSError:
        taken = 0
    return measure_free_disk(root) + taken
