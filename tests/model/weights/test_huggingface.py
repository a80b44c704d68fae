from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from imagetune.errors import RecipeError, WeightsError
from imagetune.model.backbones import table
from imagetune.model.backbones.architectures import TransformerArchitecture
from imagetune.model.backbones.blocks import TRANSFORMER
from imagetune.model.backbones.table import Backbone
from imagetune.model.build import build_model, find_backbone
from imagetune.model.load_weights import load_weights
from imagetune.recipe.sections.model import ModelConfig

VIT = TransformerArchitecture(width=8, depth=2, heads=2, patch=4, grid=3, epsilon=1e-12, repository="example/vit")
CONFIG = {"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 4}


@pytest.fixture(autouse=True)
def tiny_vit(monkeypatch):
    row = Backbone(
        name="tiny_vit",
        scheme=TRANSFORMER,
        preprocessing="tf",
        default_size=12,
        min_size=8,
        size_step=4,
        parameters=1,
        architecture=VIT,
    )
    monkeypatch.setitem(table._BACKBONES, row.name, row)


def draw_tensors(prefix="", grid=3):
    """Return random weights with the names and shapes of `transformers`."""
    shapes = {
        "embeddings.cls_token": (1, 1, 8),
        "embeddings.position_embeddings": (1, 1 + grid**2, 8),
        "embeddings.patch_embeddings.projection.weight": (8, 3, 4, 4),
        "embeddings.patch_embeddings.projection.bias": (8,),
        "layernorm.weight": (8,),
        "layernorm.bias": (8,),
    }
    for number in range(2):
        block = f"encoder.layer.{number}"
        for name, width, depth in (
            ("attention.attention.query", 8, 8),
            ("attention.attention.key", 8, 8),
            ("attention.attention.value", 8, 8),
            ("attention.output.dense", 8, 8),
            ("intermediate.dense", 32, 8),
            ("output.dense", 8, 32),
        ):
            shapes |= {f"{block}.{name}.weight": (width, depth), f"{block}.{name}.bias": (width,)}
        for name in ("layernorm_before", "layernorm_after"):
            shapes |= {f"{block}.{name}.weight": (8,), f"{block}.{name}.bias": (8,)}
    random = np.random.default_rng(3)
    return {prefix + name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path):
    def write(tensors, config=CONFIG):
        save_file(tensors, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return write


def load(weights, backbone="tiny_vit", size=12):
    config = ModelConfig(backbone=backbone, weights=str(weights))
    model = build_model(config, num_classes=2, image_size=(size, size))
    return find_backbone(model), load_weights(model, config)


@pytest.mark.parametrize("prefix", ["", "vit."])
def test_a_folder_gives_every_layer_its_weights(folder, prefix):
    tensors = draw_tensors(prefix)
    network, report = load(folder(tensors | {"classifier.weight": np.ones((2, 8), np.float32)}))
    assert (report.matched, report.unmatched, report.license) == (20, ("classifier.weight",), None)
    assert report.source.endswith("model.safetensors")
    kernel, bias = network.get_layer("block2_hidden").get_weights()
    np.testing.assert_array_equal(kernel, tensors[f"{prefix}encoder.layer.1.intermediate.dense.weight"].T)
    np.testing.assert_array_equal(bias, tensors[f"{prefix}encoder.layer.1.intermediate.dense.bias"])


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\ntags:\n- vision\nlicense: apache-2.0\n---\n# DeiT\n", "apache-2.0"),
        ("---\ntags: []\n---\nlicense: mit\n", None),
        ("# DeiT\n", None),
    ],
)
def test_the_licence_is_that_of_the_model_card_in_the_folder(folder, card, license):
    path = folder(draw_tensors())
    (path / "README.md").write_text(card)
    _, report = load(path)
    assert report.license == license


def test_a_file_of_another_name_and_of_half_precision_is_read(tmp_path):
    tensors = draw_tensors()
    save_file({name: array.astype(np.float16) for name, array in tensors.items()}, tmp_path / "vit.safetensors")
    network, _ = load(tmp_path / "vit.safetensors", size=16)
    (token,) = network.get_layer("class_token").get_weights()
    np.testing.assert_allclose(token, tensors["embeddings.cls_token"], atol=1e-2)


def test_position_embeddings_of_another_grid_are_interpolated_and_the_report_says_so(folder):
    tensors = draw_tensors(grid=6)
    tensors["embeddings.position_embeddings"][:, 1:] = 0.5
    network, report = load(folder(tensors))
    (positions,) = network.get_layer("position_embedding").get_weights()
    np.testing.assert_array_equal(positions[:, 0], tensors["embeddings.position_embeddings"][:, 0])
    np.testing.assert_allclose(positions[:, 1:], 0.5, atol=1e-6)
    assert "position embeddings interpolated from 6 x 6 to 3 x 3" in report.note


def without(name):
    return {key: array for key, array in draw_tensors().items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (without("layernorm.bias"), r"layernorm\.bias is missing; give model\.safetensors and config\.json of example"),
        (without("embeddings.cls_token"), "no tensor called embeddings.cls_token"),
        (draw_tensors() | {"embeddings.distillation_token": np.ones((1, 1, 8), np.float32)}, "a distilled DeiT"),
        (draw_tensors() | {"embeddings.register_tokens": np.ones((1, 4, 8), np.float32)}, "with registers"),
        (draw_tensors() | {"layernorm.bias": np.ones(9, np.float32)}, r"top_norm: .*\(9,\).* in the file"),
        (draw_tensors() | {"layernorm.bias": np.full(8, np.nan, np.float32)}, "layernorm.bias holds numbers that are"),
        (draw_tensors() | {"embeddings.position_embeddings": np.ones((1, 12, 8), np.float32)}, "position_embedding: "),
        (draw_tensors() | {"embeddings.position_embeddings": np.ones(80, np.float32)}, "position_embedding: "),
        (draw_tensors() | {"encoder.layer.0.output.dense.weight": np.ones(8, np.float32)}, "block1_output: "),
    ],
)
def test_other_weights_are_refused_and_nothing_is_assigned(folder, tensors, message):
    path = folder(tensors)
    config = ModelConfig(backbone="tiny_vit", weights=str(path))
    model = build_model(config, num_classes=2, image_size=(12, 12))
    before = model.get_weights()
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(model, config)
    assert caught.value.where == str(path / "model.safetensors")
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CONFIG | {"num_attention_heads": 4, "hidden_act": "relu"}, "num_attention_heads 4 instead of 2, hidden_act"),
        ([], "doesn't describe a network"),
    ],
)
def test_the_configuration_of_another_network_is_refused(folder, config, message):
    with pytest.raises(WeightsError, match=message) as caught:
        load(folder(draw_tensors(), config))
    assert caught.value.where.endswith("config.json")


@pytest.mark.parametrize("kept", [0, 7, 100])
def test_a_file_that_is_cut_short_is_refused(folder, kept):
    path = folder(draw_tensors()) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match="corrupted, or not a safetensors file"):
        load(path)


def test_safetensors_are_for_transformers_only(folder):
    with pytest.raises(RecipeError, match="read for vision transformers, and efficientnet_lite0 is none"):
        load(folder(draw_tensors()), backbone="efficientnet_lite0", size=32)


def test_imagenet_weights_are_files_that_the_user_places():
    message = "no package carries them: put model.safetensors and config.json of facebook/dinov2-small"
    with pytest.raises(WeightsError, match=message):
        load("imagenet", backbone="dinov2_small", size=28)


def test_a_saved_network_is_the_start_of_another(folder, tmp_path):
    network, _ = load(folder(draw_tensors()))
    keras.Model(network.input, network.output, name="tiny_vit").save(tmp_path / "saved.keras")
    again, _ = load(tmp_path / "saved.keras", size=20)
    for one, other in zip(network.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
