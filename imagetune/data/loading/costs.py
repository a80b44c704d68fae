"""Bounds on decoding one image: its pixels, and the memory and time that are estimated before any is spent.

`data.max_pixels` bounds all three, so that there is one number to raise: five bytes and 50 nanoseconds of the processor
for each pixel that is allowed. The bytes a pixel of each format were measured (tests/data/loading/test_costs.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imagetune.data.loading.deep_images import is_deep
from imagetune.data.loading.structure import count_jpeg_scans, read_codestream

if TYPE_CHECKING:
    from PIL import Image

_BYTES_A_PIXEL = 5
_SECONDS_A_PIXEL = 5e-8
# What small limits leave for headers, metadata and decoders' tables.
_MIN_BYTES = 64 << 20
_JPEGS = ("JPEG", "MPO")
# Opaque and transparent images. Decoders of AVIF and HEIC hold planes of 16 bits for images of 10 or 12.
_MEASURED = {"PNG": (7, 10), "WEBP": (10, 11), "AVIF": (18, 18), "HEIF": (18, 18)}
_FRAMES = 18
# Each of the three decoders in turn may go through all scans.
_SECONDS_A_SCAN = 2e-9
# Pillow reads these in Python: numbers as text, and comments among them, each of which moves the rest of a megabyte.
_PLAIN = (b"P1", b"P2", b"P3")
_SECONDS_A_PLAIN_BYTE, _SECONDS_A_COMMENT = 1.6e-7, 1e-4
_SECONDS_A_PIXEL_IN_PYTHON = {"bmp_rle": 1.5e-7, "ppm": 5e-6}
_ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH = 278, 322, 323
# What OpenJPEG holds for each tile before it decodes one, and for each component of it.
_TILE_BYTES, _TILE_COMPONENT_BYTES = 6000, 1200


@dataclass(frozen=True)
class Cost:
    """What decoding an image takes.

    Attributes:
        size_bytes: Memory in bytes, with that of the file.
        seconds: Processor time beyond what the number of pixels alone explains.
        reason: What of the image makes it dear, as a clause; "" where it is only large.
    """

    size_bytes: int
    seconds: float
    reason: str


def compute_max_bytes(max_pixels: int) -> int:
    """Return the memory that one image may take, in bytes."""
    return max(_MIN_BYTES, _BYTES_A_PIXEL * max_pixels)


def describe_excess(
    header: Image.Image, data: bytes, max_pixels: int, *, reduce: int = 1, by_pillow: bool = False
) -> str:
    """Return why an opened image is too large or takes too much memory or time to be decoded, "" where it isn't.

    Args:
        header: The opened image.
        data: The bytes of its file.
        max_pixels: ``data.max_pixels``.
        reduce: The factor by which a JPEG is reduced during decoding.
        by_pillow: Whether Pillow decodes the pixels.
    """
    width, height = header.size
    if width * height > max_pixels:
        return f"{width} x {height} = {width * height:,} pixels, more than the {max_pixels:,} allowed"
    cost = estimate_cost(header, data, reduce=reduce, by_pillow=by_pillow)
    of = f"{width} x {height} pixels{f', {cost.reason}' if cost.reason else ''}"
    allowed = compute_max_bytes(max_pixels)
    if cost.size_bytes > allowed:
        least = f"{_format_bytes(cost.size_bytes)} of memory ({of})"
        return f"decoding it takes about {least}, more than the {_format_bytes(allowed)} allowed"
    seconds = max(1.0, _SECONDS_A_PIXEL * max_pixels)
    if cost.seconds > seconds:
        return f"decoding it takes about {cost.seconds:.0f} s ({of}), more than the {seconds:.0f} s allowed"
    return ""


def estimate_cost(header: Image.Image, data: bytes, *, reduce: int = 1, by_pillow: bool = False) -> Cost:
    """Return what decoding an opened image takes, from its header and the structure of its file.

    Args:
        header: The opened image.
        data: The bytes of its file.
        reduce: The factor by which a JPEG is reduced during decoding.
        by_pillow: Whether Pillow decodes the pixels, though others would be asked first.
    """
    pixels = header.width * header.height
    if header.format in _JPEGS:
        cost = _estimate_jpeg(header, data, pixels, 1 if by_pillow else reduce)
    elif header.format == "JPEG2000":
        cost = _estimate_jpeg2000(data, pixels)
    elif is_deep(header, data):
        cost = Cost(_count_deep_bytes(header) * pixels, 0.0, "more than 8 bits a channel")
    elif str(header.format) in _MEASURED:
        cost = Cost(_count_bytes(header) * pixels, 0.0, "")
    else:
        cost = _estimate_by_pillow(header, data, pixels)
    return Cost(len(data) + cost.size_bytes, cost.seconds, cost.reason)


def _estimate_jpeg(header: Image.Image, data: bytes, pixels: int, reduce: int) -> Cost:
    scans, bands = count_jpeg_scans(data), len(header.getbands())
    # Once as decoded and once upright; Pillow, which has four bytes a pixel, turns inks into colours.
    size = 9 * pixels if bands > 3 else 6 * pixels // reduce**2
    # All coefficients are held until the last scan, whatever size comes out.
    size += 2 * bands * pixels if scans > 1 else 0
    return Cost(size, _SECONDS_A_SCAN * scans * pixels, f"{scans:,} scans" if scans > 1 else "")


def _estimate_jpeg2000(data: bytes, pixels: int) -> Cost:
    stream = read_codestream(data)
    if stream is None:
        return Cost(26 * pixels, 0.0, "")
    # The decoder believes the codestream, Pillow the container.
    size = (6 + 5 * stream.components) * max(pixels, stream.width * stream.height)
    size += stream.tiles * (_TILE_BYTES + _TILE_COMPONENT_BYTES * stream.components)
    larger = f"{stream.width} x {stream.height} in its codestream, " if stream.width * stream.height > pixels else ""
    return Cost(size, 0.0, f"{larger}{stream.components} components in {stream.tiles:,} tiles")


def _estimate_by_pillow(header: Image.Image, data: bytes, pixels: int) -> Cost:
    size = (5 if len(header.getbands()) == 1 else 9) * pixels
    if header.format == "TIFF":
        return Cost(size + 4 * _count_piece_pixels(header), 0.0, "")
    if data.startswith(_PLAIN):
        seconds = _SECONDS_A_PLAIN_BYTE * len(data) + _SECONDS_A_COMMENT * data.count(b"#")
        return Cost(size + 3 * pixels, seconds, "numbers as text")
    codecs = [tile[0] for tile in getattr(header, "tile", ())]
    return Cost(size, max((_SECONDS_A_PIXEL_IN_PYTHON.get(codec, 0.0) for codec in codecs), default=0.0) * pixels, "")


def _count_piece_pixels(header: Image.Image) -> int:
    """Return the pixels of a TIFF's strip or tile, which may be larger than the image."""
    tags: Any = getattr(header, "tag_v2", {})
    width, length = tags.get(_TILE_WIDTH), tags.get(_TILE_LENGTH)
    if isinstance(width, int) and isinstance(length, int):
        return width * length
    rows = tags.get(_ROWS_PER_STRIP)
    return header.width * min(header.height, rows if isinstance(rows, int) else header.height)


def _count_deep_bytes(header: Image.Image) -> int:
    if header.mode.startswith("I;16"):
        return 9
    return 17 if "A" in header.mode or len(header.getbands()) > 3 else 13


def _count_bytes(header: Image.Image) -> int:
    # Decoders of animations hold the canvas before and after a frame.
    if header.format == "WEBP" and getattr(header, "n_frames", 1) > 1:
        return _FRAMES
    return _MEASURED[str(header.format)]["A" in header.mode or "transparency" in header.info]


def _format_bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 5e8 else f"{size / 1e6:.0f} MB"
