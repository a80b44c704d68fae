import numpy as np
import pytest
from tiny_backbones import TINY

from imagetune.model.build import build_logits_model, find_backbone
from imagetune.model.gradients import (
    PASS_SIZE,
    compute_feature_maps,
    compute_logit_gradients,
    compute_logits,
    split_for_saliency,
)

HEADS = {
    "average": {"dropout": 0.0},
    "hidden": {"hidden": (16, 8), "activation": "gelu", "dropout": 0.5},
    "maximum": {"pooling": "max", "dropout": 0.3},
    "flat": {"pooling": "flatten", "hidden": (4,), "activation": "tanh"},
}
WIDTH = 24  # channels of the last block of TINY

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.mark.parametrize(
    ("backbone", "size", "width", "head"),
    [
        *((TINY, 32, WIDTH, head) for head in HEADS),
        ("efficientnet_lite0", 64, 1280, "average"),
        ("mobilenet_v2", 64, 1280, "flat"),
    ],
)
def test_both_parts_together_are_the_model(build, random_images, backbone, size, width, head):
    model = build(backbone, size=size, **HEADS[head])
    images = random_images(3, size)
    split = split_for_saliency(model)
    features = compute_feature_maps(split, images)
    assert features.shape == (3, 2, 2, width)
    expected = build_logits_model(model).predict(images, verbose=0)
    assert np.allclose(compute_logits(split, features), expected, atol=1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_gradients_are_what_small_steps_find(build, head):
    split = split_for_saliency(build(TINY, **HEADS[head]))
    generator = np.random.default_rng(0)
    features = generator.normal(size=(3, 2, 2, WIDTH)).astype(np.float32)
    targets = np.array([0, 2, 1])
    gradients = compute_logit_gradients(split, features, targets)
    # Along the gradient, which is steep enough for float32, and along a direction at random.
    for direction in (gradients, gradients + 0.02 * np.abs(gradients).max() * generator.normal(size=features.shape)):
        step = (0.01 * direction / np.linalg.norm(direction)).astype(np.float32)
        rise = (compute_logits(split, features + step) - compute_logits(split, features - step))[range(3), targets] / 2
        assert rise == pytest.approx((gradients * step).sum(axis=(1, 2, 3)), rel=0.01, abs=2e-6)


def test_of_a_mean_and_a_weighted_sum_the_gradient_is_the_weight_by_the_places(build):
    model = build(TINY, size=48)
    split = split_for_saliency(model)
    features = np.random.default_rng(0).normal(size=(2, 3, 3, WIDTH)).astype(np.float32)
    weights = model.get_layer("logits").get_weights()[0]
    gradients = compute_logit_gradients(split, features, np.array([2, 0]))
    assert gradients[0] == pytest.approx(np.broadcast_to(weights[:, 2] / 9, (3, 3, WIDTH)), rel=1e-5)
    assert gradients[1] == pytest.approx(np.broadcast_to(weights[:, 0] / 9, (3, 3, WIDTH)), rel=1e-5)


def test_the_model_stays_as_it_is(build, random_images):
    model = build(TINY, dropout=0.5, hidden=(8,))
    find_backbone(model).trainable = False
    weights = [weight.copy() for weight in model.get_weights()]
    learning = [layer.trainable for layer in model.layers]
    predictions = model.predict(random_images(), verbose=0)
    split = split_for_saliency(model)
    compute_logit_gradients(split, compute_feature_maps(split, random_images()), np.array([0, 1]))
    assert all((one == other).all() for one, other in zip(weights, model.get_weights(), strict=True))
    assert [layer.trainable for layer in model.layers] == learning
    assert (model.predict(random_images(), verbose=0) == predictions).all()


def test_images_are_the_same_alone_and_in_a_batch(build, random_images):
    split = split_for_saliency(build(TINY))
    images = random_images(PASS_SIZE + 1)
    assert np.allclose(compute_feature_maps(split, images)[-1:], compute_feature_maps(split, images[-1:]), atol=1e-5)
