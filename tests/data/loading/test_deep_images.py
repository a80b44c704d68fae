"""Images with more than 8 bits a channel: 12 bits in 16 stay visible, and a whole set is scaled alike."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from imagetune.data.audit.audit import audit_catalog
from imagetune.data.loading.decode import decode_image, load_image
from imagetune.data.sources.read import read_catalog
from imagetune.errors import BadImageError
from imagetune.recipe.sections.data import DataConfig, ImageSettings

ConfigFor = Callable[..., DataConfig]
LEVELS = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
BYTES = (LEVELS >> 4).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def by_opencv(suffix: str, *channels: np.ndarray) -> bytes:
    return cv2.imencode(suffix, np.dstack(channels))[1].tobytes()


def decoded(data: bytes, bit_depth: int | None = None):
    return decode_image(data, where="x", background=(255, 255, 255), max_pixels=10**8, bit_depth=bit_depth)


OPAQUE = np.full_like(LEVELS, 65535)
TWELVE_BITS = {
    "grey PNG": encoded(Image.fromarray(LEVELS), "PNG"),
    "grey TIFF": encoded(Image.fromarray(LEVELS), "TIFF"),
    "32-bit TIFF": encoded(Image.fromarray(LEVELS.astype(np.int32)), "TIFF"),
    "JPEG 2000": by_opencv(".jp2", LEVELS),
    "colour PNG": by_opencv(".png", LEVELS, LEVELS, LEVELS),
    "colour TIFF": by_opencv(".tiff", LEVELS, LEVELS, LEVELS),
    "PNG with transparency": by_opencv(".png", LEVELS, LEVELS, LEVELS, OPAQUE),
    "TIFF with transparency": by_opencv(".tiff", LEVELS, LEVELS, LEVELS, OPAQUE),
}


@pytest.mark.parametrize("kind", TWELVE_BITS)
def test_twelve_bits_of_sixteen_keep_all_their_grey_levels(kind: str) -> None:
    found = decoded(TWELVE_BITS[kind])
    assert found.bit_depth == 12
    assert all(np.array_equal(found.pixels[:, :, channel], BYTES) for channel in range(3))


@pytest.mark.parametrize("kind", TWELVE_BITS)
def test_the_depth_of_a_set_scales_every_image_of_it(kind: str) -> None:
    assert np.array_equal(decoded(TWELVE_BITS[kind], 14).pixels[:, :, 0], BYTES >> 2)
    assert decoded(TWELVE_BITS[kind], 10).pixels.max() == 255


def test_a_tag_may_say_that_more_bits_are_used_than_are_seen() -> None:
    assert decoded(encoded(Image.fromarray(LEVELS // 8), "TIFF", tiffinfo={281: 4095})).bit_depth == 12


def test_white_may_be_zero() -> None:
    found = decoded(encoded(Image.fromarray(LEVELS), "TIFF", tiffinfo={262: 0}))
    assert np.array_equal(found.pixels[:, :, 0], 255 - BYTES)


def test_colours_of_sixteen_bit_pngs_are_not_swapped() -> None:
    black = np.zeros_like(LEVELS)
    assert decoded(by_opencv(".png", black, black, LEVELS)).pixels[-1, -1].tolist() == [255, 0, 0]


def test_negative_pixels_are_refused_with_advice() -> None:
    with pytest.raises(BadImageError, match="has negative pixels.*save it with 8 bits, or 16 without sign"):
        decoded(encoded(Image.fromarray(LEVELS.astype(np.int32) - 1000), "TIFF"))


def test_a_fourth_band_is_no_transparency_unless_it_can_be() -> None:
    infrared = BYTES
    found = decoded(by_opencv(".tiff", BYTES, BYTES, BYTES, infrared))
    assert found.extra_band
    assert np.array_equal(found.pixels[:, :, 0], BYTES)
    deep = decoded(by_opencv(".tiff", LEVELS, LEVELS, LEVELS, LEVELS * 16))
    assert deep.extra_band
    assert np.array_equal(deep.pixels[:, :, 0], BYTES)
    clear = decoded(by_opencv(".tiff", BYTES, BYTES, BYTES, np.zeros_like(BYTES)))
    assert not clear.extra_band
    assert clear.pixels.min() == 255
    marked = decoded(encoded(Image.fromarray(np.dstack([BYTES] * 4)), "TIFF"))
    assert not marked.extra_band


def write_set(folder: Path, *factors: float) -> Path:
    rng = np.random.default_rng(0)
    for label in ("ill", "well"):
        (folder / label).mkdir(parents=True)
        for place, factor in enumerate(factors):
            coarse = Image.fromarray(rng.integers(0, 256, (6, 6), np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
            levels = np.asarray(coarse).astype(float) / 255 * 4095 * factor
            Image.fromarray(levels.astype(np.uint16)).save(folder / label / f"{place}.png")
    return folder


def test_a_set_of_twelve_bits_is_named_and_none_of_it_is_called_empty(tmp_path: Path, config_for: ConfigFor) -> None:
    source = write_set(tmp_path / "set", *[0.99] * 10)
    config = config_for(source, cache="off")
    findings = {finding.code: finding for finding in audit_catalog(read_catalog(config), config).findings}
    assert not {"blank-image", "too-dark", "mixed-bit-depth"} & set(findings)
    assert findings["bit-depth"].title == "20 images with more than 8 bits a channel, read as 12 bits"


def test_images_that_use_fewer_bits_than_the_others_are_named(tmp_path: Path, config_for: ConfigFor) -> None:
    source = write_set(tmp_path / "set", *[0.99] * 9, 0.05)
    config = config_for(source, cache="off")
    findings = {finding.code: finding for finding in audit_catalog(read_catalog(config), config).findings}
    assert findings["mixed-bit-depth"].title == "2 images that use far fewer than 12 bits"
    assert {Path(path).name for path in findings["mixed-bit-depth"].paths} == {"9.png"}


def test_the_model_s_settings_carry_the_depth(tmp_path: Path, config_for: ConfigFor) -> None:
    Image.fromarray(LEVELS).save(tmp_path / "a.png")
    twelve, default = config_for(tmp_path, image_size=64, bit_depth=12).image, ImageSettings(height=64, width=64)
    assert np.array_equal(load_image(str(tmp_path / "a.png"), twelve, max_pixels=10**8)[:, :, 0], BYTES)
    assert load_image(str(tmp_path / "a.png"), default, max_pixels=10**8).max() == 15
