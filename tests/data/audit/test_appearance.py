from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from imagetune.data.audit.appearance import measure_appearance
from imagetune.data.audit.inspection import inspect_image
from imagetune.data.duplicates.perceptual import shrink_image


def scene(seed: int, width: int = 320, height: int = 240) -> np.ndarray:
    """Discs and boxes of random colours, with sharp edges."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(12):
        centre = int(rng.integers(width)), int(rng.integers(height))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.circle(image, centre, int(rng.integers(8, 60)), colour, -1)
    return image


def test_the_appearance_of_an_image_of_two_halves_is_known():
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = (255, 255, 255)
    appearance = measure_appearance(image)
    assert (appearance.red, appearance.green, appearance.blue, appearance.brightness, appearance.contrast) == (
        0.5,
        0.5,
        0.5,
        0.5,
        0.5,
    )
    assert (appearance.darkest, appearance.brightest, appearance.entropy) == (0.0, 1.0, 1.0)
    assert appearance.sharpness == 1.0


def test_the_mean_colour_is_red_green_blue():
    appearance = measure_appearance(np.full((20, 20, 3), (51, 102, 204), np.uint8))
    assert (appearance.red, appearance.green, appearance.blue) == (0.2, 0.4, 0.8)
    assert (appearance.contrast, appearance.entropy, appearance.sharpness) == (0.0, 0.0, 0.0)


def test_entropy_is_that_of_the_histogram():
    levels = np.repeat(np.arange(0, 256, 8, dtype=np.uint8), 32).reshape(32, 32)
    assert measure_appearance(np.repeat(levels[:, :, None], 3, axis=2)).entropy == pytest.approx(5.0)


@pytest.mark.parametrize("seed", range(5))
def test_sharpness_falls_with_blur_whatever_the_contrast_and_the_size(seed):
    image = scene(seed)
    sharp = measure_appearance(shrink_image(image)).sharpness
    faint = measure_appearance(shrink_image((image * 0.2 + 100).astype(np.uint8))).sharpness
    blurs = [
        measure_appearance(shrink_image(cv2.GaussianBlur(image, (0, 0), sigma))).sharpness for sigma in (2, 4, 8, 16)
    ]
    larger = shrink_image(cv2.GaussianBlur(cv2.resize(image, None, fx=3, fy=3), (0, 0), 24))
    assert blurs == sorted(blurs, reverse=True)
    assert sharp > 0.4
    assert faint > 0.4
    assert max(blurs[1:]) < 0.25
    assert measure_appearance(larger).sharpness == pytest.approx(blurs[2], abs=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2), (129, 5)])
def test_any_shape_can_be_measured(shape):
    appearance = measure_appearance(shrink_image(np.full((*shape, 3), 128, np.uint8)))
    assert appearance.brightness == pytest.approx(0.502, abs=1e-4)


def test_an_image_is_shrunk_to_128_and_never_enlarged():
    assert shrink_image(np.zeros((100, 400, 3), np.uint8)).shape == (32, 128, 3)
    small = np.zeros((100, 60, 3), np.uint8)
    assert shrink_image(small) is small


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_type_and_camera_are_reported_by_content(tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker \0", "Model 5\0\0"
    path = tmp_path / "a.png"
    Image.fromarray(scene(0)).save(path, "JPEG", exif=exif)
    statistics = inspect_image(str(path), background=(255, 255, 255), max_pixels=10**7, descriptors=False).statistics
    assert (statistics.kind, statistics.camera, statistics.width, statistics.height) == (
        "JPEG",
        "Maker Model 5",
        320,
        240,
    )
    assert statistics.appearance is not None
    assert statistics.appearance.ratio == pytest.approx(320 / 240, abs=1e-4)
    Image.fromarray(scene(0)).save(path, "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff broken")
    statistics = inspect_image(str(path), background=(255, 255, 255), max_pixels=10**7, descriptors=False).statistics
    assert (statistics.camera, statistics.error) == ("", None)


def test_the_shape_is_that_which_is_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(scene(0)).save(tmp_path / "a.jpg", exif=exif)
    statistics = inspect_image(
        str(tmp_path / "a.jpg"), background=(255, 255, 255), max_pixels=10**7, descriptors=False
    ).statistics
    assert (statistics.width, statistics.height) == (320, 240)
    assert statistics.appearance is not None
    assert statistics.appearance.ratio == pytest.approx(240 / 320)
