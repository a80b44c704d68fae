"""Images that were decoded and resized once: kept in memory or on disk, and found by the SHA-256 of their file.

What comes back is what `load_image` gave, to the last pixel. An image whose hash isn't known, for which there is no
room, or whose row was corrupted is decoded as without a cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import psutil

from imagetune.core.row_store import KEY_BYTES, MemoryRows, Rows, cache_root, free_disk, open_rows, row_bytes
from imagetune.data.loading.decode import load_image

if TYPE_CHECKING:
    import numpy.typing as npt

    from imagetune.recipe.data import DataConfig, ImageSettings

Kind = Literal["ram", "disk", "off"]

# To be raised whenever `load_image` makes other pixels of the same file.
DECODER_VERSION = 1
_TABLES = "images"
_GIB = 2**30


@dataclass(frozen=True)
class ImageCache:
    """The decoded images of one size, and why they are kept where they are.

    Attributes:
        kind: In memory, on disk, or nowhere.
        reason: Why, as a clause.
        rows: The images ``(height, width, 3)`` uint8; None where they are kept nowhere.
        places: The row of each image by its path; images with the same content share one.
    """

    kind: Kind
    reason: str
    rows: Rows | None = None
    places: Mapping[str, int] = field(default_factory=dict)

    def find_places(self, paths: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the row ``(n,)`` of each image, -1 without one."""
        return np.fromiter((self.places.get(path, -1) for path in paths), np.int64, len(paths))


NO_CACHE = ImageCache("off", "data.cache is off")


class ImageCaches:
    """The decoded images of a run: opened once for each size that they are brought to, for all splits together.

    Args:
        hashes: SHA-256 of each image by its path, hexadecimal.
    """

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = hashes
        self._opened: dict[tuple[object, ...], ImageCache] = {}

    def opened(self, config: DataConfig, *, reads: int = 2) -> ImageCache:
        """Return the cache of images of the size that ``config`` asks for.

        Args:
            config: Its cache, cache_gib, workers, and image settings count.
            reads: How often each image will be read. A single time doesn't pay.
        """
        key = (config.image.model_dump_json(), config.cache, config.cache_gib, config.workers == 0, reads > 1)
        if key not in self._opened:
            self._opened[key] = open_image_cache(config, self._hashes, reads=reads)
        return self._opened[key]


@dataclass(frozen=True)
class ImageSource:
    """Gives images by their position: from the cache as far as they are there, else from their files.

    Attributes:
        paths: n files.
        image: The size that they are brought to.
        max_pixels: Larger images are refused.
        rows: Decoded images, or None.
        places: ``(n,)`` int64 row of each image, -1 without one.
    """

    paths: tuple[str, ...]
    image: ImageSettings
    max_pixels: int
    rows: Rows | None
    places: npt.NDArray[np.int64]

    def load(self, index: int) -> npt.NDArray[np.uint8]:
        """Return an image ``(height, width, 3)`` uint8 RGB that the caller may change.

        Raises:
            BadImageError: It can't be decoded; ``where`` is its path.
        """
        place = int(self.places[index])
        if self.rows is None or place < 0:
            return self._decoded(index)
        kept = self.rows.get(place)
        if kept is None:
            kept = self._decoded(index)
            self.rows.put(place, kept)
        return kept

    def missing(self) -> int:
        """Return how many images must be decoded still."""
        if self.rows is None:
            return len(self.paths)
        known = self.places >= 0
        return len(self.paths) - int(self.rows.there()[self.places[known]].sum())

    def for_processes(self) -> ImageSource:
        """Return what other processes can use: they don't share this one's memory."""
        return replace(self, rows=None) if isinstance(self.rows, MemoryRows) else self

    def _decoded(self, index: int) -> npt.NDArray[np.uint8]:
        return load_image(self.paths[index], self.image, max_pixels=self.max_pixels)


def build_image_source(
    paths: Sequence[str], image: ImageSettings, *, max_pixels: int, cache: ImageCache | None
) -> ImageSource:
    """Return where the images of these files come from."""
    cache = cache or NO_CACHE
    return ImageSource(tuple(paths), image, max_pixels, cache.rows, cache.find_places(paths))


def open_image_cache(
    config: DataConfig, hashes: Mapping[str, str], *, reads: int = 2, root: Path | None = None
) -> ImageCache:
    """Decide where decoded images are kept, and open that.

    Args:
        config: Its cache, cache_gib, workers, and image settings count.
        hashes: SHA-256 of each image by its path, hexadecimal; images without one are left out.
        reads: How often each image will be read.
        root: Folder of all tables; `cache_root` by default.
    """
    if config.cache == "off":
        return NO_CACHE
    known = {path: code for path, code in hashes.items() if len(code) == 2 * KEY_BYTES}
    keys = list(dict.fromkeys(known.values()))
    if not keys:
        return ImageCache("off", "no image's hash is known")
    numbers = {code: number for number, code in enumerate(keys)}
    root = root or cache_root()
    room = _Room(config, len(keys), disk=_room_on_disk(root), memory=psutil.virtual_memory().available)
    kind, reason = _decide(config, room)
    rows: Rows | None = None
    if kind == "disk":
        rows = _open_table(config, keys, room, root)
        kind, reason = ("disk", reason) if rows is not None else ("off", f"{root} can't be written")
        if reads < 2 and config.cache == "auto" and rows is not None and not rows.there().all():
            return ImageCache("off", "each image is read once")
    elif kind == "ram":
        rows = MemoryRows(len(keys), _shape(config.image), np.uint8)
    if rows is None:
        return ImageCache("off", reason)
    return ImageCache(kind, reason, rows, {path: numbers[code] for path, code in known.items()})


@dataclass(frozen=True)
class _Room:
    """How much is needed, and how much there is."""

    config: DataConfig
    count: int
    disk: int
    memory: int

    @property
    def needed(self) -> int:
        return self.count * row_bytes(_shape(self.config.image), np.uint8)

    @property
    def on_disk(self) -> int:
        # The other half is for checkpoints and everybody else.
        return min(self.config.cache_bytes, self.disk // 2)

    @property
    def told(self) -> str:
        return f"{self.count:,} decoded images take {self.needed / _GIB:.2g} GiB"


def _decide(config: DataConfig, room: _Room) -> tuple[Kind, str]:
    """Return where images are kept, and why."""
    threads_only = config.workers == 0
    fits_disk = room.needed <= room.on_disk
    if config.cache == "ram":
        if threads_only and room.needed <= room.memory:
            return "ram", room.told
        why = "worker processes share no memory" if not threads_only else "they don't fit into memory"
        return "disk", f"{room.told}; {why}"
    if config.cache == "disk" or fits_disk:
        part = "" if fits_disk else f", {room.on_disk / _GIB:.2g} GiB of which are kept"
        return "disk", room.told + part
    if threads_only and room.needed <= room.memory // 4:
        return "ram", f"{room.told}, more than there is room for on disk"
    return "off", f"{room.told}, more than data.cache_gib, half of the free disk or a quarter of the memory allow"


def _open_table(config: DataConfig, keys: Sequence[str], room: _Room, root: Path) -> Rows | None:
    image = config.image
    about = {
        "kind": _TABLES,
        "decoder": DECODER_VERSION,
        "resize": image.resize,
        "background": list(image.background),
    }
    codes = [bytes.fromhex(code) for code in keys]
    return open_rows(about, codes, _shape(image), "|u1", budget_bytes=room.on_disk, root=root)


def _shape(image: ImageSettings) -> tuple[int, int, int]:
    return (image.height, image.width, 3)


def _room_on_disk(root: Path) -> int:
    """Return how many bytes are free for tables, those that they take up already among them."""
    return free_disk(root) + sum(file.stat().st_blocks * 512 for file in root.glob("*/*/*") if file.is_file())
