import numpy as np
import pytest

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


@pytest.mark.parametrize(
    ("backbone", "head"), [*(("efficientnet_lite0", head) for head in HEADS), ("mobilenet_v2", "flat")]
)
def test_both_parts_together_are_the_model(build, random_images, backbone, head):
    model = build(backbone, size=64, **HEADS[head])
    images = random_images(3, 64)
    split = split_for_saliency(model)
    features = compute_feature_maps(split, images)
    assert features.shape == (3, 2, 2, 1280)
    expected = build_logits_model(model).predict(images, verbose=0)
    assert np.allclose(compute_logits(split, features), expected, atol=1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_gradients_are_what_small_steps_find(build, head):
    split = split_for_saliency(build(size=64, **HEADS[head]))
    generator = np.random.default_rng(0)
    features = generator.normal(size=(3, 2, 2, 1280)).astype(np.float32)
    targets = np.array([0, 2, 1])
    gradients = compute_logit_gradients(split, features, targets)
    # Along the gradient, which is steep enough for float32, and along a direction at random.
    for direction in (gradients, gradients + 0.02 * np.abs(gradients).max() * generator.normal(size=features.shape)):
        step = (0.01 * direction / np.linalg.norm(direction)).astype(np.float32)
        rise = (compute_logits(split, features + step) - compute_logits(split, features - step))[range(3), targets] / 2
        assert rise == pytest.approx((gradients * step).sum(axis=(1, 2, 3)), rel=0.01, abs=2e-6)


def test_of_a_mean_and_a_weighted_sum_the_gradient_is_the_weight_by_the_places(build):
    model = build(size=96)
    split = split_for_saliency(model)
    features = np.random.default_rng(0).normal(size=(2, 3, 3, 1280)).astype(np.float32)
    weights = model.get_layer("logits").get_weights()[0]
    gradients = compute_logit_gradients(split, features, np.array([2, 0]))
    assert gradients[0] == pytest.approx(np.broadcast_to(weights[:, 2] / 9, (3, 3, 1280)), rel=1e-5)
    assert gradients[1] == pytest.approx(np.broadcast_to(weights[:, 0] / 9, (3, 3, 1280)), rel=1e-5)


def test_the_model_stays_as_it_is(build, random_images):
    model = build(dropout=0.5, hidden=(8,))
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
    split = split_for_saliency(build())
    images = random_images(PASS_SIZE + 1)
    assert np.allclose(compute_feature_maps(split, images)[-1:], compute_feature_maps(split, images[-1:]), atol=1e-5)
