"""HEIC photos: read where a package for them is installed, else named as what they are."""

from __future__ import annotations

import base64

import pytest

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
