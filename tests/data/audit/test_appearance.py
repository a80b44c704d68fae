from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from imagetune.data.audit.appearance import appearance_of
from imagetune.data.audit.inspection import inspect_image
from imagetune.data.duplicates.perceptual import shrunk


def scene(seed: int, width: int = 320, height: int = 240) -> np.ndarray:
    """Discs and boxes of random colours, with sharp edges."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(12):
        centre = int(rng.integers(width)), int(rng.integers(height))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.circle(image, centre, int(rng.integers(8, 60)), colour, -1)
    return image


def test_the_metrics_of_a_image_of_two_halves_are_known():
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = (255, 255, 255)
    look = appearance_of(image)
    assert (look.red, look.green, look.blue, look.brightness, look.contrast) == (0.5, 0.5, 0.5, 0.5, 0.5)
    assert (look.darkest, look.brightest, look.entropy) == (0.0, 1.0, 1.0)
    assert look.sharpness == 1.0


def test_the_mean_colour_is_red_green_blue():
    look = appearance_of(np.full((20, 20, 3), (51, 102, 204), np.uint8))
    assert (look.red, look.green, look.blue) == (0.2, 0.4, 0.8)
    assert (look.contrast, look.entropy, look.sharpness) == (0.0, 0.0, 0.0)


def test_entropy_is_that_of_the_histogram():
    levels = np.repeat(np.arange(0, 256, 8, dtype=np.uint8), 32).reshape(32, 32)
    assert appearance_of(np.repeat(levels[:, :, None], 3, axis=2)).entropy == pytest.approx(5.0)


@pytest.mark.parametrize("seed", range(5))
def test_sharpness_falls_with_blur_whatever_the_contrast_and_the_size(seed):
    image = scene(seed)
    sharp = appearance_of(shrunk(image)).sharpness
    faint = appearance_of(shrunk((image * 0.2 + 100).astype(np.uint8))).sharpness
    blurs = [appearance_of(shrunk(cv2.GaussianBlur(image, (0, 0), sigma))).sharpness for sigma in (2, 4, 8, 16)]
    larger = shrunk(cv2.GaussianBlur(cv2.resize(image, None, fx=3, fy=3), (0, 0), 24))
    assert blurs == sorted(blurs, reverse=True)
    assert sharp > 0.4
    assert faint > 0.4
    assert max(blurs[1:]) < 0.25
    assert appearance_of(larger).sharpness == pytest.approx(blurs[2], abs=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2), (129, 5)])
def test_any_shape_can_be_measured(shape):
    look = appearance_of(shrunk(np.full((*shape, 3), 128, np.uint8)))
    assert look.brightness == pytest.approx(0.502, abs=1e-4)


def test_a_image_is_shrunk_to_128_and_never_enlarged():
    assert shrunk(np.zeros((100, 400, 3), np.uint8)).shape == (32, 128, 3)
    small = np.zeros((100, 60, 3), np.uint8)
    assert shrunk(small) is small


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_type_and_camera_are_told_by_content(tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker \0", "Model 5\0\0"
    path = tmp_path / "a.png"
    Image.fromarray(scene(0)).save(path, "JPEG", exif=exif)
    facts = inspect_image(str(path), background=(255, 255, 255), max_pixels=10**7, look=False).facts
    assert (facts.kind, facts.camera, facts.width, facts.height) == ("JPEG", "Maker Model 5", 320, 240)
    assert facts.appearance is not None
    assert facts.appearance.ratio == pytest.approx(320 / 240, abs=1e-4)
    Image.fromarray(scene(0)).save(path, "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff broken")
    facts = inspect_image(str(path), background=(255, 255, 255), max_pixels=10**7, look=False).facts
    assert (facts.camera, facts.error) == ("", None)


def test_the_shape_is_that_which_is_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(scene(0)).save(tmp_path / "a.jpg", exif=exif)
    facts = inspect_image(str(tmp_path / "a.jpg"), background=(255, 255, 255), max_pixels=10**7, look=False).facts
    assert (facts.width, facts.height) == (320, 240)
    assert facts.appearance is not None
    assert facts.appearance.ratio == pytest.approx(240 / 320)
