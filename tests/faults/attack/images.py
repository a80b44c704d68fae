"""Images that were made to harm, or that had bad luck, in all formats that are read and in some that are not."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from tests.faults.attack.case import Case, Room

Make = Callable[[], bytes]
ENDS = frozenset({0, 3})
BAD = frozenset({3})
KINDS = {
    "jpeg": ("jpg", "JPEG", {}),
    "progressive": ("jpg", "JPEG", {"progressive": True}),
    "png": ("png", "PNG", {}),
    "webp": ("webp", "WEBP", {}),
    "gif": ("gif", "GIF", {}),
    "bmp": ("bmp", "BMP", {}),
    "tiff": ("tif", "TIFF", {}),
    "lzw": ("tif", "TIFF", {"compression": "tiff_lzw"}),
    "ppm": ("ppm", "PPM", {}),
    "jpeg2000": ("jp2", "JPEG2000", {}),
    "avif": ("avif", "AVIF", {}),
}


def encode(kind: str, side: int = 64) -> bytes:
    """Return a small image of one of `KINDS`."""
    _, name, options = KINDS[kind]
    stream = io.BytesIO()
    levels = np.random.default_rng(3).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(levels).save(stream, name, **options)
    return stream.getvalue()


def cases() -> Iterator[Case]:
    """Yield each file given to ``predict`` alone, and to ``data check`` among images of two classes."""
    for name, (suffix, make, codes) in _list_files().items():
        yield Case(f"images/predict-{name}", partial(_predict, suffix, make), codes=codes)
        yield Case(f"images/check-{name}", partial(_check, suffix, make), codes=ENDS)


def _predict(suffix: str, make: Make, room: Room) -> list[str | Path]:
    file = room.input / f"x.{suffix}"
    file.write_bytes(make())
    return ["predict", room.shared / "run", file]


def _check(suffix: str, make: Make, room: Room) -> list[str | Path]:
    for label in ("cat", "dog"):
        (room.input / label).mkdir()
        for place in range(3):
            Image.new("RGB", (32, 32), (40 * place, 90, 10)).save(room.input / label / f"{place}.png")
    (room.input / "cat" / f"x.{suffix}").write_bytes(make())
    return ["data", "check", room.input]


def _list_files() -> dict[str, tuple[str, Make, frozenset[int]]]:
    """Return suffix, maker and exit codes of ``predict`` for each hostile file."""
    files: dict[str, tuple[str, Make, frozenset[int]]] = {}
    for kind, (suffix, _, _) in KINDS.items():
        for share in (0.1, 0.5, 0.95):
            files[f"{kind}-cut-{share}"] = (suffix, partial(_cut, kind, share), ENDS)
        for noise in ("zeros", "ones", "repeated"):
            files[f"{kind}-{noise}"] = (suffix, partial(_spoil, kind, noise), ENDS)
        files[f"{kind}-header-of-huge"] = (suffix, partial(_make_huge, kind), ENDS)
    bad: dict[str, tuple[str, Make]] = {
        "postscript": ("jpg", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n"),
        "empty": ("png", bytes),
        "html": ("jpg", lambda: b"<!doctype html><html></html>"),
        "zeros": ("jpg", lambda: bytes(50_000_000)),
        "png-bits": ("png", partial(_png, 30_000, 1, 0)),
        "png-deep": ("png", partial(_png, 9900, 16, 2)),
        "png-deep-clear": ("png", partial(_png, 9900, 16, 6)),
        "png-width-zero": ("png", partial(_png, 0, 8, 2)),
        "png-text-bomb": ("png", partial(_png, 8, 8, 2, b"zTXt", b"a\0\0" + zlib.compress(bytes(200 << 20)))),
        "png-profile-bomb": ("png", partial(_png, 8, 8, 2, b"iCCP", b"a\0\0" + zlib.compress(bytes(200 << 20)))),
        "png-chunks": ("png", lambda: _png(8, 8, 2, b"teXt", b"", 800_000)),
        "jpeg-scans": ("jpg", _make_scans),
        "jpeg-padding": ("jpg", lambda: b"\xff\xd8" + b"\xff" * 10_000_000),
        "jpeg-segments": ("jpg", lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 3_000_000),
        "tiff-tile": ("tif", partial(_tiff, (322, 4, 1, 65_536), (323, 4, 1, 65_536), (324, 4, 1, 8), (325, 4, 1, 4))),
        "tiff-strips": ("tif", partial(_tiff, (273, 4, 10**7, 8), (279, 4, 1, 4))),
        "tiff-tags": ("tif", lambda: b"II*\0\x08\0\0\0\xff\xff" + bytes(12 * 65_535)),
        "tiff-pages": ("tif", _make_pages),
        "ppm-comments": ("ppm", lambda: b"P3 64 64 255\n" + b"#\n" * 500_000),
        "ppm-header": ("ppm", lambda: b"P6\n" + b"#" * 3_000_000),
        "ppm-python": ("ppm", lambda: b"P6 4000 4000 254\n" + bytes(48_000_000)),
        "ppm-text": ("ppm", lambda: b"P3 4000 4000 255\n" + b"1 " * 48_000_000),
        "bmp-runs": ("bmp", partial(_make_runs, b"\1\0")),
        "bmp-deltas": ("bmp", partial(_make_runs, b"\0\2\1\0")),
        "codestream": ("jp2", _make_codestream),
        "svg": ("png", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'),
        "pickle": ("png", lambda: b"\x80\x04cos\nsystem\n"),
    }
    files |= {name: (suffix, make, ENDS) for name, (suffix, make) in bad.items()}
    return files


def _cut(kind: str, share: float) -> bytes:
    whole = encode(kind)
    return whole[: int(len(whole) * share)]


def _spoil(kind: str, noise: str) -> bytes:
    data = bytearray(encode(kind))
    start, length = len(data) // 3, len(data) // 4
    data[start : start + length] = {
        "zeros": bytes(length),
        "ones": b"\xff" * length,
        "repeated": bytes(data[:length]),
    }[noise]
    return bytes(data)


def _make_huge(kind: str) -> bytes:
    """Return an image whose header says 65,535 x 65,535, where its size stands as two numbers of 64."""
    data = encode(kind)
    for form in (">HH", "<HH", ">II", "<II", ">HHI", "<HHI"):
        small = struct.pack(form, *(64, 64, 0)[: len(form) - 1])
        data = data.replace(small, struct.pack(form, *(65_535, 65_535, 0)[: len(form) - 1]))
    return data


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(side: int, depth: int, colours: int, kind: bytes = b"", content: bytes = b"", times: int = 1) -> bytes:
    """Return a PNG of zeros, with a chunk before its pixels."""
    header = struct.pack(">IIBBBBB", side, side, depth, colours, 0, 0, 0)
    row = bytes(1 + -(-side * depth * {0: 1, 2: 3, 6: 4}[colours] // 8))
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    between = _chunk(kind, content) * times if kind else b""
    parts = _chunk(b"IHDR", header), between, _chunk(b"IDAT", pixels), _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _make_scans() -> bytes:
    whole = encode("progressive", 2048)
    last, end = whole.rfind(b"\xff\xda"), whole.rfind(b"\xff\xd9")
    return whole[:end] + (whole[last : last + 10] + b"\0\0") * 3000 + whole[end:]


def _tiff(*entries: tuple[int, int, int, int]) -> bytes:
    size = ((256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 1, 8), (259, 3, 1, 5), (262, 3, 1, 1))
    packed = b"".join(struct.pack("<HHLL", *entry) for entry in sorted((*size, *entries)))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(size) + len(entries)) + packed + bytes(4)


def _make_pages() -> bytes:
    """Return a TIFF of 60,000 directories that all share one list of strips of the largest length."""
    page = 2 + 5 * 12 + 4
    parts = [b"II*\0\x08\0\0\0"]
    for place in range(60_000):
        entries = ((256, 3, 1, 64), (257, 3, 1, 64), (259, 3, 1, 1), (273, 4, 200_000, 8), (279, 4, 200_000, 8))
        packed = b"".join(struct.pack("<HHLL", *entry) for entry in entries)
        parts.append(struct.pack("<H", 5) + packed + struct.pack("<L", 8 + (place + 1) * page))
    return b"".join(parts)


def _make_runs(run: bytes) -> bytes:
    """Return a BMP of 9,000 x 9,000 pixels in run-length encoding, which is a few megabytes of the same run."""
    head = struct.pack("<2sLHHLLLLHHLLLLLL", b"BM", 0, 0, 0, 1078, 40, 9000, 9000, 1, 8, 1, 0, 0, 0, 256, 0)
    return head + bytes(1024) + run * 3_000_000


def _make_codestream() -> bytes:
    data = bytearray(encode("jpeg2000"))
    at = data.find(b"\xff\x4f\xff\x51") + 8
    for place in (at, at + 16):
        data[place : place + 8] = struct.pack(">2L", 60_000, 60_000)
    return bytes(data)


def make_sparse(path: Path, size: int) -> None:
    """Make a file that says it has so many bytes, and takes none."""
    with path.open("wb") as file:
        os.truncate(file.fileno(), size)
