from __future__ import annotations

import keras
import numpy as np
import pytest

from imagetune.errors import RecipeError
from imagetune.model.backbones.architectures import TransformerArchitecture
from imagetune.model.backbones.table import get_backbone, list_backbones
from imagetune.model.backbones.vision_transformer import build_vision_transformer
from imagetune.model.build import build_backbone, find_backbone
from imagetune.model.trainable import list_blocks, list_leaf_layers, set_trainable


def weights_by_layer(model):
    return {layer.name: layer.get_weights() for layer in list_leaf_layers(model) if layer.weights}


def step(model, images):
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=False)
    model.train_on_batch(images, np.arange(len(images)) % 3)


def same(before, after):
    return all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("name", "size", "unfreeze", "learning"),
    [
        ("vgg16", 32, "last 1 block", "block5"),
        ("resnet50", 32, "conv5", "conv5"),
        pytest.param("inception_v3", 75, "last 1 block", "mixed10", marks=pytest.mark.slow),
    ],
)
def test_a_step_changes_unfrozen_layers_and_leaves_the_others_bit_identical(
    build, random_images, name, size, unfreeze, learning
):
    model, backbone = build(name, size), get_backbone(name)
    summary = set_trainable(model, backbone, unfreeze, batch_norm="frozen")
    assert [block.name for block in summary.blocks if block.layers] == [learning]
    trained = {layer for block in summary.blocks for layer in block.layers}
    before = weights_by_layer(model)
    step(model, random_images(4, size))
    after = weights_by_layer(model)
    changed = {layer for layer in before if not same(before[layer], after[layer])}
    assert changed == trained | {"logits"}


def test_none_trains_only_the_head(build, random_images):
    model = build("vgg16")
    summary = set_trainable(model, get_backbone("vgg16"), "none", batch_norm="frozen")
    assert summary.trainable_parameters == 512 * 3 + 3
    before = weights_by_layer(model)
    step(model, random_images(4))
    after = weights_by_layer(model)
    assert [layer for layer in before if not same(before[layer], after[layer])] == ["logits"]


def test_batch_norm_learns_only_when_asked(build, random_images):
    model = build()
    backbone = get_backbone("efficientnet_lite0")
    set_trainable(model, backbone, "top", batch_norm="train")
    before = weights_by_layer(model)
    step(model, random_images(4))
    after = weights_by_layer(model)
    changed = {layer for layer in before if not same(before[layer], after[layer])}
    assert changed == {"top_conv", "top_bn", "logits"}
    moving_mean = 2
    assert not np.array_equal(before["top_bn"][moving_mean], after["top_bn"][moving_mean])


def test_dropout_in_frozen_blocks_is_silent_and_comes_back(build, random_images):
    model = build()
    backbone = get_backbone("efficientnet_lite0")
    network = find_backbone(model)
    rates = {layer.name: layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)}
    assert any(rates.values())

    set_trainable(model, backbone, "none", batch_norm="frozen")
    images = random_images().astype("float32")
    first, second = network(images, training=True), network(images, training=True)
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (first, second)))

    set_trainable(model, backbone, ("block6", "top"), batch_norm="frozen")
    now = {layer.name: layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)}
    assert now == {name: rate if name.startswith("block6") else 0.0 for name, rate in rates.items()}


def test_nested_layers_of_convnext_learn_one_by_one(build):
    model = build("convnext_tiny")
    summary = set_trainable(model, get_backbone("convnext_tiny"), ("stem",), batch_norm="frozen")
    by_block = {block.name: block for block in summary.blocks}
    assert by_block["stem"].trainable_parameters == by_block["stem"].parameters == 4896
    trainable = {layer.name for layer in list_leaf_layers(find_backbone(model)) if layer.trainable_weights}
    assert "convnext_tiny_stem_conv" in trainable
    assert not any("stage" in name for name in trainable)


@pytest.mark.parametrize(
    ("unfreeze", "expected"),
    [
        ("none", ()),
        ("all", ("block1", "block2", "block3", "block4", "block5")),
        ("last 2 blocks", ("block4", "block5")),
        ("last block", ("block5",)),
        ("last 30%", ("block4", "block5")),
        ("block[12]", ("block1", "block2")),
        ("block5_conv3", ("block5",)),
        (("block1_conv*", "block3"), ("block1", "block3")),
    ],
)
def test_unfreeze_reads_as_documented(unfreeze, expected):
    backbone = get_backbone("vgg16")
    network = build_backbone(backbone, (32, 32))
    summary = set_trainable(network, backbone, unfreeze, batch_norm="frozen")
    assert tuple(block.name for block in summary.blocks if block.layers) == expected
    assert summary.trainable_parameters == sum(block.trainable_parameters for block in summary.blocks)
    assert summary.trainable_parameters + summary.frozen_parameters == backbone.parameters


def test_last_percent_counts_layers_with_weights():
    backbone = get_backbone("vgg16")
    network = build_backbone(backbone, (32, 32))
    summary = set_trainable(network, backbone, "last 30%", batch_norm="frozen")
    learning = [layer for block in summary.blocks for layer in block.layers]
    assert learning == ["block4_conv3", "block5_conv1", "block5_conv2", "block5_conv3"]


@pytest.mark.parametrize(
    ("unfreeze", "message"),
    [
        ("last 9 blocks", "vgg16 has 5 (block1, block2, block3, block4, block5)"),
        ("blok5", "did you mean 'block5'?"),
        (("block5_conv9",), "did you mean 'block5_conv3'?"),
        ("last of all", "expected `none`, `all`, `last N blocks`"),
    ],
)
def test_an_unfreeze_that_names_nothing_says_what_there_is(unfreeze, message):
    backbone = get_backbone("vgg16")
    network = build_backbone(backbone, (32, 32))
    with pytest.raises(RecipeError) as caught:
        set_trainable(network, backbone, unfreeze, batch_norm="frozen")
    assert message in str(caught.value)


SMALL = [backbone.name for backbone in list_backbones() if backbone.parameters < 9e6]


@pytest.mark.parametrize("name", [*SMALL[:2], pytest.param("", marks=pytest.mark.slow)])
def test_blocks_hold_every_layer_once_and_in_order(name):
    for backbone in [get_backbone(name)] if name else [row for row in list_backbones() if row.parameters < 3e7]:
        network = build_backbone(backbone, (backbone.min_size, backbone.min_size))
        blocks = list_blocks(network, backbone)
        named = [layer for block in blocks for layer in block.layers]
        assert sorted(named) == sorted(layer.name for layer in list_leaf_layers(network) if layer.weights)
        assert sum(block.parameters for block in blocks) == backbone.parameters == network.count_params()
        assert len(blocks) >= 5


def trained(network):
    return {weight.path.rpartition("/")[2] for weight in network.trainable_weights}


@pytest.fixture
def transformer():
    architecture = TransformerArchitecture(width=12, depth=2, heads=3, patch=4, grid=3, epsilon=1e-6)
    return build_vision_transformer(architecture, (12, 12, 3), "deit_tiny"), get_backbone("deit_tiny")


def test_adapting_norms_or_biases_trains_these_variables_alone(transformer):
    network, backbone = transformer
    everything = set_trainable(network, backbone, "all", batch_norm="frozen").trainable_parameters
    norms = set_trainable(network, backbone, "all", batch_norm="frozen", adapt="norm")
    assert trained(network) == {"gamma", "beta"}
    assert 0 < norms.trainable_parameters < everything / 4
    set_trainable(network, backbone, "all", batch_norm="frozen", adapt="bias")
    assert trained(network) == {"bias", "beta"}
    # The next stage begins anew.
    assert set_trainable(network, backbone, "all", batch_norm="frozen").trainable_parameters == everything


def test_a_step_leaves_what_is_not_adapted_bit_identical(transformer):
    network, backbone = transformer
    model = keras.Sequential([network, keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")])
    set_trainable(network, backbone, "all", batch_norm="frozen", adapt="bias")
    before = {weight.path: np.array(weight) for weight in network.weights}
    step(model, np.random.default_rng(0).uniform(0, 255, (6, 12, 12, 3)).astype(np.float32))
    moved = {weight.path for weight in network.weights if not np.array_equal(before[weight.path], np.array(weight))}
    assert moved
    assert {path.rpartition("/")[2] for path in moved} <= {"bias", "beta"}


def test_adapting_what_is_not_there_says_why():
    backbone = get_backbone("mobilenet_v3_small")
    network = build_backbone(backbone, (32, 32))
    with pytest.raises(RecipeError) as caught:
        set_trainable(network, backbone, "last 1 block", batch_norm="frozen", adapt="norm")
    assert "batch_norm: train" in caught.value.hint
    set_trainable(network, backbone, "last 1 block", batch_norm="train", adapt="norm")
    assert trained(network) == {"gamma", "beta"}
