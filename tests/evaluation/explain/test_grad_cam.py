"""Grad-CAM where the right place is known, and the sanity check by random weights of Adebayo et al. (NeurIPS 2018)."""

import cv2
import keras
import numpy as np
import pytest
from imagenet_classifier import load_classifier
from scipy.stats import spearmanr
from sklearn.datasets import load_sample_image
from sklearn.linear_model import LogisticRegression

from imagetune.evaluation.explain.grad_cam import build_heat_map, compute_grad_cam
from imagetune.evaluation.explain.saliency import compute_saliency
from imagetune.model.build import build_model, find_backbone
from imagetune.model.gradients import compute_feature_maps, split_for_saliency
from imagetune.model.load_weights import load_weights
from imagetune.recipe.sections.model import ModelConfig

SIZE = 160
SIDE = 50
NOTHING = 2
DAISY, PALACE = 985, 698


@pytest.fixture(scope="module")
def imagenet_model():
    model = build_model(ModelConfig(), num_classes=1000, image_size=(SIZE, SIZE))
    load_weights(model, ModelConfig())
    load_classifier(model)
    return model


def photograph(name, left):
    cut = load_sample_image(name)[:, left : left + 427]
    return cv2.resize(cut, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def maps_of(model, images, targets):
    split = split_for_saliency(model)
    return compute_grad_cam(split, compute_feature_maps(split, images), np.array(targets))


def correlation(one, other):
    return float(spearmanr(one.ravel(), other.ravel()).statistic)


def squares(count, seed):
    """Return noisy images with a red square, a blue one or none, which is the class, and where it is."""
    generator = np.random.default_rng(seed)
    images = generator.integers(115, 136, (count, SIZE, SIZE, 3)).astype(np.uint8)
    places = generator.integers(0, SIZE - SIDE, (count, 2))
    labels = np.arange(count) % 3
    for image, (top, left), label in zip(images, places, labels, strict=True):
        if label != NOTHING:
            image[top : top + SIDE, left : left + SIDE] = ((220, 30, 30), (30, 30, 220))[label]
    return images, labels, places


@pytest.fixture(scope="module")
def square_looks():
    """Saliency maps of unseen images by the pretrained backbone, with a head that classifies the squares."""
    model = build_model(ModelConfig(), num_classes=3, image_size=(SIZE, SIZE))
    load_weights(model, ModelConfig())
    images, labels, _ = squares(96, seed=1)
    pooled = compute_feature_maps(split_for_saliency(model), images).mean(axis=(1, 2))
    fitted = LogisticRegression(max_iter=2000).fit(pooled, labels)
    model.get_layer("logits").set_weights([fitted.coef_.T, fitted.intercept_])
    images, labels, places = squares(15, seed=2)
    assert (model.predict(images, verbose=0).argmax(axis=1) == labels).all()
    with_square = labels != NOTHING
    maps = compute_saliency(split_for_saliency(model), images[with_square], labels[with_square][:, None])
    return [found for (found,) in maps], places[with_square]


@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
def test_the_map_lies_on_what_decides_the_class(square_looks, method):
    on_it, outside, hits = [], [], []
    for look, (top, left) in zip(*square_looks, strict=True):
        heat = build_heat_map(getattr(look, method), (SIZE, SIZE))
        # A map has 5 x 5 places: half a place around the square still belongs to it.
        around = np.zeros_like(heat, dtype=bool)
        around[max(0, top - 16) : top + SIDE + 16, max(0, left - 16) : left + SIDE + 16] = True
        on_it.append(heat[around].mean())
        outside.append(heat[~around].mean())
        hits.append(around[np.unravel_index(heat.argmax(), heat.shape)])
    # What lies around the square is a quarter of the image.
    assert np.mean(on_it) > 2.2 * np.mean(outside)
    # A cover is as large as the square, so its best place can be beside it; a feature's is not.
    assert method == "occlusion" or np.mean(hits) > 0.75


def test_two_classes_of_one_image_are_in_two_places(imagenet_model):
    """Side by side, a daisy and a palace: each class is found in its half."""
    flower, palace = photograph("flower.jpg", 150), photograph("china.jpg", 100)
    halves = [cv2.resize(image, (SIZE // 2, SIZE), interpolation=cv2.INTER_AREA) for image in (flower, palace)]
    both = np.concatenate(halves, axis=1)[None]
    daisy, building = maps_of(imagenet_model, both, [[DAISY, PALACE]])[0]
    assert build_heat_map(daisy, (2, 2))[:, 0].sum() > 3 * build_heat_map(daisy, (2, 2))[:, 1].sum()
    assert build_heat_map(building, (2, 2))[:, 1].sum() > 3 * build_heat_map(building, (2, 2))[:, 0].sum()


def randomised(layers, seed=0):
    """Give layers new random weights, as large as theirs were."""
    generator = np.random.default_rng(seed)
    for layer in layers:
        layer.set_weights(
            [generator.permutation(weight.ravel()).reshape(weight.shape) for weight in layer.get_weights()]
        )


def similarity_after(model, images, targets, layers, before):
    kept = [layer.get_weights() for layer in layers]
    randomised(layers)
    after = maps_of(model, images, targets)
    for layer, weights in zip(layers, kept, strict=True):
        layer.set_weights(weights)
    return float(np.mean([correlation(one, other) for one, other in zip(before, after, strict=True)]))


@pytest.mark.slow
def test_random_weights_change_the_map_of_the_flat_backbone(imagenet_model):
    images = np.stack([photograph("flower.jpg", 150), photograph("china.jpg", 100)])
    targets = [[DAISY], [PALACE]]
    network = find_backbone(imagenet_model)
    last = [layer for layer in network.layers if layer.weights][-2:]
    before = maps_of(imagenet_model, images, targets)
    assert similarity_after(imagenet_model, images, targets, [], before) == pytest.approx(1.0)
    assert similarity_after(imagenet_model, images, targets, [imagenet_model.get_layer("logits")], before) < 0.6
    assert similarity_after(imagenet_model, images, targets, last, before) < 0.6


@pytest.mark.slow
def test_random_weights_change_the_map_of_a_nested_backbone():
    keras.utils.set_random_seed(3)
    model = build_model(ModelConfig(backbone="mobilenet_v2", weights="random"), num_classes=3, image_size=(SIZE, SIZE))
    images, _, _ = squares(4, seed=4)
    targets = [[0], [1], [2], [0]]
    last = [layer for layer in find_backbone(model).layers if layer.weights][-4:]
    before = maps_of(model, images, targets)
    assert similarity_after(model, images, targets, [], before) == pytest.approx(1.0)
    assert similarity_after(model, images, targets, [model.get_layer("logits")], before) < 0.6
    assert similarity_after(model, images, targets, last, before) < 0.6


def test_a_heat_map_shows_only_what_speaks_for_the_class():
    values = np.array([[-1.0, 0.0], [2.0, -3.0]], np.float32)
    heat = build_heat_map(values, (40, 20))
    assert heat.shape == (40, 20)
    assert heat.min() == 0
    assert heat.max() == 1
    assert heat[30:, :5].min() > 0.4
    assert not build_heat_map(-np.abs(values), (40, 20)).any()
