from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from imagetune.errors import RecipeError
from imagetune.model.backbones import table
from imagetune.model.backbones.architectures import TransformerArchitecture
from imagetune.model.backbones.blocks import TRANSFORMER
from imagetune.model.backbones.table import Backbone, find_size_problem, get_backbone, list_backbones
from imagetune.model.backbones.vision_transformer import build_vision_transformer, compute_resize_matrix
from imagetune.model.build import build_backbone, build_model, find_backbone
from imagetune.model.gradients import compute_feature_maps, compute_logit_gradients, compute_logits, split_for_saliency
from imagetune.model.split_model import list_frozen_boundaries, split_model_at
from imagetune.model.trainable import list_blocks, set_trainable
from imagetune.model.weights.huggingface import convert_huggingface_weights
from imagetune.recipe.sections.model import HeadConfig, ModelConfig

# Written by `python -m scripts.transformer_parity --write`: what `transformers` computes.
REFERENCE = Path(__file__).parent / "vision_transformer.npz"
TINY = {
    "tiny vit": TransformerArchitecture(width=12, depth=2, heads=3, patch=4, grid=3, epsilon=1e-12),
    "tiny dinov2": TransformerArchitecture(width=12, depth=2, heads=3, patch=4, grid=4, epsilon=1e-6, layer_scale=True),
}
NAMES = [backbone.name for backbone in list_backbones() if backbone.has_class_token]


@pytest.fixture
def tiny(monkeypatch):
    row = Backbone(
        name="tiny_dinov2",
        scheme=TRANSFORMER,
        preprocessing="torch",
        default_size=16,
        min_size=8,
        size_step=4,
        parameters=1,
        architecture=TINY["tiny dinov2"],
    )
    monkeypatch.setitem(table._BACKBONES, row.name, row)
    return row


def build(row, size=(16, 16), pooling="avg", seed=1, drop_path=None):
    keras.utils.set_random_seed(seed)
    config = ModelConfig(backbone=row.name, weights="random", drop_path=drop_path, head=HeadConfig(pooling=pooling))
    model = build_model(config, num_classes=3, image_size=size)
    # The published networks start from small numbers, at which attention is nearly uniform.
    random = np.random.default_rng(seed)
    model.set_weights([value + random.normal(scale=0.2, size=value.shape) for value in model.get_weights()])
    return model


def draw_images(count=3, size=(16, 16)):
    return np.random.default_rng(5).integers(0, 256, (count, *size, 3), np.uint8)


def read_reference(name):
    stored = np.load(REFERENCE)
    parts = {key.removeprefix(f"{name}/"): stored[key] for key in stored.files if key.startswith(f"{name}/")}
    weights = {key.removeprefix("weights/"): value for key, value in parts.items() if key.startswith("weights/")}
    return weights, [(parts[f"images/{number}"], parts[f"tokens/{number}"]) for number in range(3)]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("class_token", [True, False])
def test_tokens_are_those_of_transformers_at_every_size(name, class_token):
    weights, cases = read_reference(name)
    arrays, unused = convert_huggingface_weights(TINY[name], weights)
    assert set(unused) <= {"embeddings.mask_token"}
    for images, tokens in cases:
        network = build_vision_transformer(TINY[name], images.shape[1:], "network", class_token=class_token)
        for layer, values in arrays.items():
            network.get_layer(layer).set_weights(values)
        expected = tokens[:, :1] if class_token else tokens[:, 1:]
        found = keras.ops.convert_to_numpy(network(images)).reshape(expected.shape)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_resizing_to_the_same_size_changes_nothing():
    np.testing.assert_array_equal(compute_resize_matrix(5, 5), np.eye(5, dtype=np.float32))


def test_the_weights_of_a_resize_sum_to_one():
    for size, target in ((37, 16), (14, 20), (3, 7)):
        np.testing.assert_allclose(compute_resize_matrix(size, target).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", [*NAMES[:1], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])])
def test_blocks_go_from_stem_to_top_and_all_parameters_are_in_one(name):
    row = get_backbone(name)
    network = build_backbone(row, (row.min_size, row.min_size))
    blocks = list_blocks(network, row)
    assert [block.name for block in blocks] == ["stem", *(f"block{number}" for number in range(1, 13)), "top"]
    assert blocks[0].layers == ("patch_embedding", "position_embedding", "class_token")
    assert sum(block.parameters for block in blocks) == network.count_params() == row.parameters


def test_the_last_blocks_can_be_unfrozen(tiny):
    model = build(tiny)
    summary = set_trainable(model, tiny, "last 2 blocks", batch_norm="frozen")
    assert [block.name for block in summary.blocks if block.trainable_parameters] == ["block2", "top"]


def test_the_weights_fit_every_image_size(tiny):
    small, large = build(tiny, (8, 12)), build(tiny, (24, 16))
    large.set_weights(small.get_weights())
    assert large.predict(draw_images(2, (24, 16)), verbose=0).shape == (2, 3)


def test_the_head_reads_the_class_token_or_the_patches(tiny):
    images = draw_images()
    features = {}
    for pooling in ("token", "avg", "max", "flatten"):
        model = build(tiny, pooling=pooling)
        features[pooling] = keras.Model(model.input, model.get_layer("pooling").output).predict(images, verbose=0)
    assert {pooling: found.shape for pooling, found in features.items()} == {
        "token": (3, 12),
        "avg": (3, 12),
        "max": (3, 12),
        "flatten": (3, 16 * 12),
    }
    patches = features["flatten"].reshape(3, 16, 12)
    np.testing.assert_allclose(features["avg"], patches.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(features["max"], patches.max(axis=1), atol=1e-5)
    assert np.abs(features["token"] - features["avg"]).max() > 0.1


def test_a_backbone_without_a_class_token_is_told_so():
    config = ModelConfig(weights="random", head=HeadConfig(pooling="token"))
    with pytest.raises(
        RecipeError, match="token is for vision transformers, and efficientnet_lite0 has no class token"
    ):
        build_model(config, num_classes=2, image_size=(32, 32))


@pytest.mark.parametrize(
    ("name", "size", "message", "hint"),
    [
        ("deit_tiny", (220, 220), "multiples of 16, not 220", "the nearest to 220 are 208 and 224"),
        ("dinov2_small", (224, 230), "multiples of 14, not 224 x 230", "the nearest to 230 are 224 and 238"),
        ("deit_tiny", (40,), "multiples of 16, not 40", "the nearest to 40 are 32 and 48"),
        ("deit_tiny", (16,), "at least 32 pixels, not 16", "its default size is 224"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_with_the_nearest_ones(name, size, message, hint):
    what, advice = find_size_problem(get_backbone(name), size)
    assert what.endswith(message)
    assert advice == hint


def test_sizes_that_fit_have_no_problem():
    assert find_size_problem(get_backbone("dinov2_base"), (518, 224)) is None
    assert find_size_problem(get_backbone("vgg16"), (33, 71)) is None


@pytest.mark.parametrize("pooling", ["token", pytest.param("avg", marks=pytest.mark.slow)])
def test_a_model_can_be_split_after_each_block(tiny, pooling):
    model = build(tiny, pooling=pooling)
    images = draw_images()
    boundaries = list_frozen_boundaries(model, tiny, "none")
    assert boundaries == ("stem", "block1", "block2", "pooling")
    for boundary in boundaries:
        halves = split_model_at(model, tiny, boundary)
        features = halves.lower.predict(images, verbose=0)
        found = halves.predictions.predict(features, verbose=0)
        np.testing.assert_allclose(found, model.predict(images, verbose=0), atol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "size"),
    [
        ("token", (16, 16)),
        ("avg", (12, 20)),
        pytest.param("avg", (16, 16), marks=pytest.mark.slow),
        pytest.param("token", (12, 20), marks=pytest.mark.slow),
    ],
)
def test_saliency_has_a_cell_a_patch_and_exact_gradients(tiny, pooling, size):
    model = build(tiny, size, pooling=pooling)
    images, targets = draw_images(3, size), np.array([0, 2, 1])
    split = split_for_saliency(model)
    assert split.cells == (size[0] // 4, size[1] // 4)
    features = compute_feature_maps(split, images)
    gradients = compute_logit_gradients(split, features, targets)
    assert split.arrange(gradients).shape == (3, *split.cells, 12)
    # A patch must matter: the class token alone would leave the map empty.
    assert np.abs(split.arrange(gradients)).max() > 1e-4
    step = np.random.default_rng(0).normal(size=features.shape).astype(np.float32) * 1e-2
    rise = compute_logits(split, features + step) - compute_logits(split, features - step)
    expected = rise[range(3), targets] / 2
    np.testing.assert_allclose((gradients * step).sum(axis=tuple(range(1, step.ndim))), expected, rtol=0.05, atol=1e-4)
    logits = keras.Model(model.input, model.get_layer("logits").output).predict(images, verbose=0)
    np.testing.assert_allclose(compute_logits(split, features), logits, atol=1e-4)


def test_stochastic_depth_rises_to_the_rate_of_the_recipe(tiny):
    def rates(model):
        return [layer.rate for layer in find_backbone(model).layers if isinstance(layer, keras.layers.Dropout)]

    assert rates(build(tiny)) == pytest.approx([0.05, 0.05, 0.1, 0.1])
    assert rates(build(tiny, drop_path=0.4)) == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_no_layer_is_our_own(tiny):
    network = build_backbone(replace(tiny), (8, 12))
    assert {type(layer).__module__.partition(".")[0] for layer in network.layers} == {"keras"}
