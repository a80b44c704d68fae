import keras
import numpy as np
import pytest

from imagetune.evaluation.explain.occlusion import GRID, PATCH_SHARE, compute_occlusion, cover_patches
from imagetune.evaluation.explain.saliency import compute_rank_agreement, compute_saliency
from imagetune.model.gradients import SaliencyModel


@pytest.fixture
def redness():
    """A model whose outputs are the means of red and of blue: what every place adds is known."""
    inputs = keras.Input((48, 60, 3))
    features = keras.Model(inputs, keras.layers.AveragePooling2D(12)(keras.layers.Rescaling(1 / 255)(inputs)))
    maps = keras.Input((4, 5, 3))
    logits = keras.layers.Dense(2, use_bias=False)
    head = keras.Model(maps, logits(keras.layers.GlobalAveragePooling2D()(maps)))
    logits.set_weights([np.array([[10.0, 0.0], [0.0, 0.0], [0.0, 10.0]])])
    return SaliencyModel(features, head)


@pytest.fixture
def red_corner():
    image = np.zeros((48, 60, 3), np.uint8)
    image[:12, :12, 0] = 240
    return image


def test_covering_measures_what_a_logit_loses(redness, red_corner):
    falls = compute_occlusion(redness, red_corner[None], np.array([[0, 1]]))
    assert falls.shape == (1, 2, GRID, GRID)
    # 12 x 15 pixels become the image's mean colour, the whole corner and some black: 240 on a twentieth is 12.
    lost = 10 * (12 * 12 * 240 - 12 * 15 * 12) / 255 / (48 * 60)
    assert falls[0, 0].argmax() == 0
    assert falls[0, 0, 0, 0] == pytest.approx(lost, rel=1e-3)
    assert falls[0, 0, 3:].max() < 0
    assert not falls[0, 1].any()


def test_covers_reach_every_pixel_and_have_the_size():
    image = np.zeros((48, 60, 3), np.uint8)
    image[::2] = 255
    changed = np.stack([(version != image).any(axis=2) for version in cover_patches(image)])
    assert len(changed) == GRID**2
    assert changed.any(axis=0).all()
    inner = changed[GRID + 1]
    assert inner.any(axis=1).sum() == pytest.approx(PATCH_SHARE * 48, abs=2)
    assert inner.any(axis=0).sum() == pytest.approx(PATCH_SHARE * 60, abs=2)


def test_gradients_of_a_known_model_lie_where_the_red_is(redness, red_corner):
    ((look, other),) = compute_saliency(redness, red_corner[None], np.array([[0, 1]]))
    assert (look.target, other.target) == (0, 1)
    assert look.grad_cam.shape == (4, 5)
    # Of a mean over 20 places, each adds a twentieth of its red, ten times.
    assert look.grad_cam[0, 0] == pytest.approx(10 * 240 / 255 / 20, rel=1e-4)
    assert not look.grad_cam.ravel()[1:].any()
    assert look.agreement is not None
    assert look.agreement > 0.3
    assert other.agreement is None


def test_no_images_need_no_saliency(redness):
    assert compute_saliency(redness, np.zeros((0, 48, 60, 3), np.uint8), np.zeros((0, 2), np.int64)) == []


def test_agreement_is_the_correlation_of_the_ranks():
    values = np.random.default_rng(0).normal(size=(GRID, GRID)).astype(np.float32)
    assert compute_rank_agreement(values, np.exp(values)) == pytest.approx(1)
    assert compute_rank_agreement(values, -values) == pytest.approx(-1)
    assert compute_rank_agreement(values, np.ones_like(values)) is None
