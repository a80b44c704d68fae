from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from imagetune.data.loading.decode import decode_image, load_image, read_image_file, resize_image
from imagetune.errors import BadImageError
from imagetune.recipe.sections.data import ImageSettings

WHITE = (255, 255, 255)


def gradient(width: int = 64, height: int = 48) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([columns * 255 // width, rows * 255 // height, np.full_like(rows, 90)], axis=2)
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decoded(data: bytes, background: tuple[int, int, int] = WHITE, **options: object) -> np.ndarray:
    return decode_image(data, where="here.img", background=background, max_pixels=10**8, **options).pixels


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "JPEG", "AVIF", "JPEG2000"])
def test_every_format_gives_rgb_pixels(kind: str) -> None:
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    pixels = decoded(encoded(gradient(), kind, **options))
    assert pixels.shape == (48, 64, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(gradient())).mean() < 6


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_png_modes_are_those_of_pillow(mode: str) -> None:
    image = gradient().convert(mode)
    assert np.array_equal(decoded(encoded(image, "PNG")), np.asarray(image.convert("RGB")))


def test_cmyk_jpeg_comes_out_in_its_colours() -> None:
    pixels = decoded(encoded(gradient().convert("CMYK"), "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - np.asarray(gradient())).mean() < 5


def test_sixteen_bit_grey_keeps_its_brightness() -> None:
    grey = np.asarray(gradient().convert("L"))
    for kind in ("PNG", "TIFF"):
        pixels = decoded(encoded(Image.fromarray(grey.astype(np.uint16) * 257), kind))
        assert np.array_equal(pixels[:, :, 0], grey)
        assert np.array_equal(pixels[:, :, 2], grey)


def test_sixteen_bit_colour_keeps_its_brightness() -> None:
    colour = np.asarray(gradient())
    for suffix in (".png", ".tiff"):
        _, data = cv2.imencode(suffix, colour[:, :, ::-1].astype(np.uint16) * 257)
        assert np.array_equal(decoded(data.tobytes()), colour)


def test_floating_point_pixels_are_refused_with_advice() -> None:
    data = encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF")
    with pytest.raises(BadImageError, match=r"floating-point pixels.*save it with 8 or 16 bits"):
        decoded(data)


def test_transparency_shows_the_background() -> None:
    image = gradient().convert("RGBA")
    image.putalpha(128)
    for kind in ("PNG", "WEBP", "TIFF"):
        pixels = decoded(encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {})), (10, 20, 30))
        expected = (np.asarray(gradient()).astype(int) * 128 + np.array([10, 20, 30]) * 127) / 255
        assert np.abs(pixels - expected).max() <= 1


def test_grey_with_alpha_and_palette_with_transparency_show_the_background() -> None:
    grey = gradient().convert("LA")
    grey.putalpha(0)
    assert np.all(decoded(encoded(grey, "PNG"), (9, 8, 7)) == (9, 8, 7))
    palette = gradient().quantize(16)
    clear = np.asarray(palette) == 3
    for kind in ("PNG", "GIF"):
        pixels = decoded(encoded(palette, kind, transparency=3), (9, 8, 7))
        assert np.all(pixels[clear] == (9, 8, 7))
        assert not np.all(pixels[~clear] == (9, 8, 7))


def test_hidden_colour_under_full_transparency_does_not_show() -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :, 0] = 200
    assert np.all(decoded(encoded(Image.fromarray(pixels), "PNG"), WHITE) == 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_turn_is_undone_alike_in_every_format(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    stored = gradient()
    pixels = decoded(encoded(stored, kind, exif=exif, **options))
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    upright = stored.transpose(turns[orientation]) if orientation > 1 else stored
    assert pixels.shape == np.asarray(upright).shape
    assert np.abs(pixels.astype(int) - np.asarray(upright)).mean() < 4


def test_first_frame_of_an_animation_is_used() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.abs(decoded(data)[8, 8].astype(int) - (255, 0, 0)).max() < 4


def test_large_jpeg_is_decoded_small_and_nearly_the_same() -> None:
    data = encoded(gradient(1600, 1200), "JPEG", quality=95)
    small = decoded(data, at_least=(100, 100))
    assert small.shape == (150, 200, 3)
    settings = ImageSettings(height=100, width=100)
    apart = resize_image(small, settings).astype(int) - resize_image(decoded(data), settings)
    assert np.abs(apart).mean() < 1.0
    assert decoded(data, at_least=(700, 700)).shape == (1200, 1600, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_image_is_bad(kind: str, share: float) -> None:
    data = encoded(gradient(200, 200), kind)
    with pytest.raises(BadImageError, match=r"here\.img: "):
        decoded(data[: int(len(data) * share)])


@pytest.mark.parametrize("missing", [1, 2, 10])
def test_last_bytes_missing_is_truncated(missing: int) -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        with pytest.raises(BadImageError, match=r"truncated|corrupted"):
            decoded(encoded(gradient(), kind)[:-missing])


def test_bytes_after_the_end_do_no_harm() -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        assert decoded(encoded(gradient(), kind) + b"trailer" * 50).shape == (48, 64, 3)


def test_wrong_checksum_in_a_png_is_bad() -> None:
    data = bytearray(encoded(gradient(), "PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(BadImageError, match="corrupted"):
        decoded(bytes(data))


def test_sixteen_bit_png_without_end_is_truncated() -> None:
    grey = Image.fromarray(np.zeros((8, 8), np.uint16))
    with pytest.raises(BadImageError, match="truncated"):
        decoded(encoded(grey, "PNG")[:-12])


def test_html_and_text_are_named_as_what_they_are() -> None:
    with pytest.raises(BadImageError, match="is an HTML page"):
        decoded(b"\n<!DOCTYPE html><html><body>404</body></html>")
    with pytest.raises(BadImageError, match="is not an image that can be read"):
        decoded(b"hello")
    for start, kind in (
        (b"\0\0\1\0\1\0", "an ICO icon"),
        (b"%PDF-1.7", "a PDF"),
        (b'<?xml version="1"?>\n<svg>', "an SVG"),
    ):
        with pytest.raises(BadImageError, match=f"is not an image that can be read: it is {kind}"):
            decoded(start)


def pixel_bomb(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_pixel_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(pixel_bomb(30_000))
    code = (
        "import resource, sys\nfrom imagetune.data.loading.decode import decode_image\n"
        "from imagetune.errors import DataError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    decode_image(open(sys.argv[1], 'rb').read(), where='x', background=(0, 0, 0), max_pixels=10**8)\n"
        "except DataError as error:\n    print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bomb)], capture_output=True, text=True, check=True)
    message, grown = done.stdout.splitlines()
    assert message.startswith("x: 30000 x 30000 = 900,000,000 pixels, more than the 100,000,000 allowed")
    assert int(grown) < 50_000
    started = time.perf_counter()
    with pytest.raises(BadImageError):
        decoded(bomb.read_bytes())
    assert time.perf_counter() - started < 1.0


def test_missing_empty_and_linked_nowhere_are_distinguished(tmp_path: Path) -> None:
    settings = ImageSettings(height=32, width=32)
    (tmp_path / "empty.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    for name, words in (("none.png", "no such file"), ("empty.png", "empty"), ("link.png", "link to a file that does")):
        with pytest.raises(BadImageError, match=words) as caught:
            load_image(str(tmp_path / name), settings, max_pixels=100)
        assert caught.value.where == str(tmp_path / name)
        assert caught.value.exit_code == 3


@pytest.mark.parametrize(("resize", "corner", "middle"), [("pad", 7, 100), ("crop", 100, 100), ("squash", 100, 100)])
def test_resizing_gives_the_frame(resize: str, corner: int, middle: int) -> None:
    settings = ImageSettings.model_validate({"height": 32, "width": 40, "resize": resize, "background": (7, 7, 7)})
    for shape in ((20, 200, 3), (300, 30, 3), (32, 40, 3), (1, 500, 3), (8, 8, 3)):
        framed = resize_image(np.full(shape, 100, np.uint8), settings)
        assert framed.shape == (32, 40, 3)
        assert np.all(framed[15, 20] == middle)
    assert np.all(resize_image(np.full((20, 200, 3), 100, np.uint8), settings)[0, 0] == corner)


def test_padding_centres_and_keeps_the_shape() -> None:
    settings = ImageSettings(height=32, width=32, background=(0, 0, 0))
    framed = resize_image(np.full((64, 128, 3), 200, np.uint8), settings)
    bright = np.flatnonzero(framed[:, 16, 0])
    assert (bright[0], bright[-1]) == (8, 23)


def test_shrinking_averages_instead_of_skipping() -> None:
    board = np.indices((128, 128)).sum(axis=0) % 2 * 255
    small = resize_image(np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8), ImageSettings(height=32, width=32))
    assert np.all(np.abs(small.astype(int) - 128) <= 1)


def test_shipped_drawings_lie_on_white() -> None:
    folder = Path(__file__).parents[3] / "recipes" / "clipart"
    pixels = load_image(
        str(sorted((folder / "birds").iterdir())[0]), ImageSettings(height=64, width=64), max_pixels=10**8
    )
    assert np.all(pixels[0, 0] == 255)
    assert pixels.std() > 40


def photograph(width: int = 640, height: int = 480) -> Image.Image:
    """Smooth shapes with detail of every size, as far as the pixels can hold it."""
    rng = np.random.default_rng(0)
    pixels = np.full((height, width, 3), 128, np.float32)
    for cell in (3, 7, 20, 60):
        coarse = rng.normal(0, 12, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        pixels += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"keep_rgb": True}, {"grey": True}])
def test_jpeg_pixels_are_those_of_opencv(options: dict[str, bool]) -> None:
    image = photograph(321, 243)
    grey = options.pop("grey", False)
    data = encoded(image.convert("L") if grey else image, "JPEG", quality=90, **options)
    flags = {
        (243, 321): cv2.IMREAD_COLOR,
        (121, 160): cv2.IMREAD_REDUCED_COLOR_2,
        (60, 80): cv2.IMREAD_REDUCED_COLOR_4,
        (30, 40): cv2.IMREAD_REDUCED_COLOR_8,
    }
    for least, flag in flags.items():
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), flag)[:, :, ::-1]
        assert np.array_equal(decoded(data, at_least=least), expected)


def test_a_lying_jpeg_keeps_the_pixels_that_it_needs_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(gradient(1600, 1200), "JPEG", quality=95, exif=exif)
    assert decoded(data, at_least=(800, 100)).shape == (800, 600, 3)
    assert decoded(data, at_least=(100, 800)).shape == (1600, 1200, 3)


@pytest.fixture
def decoded_shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and columns of every JPEG that was decoded, as it is stored."""
    shapes: list[tuple[int, int]] = []
    decode = simplejpeg.decode_jpeg

    def remembered(*arguments: object, **options: object) -> np.ndarray:
        pixels = decode(*arguments, **options)
        shapes.append(pixels.shape[:2])
        return pixels

    monkeypatch.setattr(simplejpeg, "decode_jpeg", remembered)
    return shapes


@pytest.mark.parametrize(("resize", "narrowest"), [("pad", min), ("crop", max), ("squash", max)])
@pytest.mark.parametrize("stored", [(480, 640), (640, 480), (300, 1200), (1201, 907)])
@pytest.mark.parametrize("turn", [1, 6])
def test_a_jpeg_is_decoded_as_small_as_its_frame_shows_it_and_no_smaller(
    resize: str,
    narrowest: Callable[..., float],
    stored: tuple[int, int],
    turn: int,
    tmp_path: Path,
    decoded_shapes: list[tuple[int, int]],
) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    (tmp_path / "a.jpg").write_bytes(encoded(gradient(*stored[::-1]), "JPEG", exif=exif))
    rows, columns = stored if turn == 1 else stored[::-1]
    for height, width in ((90, 160), (112, 112), (160, 160), (280, 200)):
        settings = ImageSettings.model_validate({"height": height, "width": width, "resize": resize})
        load_image(str(tmp_path / "a.jpg"), settings, max_pixels=10**8)
        shown = narrowest(height / rows, width / columns)
        factor = round(stored[0] / decoded_shapes[-1][0])
        assert factor * shown <= 1 or factor == 1
        assert 2 * factor * shown > 1 or factor == 8


@pytest.mark.parametrize("resize", ["pad", "squash"])
def test_a_jpeg_that_is_decoded_small_looks_as_if_it_were_not(resize: str, tmp_path: Path) -> None:
    data = encoded(photograph(), "JPEG", quality=95)
    (tmp_path / "a.jpg").write_bytes(data)
    for size in ((90, 160), (160, 160), (224, 224)):
        settings = ImageSettings.model_validate({"height": size[0], "width": size[1], "resize": resize})
        found = load_image(str(tmp_path / "a.jpg"), settings, max_pixels=10**8).astype(int)
        assert np.abs(found - resize_image(decoded(data), settings)).mean() < 1.5


def test_a_corrupt_jpeg_that_can_be_used_is_used(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(encoded(photograph(), "JPEG", quality=90))
    # A marker that no decoder expects there.
    data[len(data) // 2 : len(data) // 2 + 2] = b"\xff\xd3"
    expected = cv2.imdecode(np.frombuffer(bytes(data), np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    assert "Corrupt JPEG data" in capfd.readouterr().err
    assert np.array_equal(decoded(bytes(data)), expected)
    assert "Corrupt JPEG data" in capfd.readouterr().err


def test_shrinking_gives_what_opencv_gives_for_areas() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        height, width = rng.integers(8, 120, 2).tolist()
        rows, columns = (rng.integers(side, 3 * side) for side in (height, width))
        image = rng.integers(0, 256, (rows, columns, 3), np.uint8)
        settings = ImageSettings.model_validate({"height": height, "width": width, "resize": "squash"})
        expected = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        assert np.array_equal(resize_image(image, settings), expected)


def test_a_pipe_or_device_is_no_image_and_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "x.jpg"
    os.mkfifo(pipe)
    endless = tmp_path / "y.jpg"
    endless.symlink_to("/dev/zero")
    for path in (pipe, endless):
        with pytest.raises(BadImageError, match="not a file"):
            read_image_file(str(path), max_pixels=10**8)


def test_a_file_larger_than_any_image_is_refused_before_it_is_read(tmp_path: Path) -> None:
    sparse = tmp_path / "x.jpg"
    with sparse.open("wb") as file:
        file.truncate(40 << 30)
    with pytest.raises(BadImageError, match="42,950 MB, more than the 250 MB allowed"):
        read_image_file(str(sparse), max_pixels=10**8)
