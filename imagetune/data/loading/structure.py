"""What the bytes of an image file say about the work of decoding it, and Pillow doesn't: scans, tags, tiles, frames."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

# A marker that is neither a restart, nor a stuffed zero, nor padding.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_SCAN, _END = 0xDA, 0xD9
# Frames whose scans bring their components whole.
_SEQUENTIAL = (0xC0, 0xC1, 0xC9)
# One row a strip of the tallest image that anybody has.
_MAX_TIFF_VALUES = 1 << 18
_MAX_TIFF_TAGS = 4096
_MAX_PAGES = 65_535
# Of these types Pillow gives bytes, of all others a Python object a value.
_BYTE_TYPES = (1, 2, 7)
# Tags with higher numbers are kept as they are.
_LAST_BASIC_TAG = 700
_CODESTREAM, _SIZE_MARKER = b"jp2c", b"\xff\x4f\xff\x51"


def count_jpeg_scans(data: bytes) -> int:
    """Return the number of scans of a JPEG's first image; 1 where its markers lead to none."""
    at, components = 2, 0
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker == _SCAN:
            # libjpeg takes a second scan for an error after one that has all components.
            return 1 if data[at + 4] == components else 1 + _count_further_scans(data, at)
        else:
            components = data[at + 9] if marker in _SEQUENTIAL else components
            at = _skip_segment(data, at)
    return 1


def _count_further_scans(data: bytes, at: int) -> int:
    scans, at = 0, _skip_segment(data, at)
    while found := _JPEG_MARKER.search(data, at):
        marker = data[found.start() + 1]
        if marker == _END:
            break
        scans += marker == _SCAN
        at = _skip_segment(data, found.start())
    return scans


def _skip_segment(data: bytes, at: int) -> int:
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def find_tiff_excess(data: bytes) -> str:
    """Return why the first directory of a TIFF would take too much to be read, or ""; other files have none."""
    layout = _read_tiff_layout(data)
    if layout is None:
        return ""
    count, entries = _read_directory(data, layout, layout.first)
    if count > _MAX_TIFF_TAGS:
        return f"has {count:,} tags"
    for tag, kind, values in entries:
        if tag < _LAST_BASIC_TAG and kind not in _BYTE_TYPES and values > _MAX_TIFF_VALUES:
            return f"has {values:,} strips, tiles or other values in the tag {tag}"
    return ""


def count_tiff_pages(data: bytes) -> int:
    """Return the number of pages of a TIFF, at most 65,535; 1 for other files."""
    layout = _read_tiff_layout(data)
    if layout is None:
        return 1
    seen: set[int] = set()
    at = layout.first
    while at and at not in seen and len(seen) < _MAX_PAGES:
        seen.add(at)
        count = layout.read(data, at, layout.count)
        at = layout.read(data, at + layout.count_bytes + count * layout.entry_bytes, layout.offset)
    return max(1, len(seen))


@dataclass(frozen=True)
class _TiffLayout:
    """How a TIFF writes numbers: ``struct`` formats with their byte order, and where its first directory is."""

    count: str
    count_bytes: int
    entry: str
    entry_bytes: int
    offset: str
    first: int

    @staticmethod
    def read(data: bytes, at: int, form: str) -> int:
        """Return the number at a place, 0 beyond the end."""
        return int(struct.unpack_from(form, data, at)[0]) if at + struct.calcsize(form) <= len(data) else 0


def _read_tiff_layout(data: bytes) -> _TiffLayout | None:
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return None
    kind = struct.unpack_from(f"{order}H", data, 2)[0]
    if kind == 43:
        first = struct.unpack_from(f"{order}Q", data, 8)[0]
        return _TiffLayout(f"{order}Q", 8, f"{order}HHQ", 20, f"{order}Q", first)
    first = struct.unpack_from(f"{order}L", data, 4)[0]
    return _TiffLayout(f"{order}H", 2, f"{order}HHL", 12, f"{order}L", first) if kind == 42 else None


def _read_directory(data: bytes, layout: _TiffLayout, at: int) -> tuple[int, Iterator[tuple[int, int, int]]]:
    """Return the number of entries of a directory, and tag, type and number of values of each."""
    count = layout.read(data, at, layout.count)
    start = at + layout.count_bytes
    there = range(start, min(start + count * layout.entry_bytes, len(data) - layout.entry_bytes), layout.entry_bytes)
    return count, (struct.unpack_from(layout.entry, data, place) for place in there)


@dataclass(frozen=True)
class Codestream:
    """Size of a JPEG 2000 codestream, which its container may contradict.

    Attributes:
        width: Columns.
        height: Rows.
        components: Components, such as 3 for colours.
        tiles: Tiles that it is cut into.
    """

    width: int
    height: int
    components: int
    tiles: int


def read_codestream(data: bytes) -> Codestream | None:
    """Return the size of the codestream in a JPEG 2000 file, None where there is none."""
    at = 0 if data.startswith(_SIZE_MARKER) else _find_codestream(data)
    if at is None or at + 42 > len(data) or not data.startswith(_SIZE_MARKER, at):
        return None
    right, bottom, left, top, wide, high, first, above, components = struct.unpack_from(">8LH", data, at + 8)
    across = -(-(right - first) // max(1, wide))
    down = -(-(bottom - above) // max(1, high))
    return Codestream(max(0, right - left), max(0, bottom - top), components, max(0, across) * max(0, down))


def _find_codestream(data: bytes) -> int | None:
    """Return where the first codestream of a JP2 file begins."""
    at = 0
    while at + 16 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        header = 8
        if size == 1:
            size, header = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if kind == _CODESTREAM:
            return at + header
        if size < header:
            return None
        at += size
    return None
