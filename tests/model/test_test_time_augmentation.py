from __future__ import annotations

import cv2
import numpy as np
import pytest

from imagetune.model.test_time_augmentation import ZOOM_SHARE, apply_tta, find_unfit_tta
from imagetune.recipe.sections.data import ImageSettings

VIEWS = ("horizontal_flip", "vertical_flip", "rotate_90", "rotate_180", "rotate_270", "zoom_in")


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("horizontal_flip", [[2, 1], [4, 3]]),
        ("vertical_flip", [[3, 4], [1, 2]]),
        ("rotate_90", [[2, 4], [1, 3]]),
        ("rotate_180", [[4, 3], [2, 1]]),
        ("rotate_270", [[3, 1], [4, 2]]),
    ],
)
def test_flips_and_turns_move_the_pixels_of_each_image(view, expected):
    image = np.array([[1, 2], [3, 4]], np.uint8)[..., None] * np.ones(3, np.uint8)
    seen = apply_tta(view, np.stack([image, image + 10]))
    np.testing.assert_array_equal(seen[0, ..., 0], expected)
    np.testing.assert_array_equal(seen[1, ..., 2], np.array(expected) + 10)


@pytest.mark.parametrize("view", VIEWS)
def test_every_transform_has_the_shape_and_type_of_the_images(view, random_images):
    images = random_images(3, 20)
    before = images.copy()
    seen = apply_tta(view, images)
    assert (seen.shape, seen.dtype, seen.flags.c_contiguous) == (images.shape, np.uint8, True)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (31, 48), (1, 7)])
def test_zooming_in_enlarges_the_middle_as_opencv_does(height, width):
    image = np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8)
    seen = apply_tta("zoom_in", image[None])[0]
    shrink = np.array([[ZOOM_SHARE, 0, 0], [0, ZOOM_SHARE, 0]])
    shrink[:, 2] = (1 - ZOOM_SHARE) * (np.array([width, height]) - 1) / 2
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpAffine(image.astype(np.float32), shrink, (width, height), flags=flags)
    # OpenCV rounds places to a 32nd of a pixel.
    assert np.abs(seen - expected).max() <= 255 / 32 * 2 + 0.5
    assert np.abs(seen - expected).mean() < 2


def test_zooming_in_leaves_a_plain_image_and_the_middle_pixel_alone():
    plain = np.full((1, 9, 9, 3), 255, np.uint8)
    np.testing.assert_array_equal(apply_tta("zoom_in", plain), plain)
    image = np.random.default_rng(3).integers(0, 256, (1, 9, 9, 3), np.uint8)
    np.testing.assert_array_equal(apply_tta("zoom_in", image)[0, 4, 4], image[0, 4, 4])


def test_a_ramp_stays_a_ramp_seven_eighths_as_steep():
    rows = np.arange(32)
    ramp = np.broadcast_to((8 * rows)[:, None, None], (1, 32, 32, 3)).astype(np.uint8)
    expected = np.rint(8 * (15.5 + (rows - 15.5) * 0.875))
    np.testing.assert_array_equal(apply_tta("zoom_in", ramp)[0, :, 5, 1], expected)


def test_quarter_turns_need_square_images():
    wide, square = (ImageSettings(height=32, width=width) for width in (48, 32))
    assert find_unfit_tta(VIEWS, wide) == ("rotate_90", "rotate_270")
    assert find_unfit_tta(VIEWS, square) == ()
    with pytest.raises(ValueError, match="rotate_90"):
        apply_tta("rotate_90", np.zeros((1, 32, 48, 3), np.uint8))
