import numpy as np
import pytest

from imagetune.recipe.sections.learning import MixConfig
from imagetune.training.objectives.mixing import mix_batch

BLACK_AND_WHITE = np.stack([np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)] * 8)
LABELS = np.tile(np.eye(2, dtype=np.float32), (8, 1))


def mixed(name, seed=0, **settings):
    return mix_batch(BLACK_AND_WHITE, LABELS, MixConfig(name=name, alpha=1.0, **settings), np.random.default_rng(seed))


@pytest.mark.parametrize("name", ["mixup", "cutmix", "both"])
def test_labels_sum_to_one_and_say_how_much_of_each_image_there_is(name):
    images, labels = mixed(name)
    assert images.dtype == np.uint8
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, rtol=1e-6)
    white = images.astype(np.float64).mean(axis=(1, 2, 3)) / 255
    np.testing.assert_allclose(labels[:, 1], white, atol=0.003)
    assert len(np.unique(labels[:, 1])) > 4


def test_cutmix_keeps_every_pixel_of_one_of_the_two():
    images, _ = mixed("cutmix")
    assert set(np.unique(images)) == {0, 255}


def test_the_same_seed_blends_the_same_way():
    np.testing.assert_array_equal(mixed("both", seed=3)[0], mixed("both", seed=3)[0])
    assert (mixed("both", seed=3)[0] != mixed("both", seed=4)[0]).any()


def test_probability_is_the_share_of_blended_batches():
    blended = [mixed("mixup", seed, probability=0.3)[0] is not BLACK_AND_WHITE for seed in range(300)]
    assert 0.2 < np.mean(blended) < 0.4


def test_the_original_batch_is_left_as_it_was():
    before = BLACK_AND_WHITE.copy()
    mixed("cutmix")
    np.testing.assert_array_equal(BLACK_AND_WHITE, before)
