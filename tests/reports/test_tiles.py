import cv2
import numpy as np
import pytest

from imagetune.reports.tiles import overlay_heat, scale_image


def test_heat_is_warm_where_the_map_is_high_and_grey_elsewhere():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    values = np.full((3, 4), -1.0, np.float32)
    values[2, 3] = 5
    shown = overlay_heat(image, values).astype(int)
    assert shown.shape == image.shape
    left, corner = shown[:30, :30], shown[50:, 70:]
    assert (np.ptp(left, axis=2) == 0).all()
    assert (corner[..., 0] - corner[..., 2]).min() > 80


def test_an_image_without_heat_is_only_dimmed():
    image = np.full((8, 8, 3), 200, np.uint8)
    assert set(np.unique(overlay_heat(image, np.zeros((2, 2), np.float32)))) == {90}


@pytest.mark.parametrize(("size", "expected"), [((100, 50), (40, 20)), ((10, 30), (13, 40))])
def test_tiles_keep_the_shape_of_the_image(size, expected):
    assert scale_image(np.zeros((*size, 3), np.uint8), 40).shape[:2] == expected


def test_a_tile_is_the_image_smaller():
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8), (200, 200))
    assert np.abs(scale_image(image, 100).astype(int) - cv2.resize(image, (100, 100)).astype(int)).mean() < 3
