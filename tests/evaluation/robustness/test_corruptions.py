from typing import get_args

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from imagetune.evaluation.robustness.blurs import blur_defocus, blur_glass, blur_motion
from imagetune.evaluation.robustness.corruptions import COMMON, SEVERITIES, corrupt
from imagetune.evaluation.robustness.weather import draw_fractal
from imagetune.recipe.sections.evaluate import Corruption

NAMES = get_args(Corruption)
# More of these is further from the image; of the others the paper changes several things at once.
GROWING = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "brightness",
    "contrast",
    "jpeg_compression",
    "rotation",
    "jpeg_quality",
    "resolution",
)
BY_CHANCE = ("gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow", "frost", "fog")


@pytest.fixture(scope="module")
def palace():
    return cv2.resize(load_sample_image("china.jpg")[:, 100:527], (224, 224), interpolation=cv2.INTER_AREA)


def grey(value=128, size=(224, 224)):
    return np.full((*size, 3), value, np.uint8)


def distance(one, other):
    return float(np.square(one.astype(float) - other.astype(float)).mean())


def test_there_are_the_fifteen_of_the_paper_and_three_more():
    assert len(COMMON) == 15
    assert len(NAMES) == 18


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(8, 8), (32, 48), (224, 160), (301, 97)])
def test_images_of_any_size_are_corrupted(palace, name, size):
    image = cv2.resize(palace, size[::-1], interpolation=cv2.INTER_AREA)
    before = image.copy()
    for severity in SEVERITIES:
        corrupted = corrupt(image, name, severity)
        assert corrupted.shape == image.shape
        assert corrupted.dtype == np.uint8
    assert (image == before).all()
    # A lens out of focus by 4% of the side doesn't reach the next pixel of eight.
    assert min(size) == 8 or (corrupt(image, name, 5) != image).any()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_pixels(palace, name):
    assert (corrupt(palace, name, 3, seed=(1, 2)) == corrupt(palace, name, 3, seed=(1, 2))).all()


@pytest.mark.parametrize("name", BY_CHANCE)
def test_another_seed_gives_other_pixels(palace, name):
    assert (corrupt(palace, name, 3, seed=(1, 2)) != corrupt(palace, name, 3, seed=(1, 3))).any()


@pytest.mark.parametrize("name", GROWING)
def test_more_severe_is_further_from_the_image(palace, name):
    distances = [distance(corrupt(palace, name, severity), palace) for severity in SEVERITIES]
    assert distances == sorted(distances)
    assert distances[-1] > 1.2 * distances[0]


def test_every_severity_of_the_others_is_further_than_the_corruption_of_rounding(palace):
    for name in set(NAMES) - set(GROWING):
        assert min(distance(corrupt(palace, name, severity), palace) for severity in SEVERITIES) > 10, name


def test_an_unknown_severity_is_refused(palace):
    with pytest.raises(ValueError, match="severity 6"):
        corrupt(palace, "fog", 6)


def test_gaussian_noise_has_the_deviation_of_the_paper():
    noise = corrupt(grey(), "gaussian_noise", 1).astype(float) - 128
    assert noise.std() == pytest.approx(0.08 * 255, rel=0.02)
    assert abs(noise.mean()) < 0.5


def test_shot_noise_is_that_of_counted_photons():
    noisy = corrupt(grey(64), "shot_noise", 1).astype(float) / 255
    assert noisy.mean() == pytest.approx(64 / 255, rel=0.01)
    assert noisy.var() == pytest.approx(64 / 255 / 60, rel=0.05)


def test_impulses_strike_the_share_of_the_paper_black_and_white_alike():
    struck = corrupt(grey(), "impulse_noise", 4)
    assert (struck != 128).mean() == pytest.approx(0.17, rel=0.03)
    assert (struck == 255).sum() == pytest.approx((struck == 0).sum(), rel=0.05)


def test_brightness_is_added_to_the_value():
    assert corrupt(grey(100), "brightness", 3).mean() == pytest.approx(100 + 0.3 * 255, abs=0.6)


def test_contrast_is_the_share_of_the_paper(palace):
    flat = corrupt(palace, "contrast", 2).astype(float)
    assert np.allclose(flat.mean(axis=(0, 1)), palace.mean(axis=(0, 1)), atol=0.5)
    assert flat.std(axis=(0, 1)) == pytest.approx(0.3 * palace.std(axis=(0, 1)), rel=0.02)


def test_a_point_out_of_focus_is_a_disc_of_the_radius():
    image = np.zeros((65, 65, 3), np.float32)
    image[32, 32] = 1
    disc = blur_defocus(image, 8.0, 0.5)[:, :, 0]
    rows, columns = np.mgrid[-32:33, -32:33]
    assert disc.sum() == pytest.approx(1, abs=1e-4)
    # The mean squared distance in a disc is half its squared radius; the soft edge adds that of its Gaussian.
    assert (disc * (rows**2 + columns**2)).sum() == pytest.approx(8**2 / 2 + 2 * 0.5**2, rel=0.05)


def test_a_trail_has_the_direction_and_stays_on_one_side():
    image = np.zeros((65, 65, 3), np.float32)
    image[32, 32] = 1
    trail = blur_motion(image, length=20, sigma=8, degrees=90)[:, :, 0]
    rows, columns = np.nonzero(trail > 1e-4)
    assert set(columns) <= {31, 32, 33}
    assert len(set(rows)) >= 15
    assert rows.min() >= 31 or rows.max() <= 33


def test_behind_glass_pixels_are_swapped_and_none_is_lost():
    image = np.random.default_rng(0).random((40, 30, 3)).astype(np.float32)
    mixed = blur_glass(image, sigma=0.01, reach=3, rounds=1, generator=np.random.default_rng(1))
    assert (mixed != image).any(axis=2).mean() > 0.5
    assert np.array_equal(np.sort(mixed.reshape(-1, 3), axis=0), np.sort(image.reshape(-1, 3), axis=0))
    # A border as wide as the reach may only receive pixels, one from within the reach.
    rows = np.repeat(np.arange(40, dtype=np.float32)[:, None], 30, axis=1)[:, :, None].repeat(3, axis=2)
    moved = blur_glass(rows, sigma=0.01, reach=3, rounds=1, generator=np.random.default_rng(1))
    assert np.abs(moved - rows).max() > 1


def test_a_blurred_image_looks_alike_at_any_size(palace):
    large = cv2.resize(palace, (448, 448), interpolation=cv2.INTER_CUBIC)
    shrunk = cv2.resize(corrupt(large, "defocus_blur", 4), (224, 224), interpolation=cv2.INTER_AREA)
    assert distance(shrunk, corrupt(palace, "defocus_blur", 4)) < 0.02 * distance(
        corrupt(palace, "defocus_blur", 4), palace
    )


def test_an_image_is_bent_alike_at_any_size(palace):
    small = cv2.resize(palace, (112, 112), interpolation=cv2.INTER_AREA)
    bent = corrupt(palace, "elastic_transform", 5)
    shrunk = cv2.resize(bent, (112, 112), interpolation=cv2.INTER_AREA)
    assert distance(shrunk, corrupt(small, "elastic_transform", 5)) < 0.5 * distance(shrunk, small)


def test_a_turn_is_by_the_degrees_and_leaves_no_empty_corner():
    image = np.full((101, 101, 3), 200, np.uint8)
    image[50, 50:71] = 0
    turned = corrupt(image, "rotation", 5)
    rows, columns = np.nonzero(turned[:, :, 0] < 120)
    far = np.hypot(rows - 50, columns - 50).argmax()
    assert abs(rows[far] - 50) == pytest.approx(columns[far] - 50, abs=3)
    assert turned[[0, 0, -1, -1], [0, -1, 0, -1]].min() > 150


def test_resolution_leaves_what_a_small_original_has(palace):
    coarse = corrupt(palace, "resolution", 5)
    small = cv2.resize(palace, (28, 28), interpolation=cv2.INTER_AREA)
    assert distance(cv2.resize(coarse, (28, 28), interpolation=cv2.INTER_AREA), small) < 60
    assert distance(coarse, palace) > 300


def test_clouds_use_the_whole_range_and_finer_ones_decay_faster():
    smooth, rough = (draw_fractal((100, 130), decay, np.random.default_rng(0)) for decay in (4.0, 1.5))
    for clouds in (smooth, rough):
        assert clouds.shape == (100, 130)
        assert clouds.min() >= 0
        assert clouds.max() <= 1
    assert np.abs(np.diff(rough, axis=0)).mean() > 3 * np.abs(np.diff(smooth, axis=0)).mean()
