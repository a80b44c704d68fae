"""The formats that images are read in; HEIC where a package for it is installed, else named as what it is."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from imagetune.data.loading.decode import HEIC_VERSION, decode_image
from imagetune.data.sources.image_files import has_image_start, is_heic
from imagetune.errors import BadImageError

# 96 x 64 pixels, red on the left and blue on the right.
PHOTO = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAVZtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    "ACJpbG9jAAAAAERAAAEAAQAAAAABegABAAAAAAAAAEcAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRt"
    "AAAAAAABAAAA1mlwcnAAAAC3aXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMA"
    "AAMAHroCQGEAAQArQgEBA3AAAAMAkAAAAwAAAwAeoDCBBZbqSSmubgIaDAgAAAMAyAAAAwAIQGIAAQAHRAHBcrAiQAAAABNjb2xy"
    "bmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABgAAAAQAAAABBwaXhpAAAAAAMICAgAAAAXaXBtYQAAAAAAAAABAAEEgQIDBAAAAE9t"
    "ZGF0AAAAQygBr1iKfg6SX//xPn/9G0kPjyw6N3/r2kX2ipP9GqUBk5BvFbmUbYO9BLGY0Im6r0aD47dqqHGGagaeTDItTHTZqIg="
)


def test_a_heic_photo_is_told_by_its_first_bytes() -> None:
    assert is_heic(PHOTO)
    assert has_image_start(PHOTO)
    assert not is_heic(b"\0\0\0\x1cftypavif" + PHOTO[12:])


@pytest.mark.skipif(bool(HEIC_VERSION), reason="a package that reads HEIC is installed")
def test_without_a_package_the_photo_is_named_and_the_package_too() -> None:
    with pytest.raises(BadImageError, match="is a HEIC photo.*install pi-heif, or convert it to JPEG"):
        decode_image(PHOTO, where="x", background=(0, 0, 0), max_pixels=10**8)


@pytest.mark.skipif(not HEIC_VERSION, reason="needs the extra heic")
def test_with_a_package_the_photo_is_read() -> None:
    pixels = decode_image(PHOTO, where="x", background=(0, 0, 0), max_pixels=10**8).pixels
    assert pixels.shape == (64, 96, 3)
    assert abs(pixels[32, 10].astype(int) - (200, 40, 40)).max() < 8
    assert abs(pixels[32, 80].astype(int) - (40, 40, 200)).max() < 8


def test_an_image_starts_no_other_program(tmp_path, monkeypatch) -> None:
    started = tmp_path / "started"
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {started}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n{} loop\n"
    with pytest.raises(BadImageError, match="not an image that can be read"):
        decode_image(page, where="photo.jpg", background=(0, 0, 0), max_pixels=10**8)
    assert not started.exists()


@pytest.mark.parametrize("kind", ["ICO", "ICNS", "PCX", "TGA", "DDS"])
def test_formats_that_are_not_meant_are_refused(kind: str) -> None:
    content = io.BytesIO()
    Image.new("RGBA" if kind != "PCX" else "RGB", (16, 16)).save(content, kind)
    with pytest.raises(BadImageError, match="not an image that can be read"):
        decode_image(content.getvalue(), where="x.png", background=(0, 0, 0), max_pixels=10**8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"])
def test_formats_that_are_meant_are_read(kind: str) -> None:
    content = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 40, 40)).save(content, kind)
    pixels = decode_image(content.getvalue(), where="x", background=(0, 0, 0), max_pixels=10**8).pixels
    assert abs(pixels[8, 8].astype(int) - (200, 40, 40)).max() < 12


def test_whatever_a_reader_raises_makes_that_image_unreadable(monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise RecursionError("a reader that went wrong")

    content = io.BytesIO()
    Image.new("RGB", (16, 16)).save(content, "GIF")
    monkeypatch.setattr(GifImageFile, "load", fail)
    with pytest.raises(BadImageError, match="a reader that went wrong"):
        decode_image(content.getvalue(), where="x.gif", background=(0, 0, 0), max_pixels=10**8)
