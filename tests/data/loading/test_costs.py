"""What an image takes to be decoded: estimated before anything is spent, and refused where it is too much."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from imagetune.data.loading import formats, png
from imagetune.data.loading.costs import describe_excess
from imagetune.data.loading.decode import decode_image, read_image_file
from imagetune.data.loading.structure import count_jpeg_scans
from imagetune.errors import BadImageError


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def refuse(data: bytes, *, max_pixels: int = 10**8) -> str:
    """Return why an image is refused, which must take less than a second."""
    started = time.process_time()
    with pytest.raises(BadImageError) as caught:
        decode_image(data, where="x", background=(0, 0, 0), max_pixels=max_pixels)
    assert time.process_time() - started < 1.0
    return caught.value.what


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def empty_png(side: int, *, depth: int, colours: int, between: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", side, side, depth, colours, 0, 0, 0)
    parts = chunk(b"IHDR", header), between, chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def many_scans(count: int, side: int = 256) -> bytes:
    whole = encoded(Image.effect_noise((side, side), 50).convert("RGB"), "JPEG", progressive=True)
    last, end = whole.rfind(b"\xff\xda"), whole.rfind(b"\xff\xd9")
    # A header and a few bytes: the decoder goes through all blocks again.
    return whole[:end] + (whole[last : last + 10] + b"\0\0") * count + whole[end:]


def tiff(*entries: tuple[int, int, int, int]) -> bytes:
    packed = b"".join(struct.pack("<HHLL", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<L", 8) + struct.pack("<H", len(entries)) + packed + bytes(4)


SIZE = ((256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 1, 8), (259, 3, 1, 5), (262, 3, 1, 1))


def test_sixteen_bits_below_the_pixel_limit_are_refused_with_the_estimate() -> None:
    what = refuse(empty_png(9900, depth=16, colours=2))
    expected = "decoding it takes about 1.3 GB of memory (9900 x 9900 pixels, more than 8 bits a channel)"
    assert what == f"{expected}, more than the 0.5 GB allowed"


def test_a_higher_limit_allows_more_memory() -> None:
    data = empty_png(9900, depth=16, colours=2)
    with formats.open_image(data) as header:
        assert describe_excess(header, data, 10**8)
        assert not describe_excess(header, data, 3 * 10**8)


def test_scans_of_a_jpeg_cost_time() -> None:
    data = many_scans(50_000)
    assert count_jpeg_scans(data) > 50_000
    assert "decoding it takes about" in (what := refuse(data))
    assert "scans), more than the 5 s allowed" in what


@pytest.mark.parametrize(("options", "scans"), [({}, 1), ({"progressive": True}, 10)])
def test_scans_are_those_of_the_first_image_alone(options: dict[str, bool], scans: int) -> None:
    data = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG", **options)
    assert count_jpeg_scans(data) == scans
    # Phones append films and second images.
    assert count_jpeg_scans(data + b"\xff\xda" * 1000) == scans


def test_a_codestream_larger_than_its_container_says_is_refused() -> None:
    data = bytearray(encoded(Image.new("RGB", (64, 64)), "JPEG2000"))
    at = data.find(b"\xff\x4f\xff\x51") + 8
    data[at : at + 8] = struct.pack(">2L", 60_000, 60_000)
    data[at + 16 : at + 24] = struct.pack(">2L", 60_000, 60_000)
    assert "60000 x 60000 in its codestream" in refuse(bytes(data))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tiff(*SIZE, (322, 4, 1, 65_536), (323, 4, 1, 65_536), (324, 4, 1, 8), (325, 4, 1, 4)), "of memory"),
        (tiff(*SIZE, (273, 4, 10**7, 8), (279, 4, 1, 4)), "has 10,000,000 strips"),
        (b"II*\0\x08\0\0\0" + struct.pack("<H", 65_535) + bytes(8), "has 65,535 tags"),
        (b"P3 64 64 255\n" + b"#\n" * 200_000, "numbers as text), more than the 5 s"),
        (b"P6 2000 2000 254\n", "more than the 5 s"),
    ],
    ids=["tile", "strips", "tags", "comments", "pixels in Python"],
)
def test_what_would_take_minutes_or_gigabytes_is_refused_at_once(data: bytes, words: str) -> None:
    assert words in refuse(data)


@pytest.mark.parametrize("data", [b"\xff\xd8" + b"\xff" * 3_000, b"P6\n" + b"#\n" * 3_000], ids=["JPEG", "PPM"])
def test_a_file_of_nothing_but_small_parts_is_given_up(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_MAX_READS", 1000)
    assert "too many small parts" in refuse(data)


def test_a_png_of_very_many_chunks_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "_MAX_CHUNKS", 1000)
    data = empty_png(8, depth=8, colours=2, between=chunk(b"teXt", b"") * 1001)
    assert refuse(data) == "has more than 1,000 chunks"


@pytest.mark.parametrize("path", ["a\0b.png", "a\ud800b.png", "a" * 300 + ".png"])
def test_a_path_that_no_file_can_have_is_named(path: str) -> None:
    with pytest.raises(BadImageError, match="no path that a file can have|can't be read: File name too long"):
        read_image_file(path, max_pixels=10**8)


MEASURE = """
import ctypes, io, os, sys
import numpy as np
from PIL import Image
import cv2
from imagetune.data.loading.costs import estimate_cost
from imagetune.data.loading import formats, png
from imagetune.data.loading.costs import describe_excess
from imagetune.data.loading.decode import decode_image
from imagetune.data.loading.formats import open_image
side = 2000
rng = np.random.default_rng(0)
colours = cv2.resize(rng.integers(0, 255, (side // 8, side // 8, 4), np.uint8), (side, side))
deep = colours.astype(np.uint16) << 8
def save(array, kind, **options):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()
def opencv(suffix, array):
    return cv2.imencode(suffix, array)[1].tobytes()
def read(key):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024
rgb = np.ascontiguousarray(colours[:, :, :3])
cases = {
    "JPEG": save(rgb, "JPEG"), "progressive JPEG": save(rgb, "JPEG", progressive=True, subsampling=0),
    "PNG": save(rgb, "PNG", compress_level=1), "clear PNG": save(colours, "PNG", compress_level=1),
    "deep PNG": opencv(".png", deep), "deep grey PNG": opencv(".png", deep[:, :, 0]),
    "deep TIFF": opencv(".tiff", deep[:, :, :3]), "TIFF": save(rgb, "TIFF"),
    "LZW": save(rgb, "TIFF", compression="tiff_lzw"),
    "BMP": save(rgb, "BMP"), "GIF": save(rgb[:, :, 0], "GIF"), "WebP": save(rgb, "WEBP", method=0),
    "clear WebP": save(colours, "WEBP", lossless=True, method=0), "AVIF": save(rgb, "AVIF", speed=10),
    "JPEG 2000": save(rgb, "JPEG2000"), "PPM": save(rgb, "PPM"),
}
for name, data in cases.items():
    ctypes.CDLL(None).malloc_trim(0)
    open("/proc/self/clear_refs", "w").write("5")
    before = read("VmRSS")
    decode_image(data, where=name, background=(0, 0, 0), max_pixels=10**8)
    taken = read("VmHWM") - before
    with open_image(data) as header:
        estimated = estimate_cost(header, data).size_bytes - len(data)
    print(name, taken, estimated, sep=",")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory from /proc")
def test_estimates_cover_what_is_taken_and_are_not_far_above() -> None:
    # As large arrays are: what is freed goes back, so that it isn't counted for the next.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, env=environment)
    found = [line.split(",") for line in done.stdout.splitlines()]
    assert len(found) == 16
    for name, taken, estimated in found:
        # A first use also loads code and makes tables.
        assert int(taken) < int(estimated) + (12 << 20), name
        assert int(estimated) < 3 * int(taken) + (4 << 20), name


def test_large_images_give_the_pixels_of_small_ones() -> None:
    # More than one strip of rows.
    levels = np.random.default_rng(0).integers(0, 255, (400, 300, 4), np.uint8)
    pixels = decode_image(encoded(Image.fromarray(levels), "PNG"), where="x", background=(9, 99, 255), max_pixels=10**8)
    alpha = levels[:, :, 3:].astype(np.int64)
    expected = (levels[:, :, :3] * alpha + np.array((9, 99, 255)) * (255 - alpha) + 127) // 255
    assert np.array_equal(pixels.pixels, expected)
