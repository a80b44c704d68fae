import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from imagetune.export.folder import write_export
from imagetune.export.formats import Target
from imagetune.model.backbones import table
from imagetune.model.backbones.architectures import TransformerArchitecture
from imagetune.model.backbones.blocks import TRANSFORMER
from imagetune.model.backbones.table import Backbone
from imagetune.model.build import build_model
from imagetune.model.manifest import load_model, read_manifest, save_model
from imagetune.recipe.sections.data import ImageSettings
from imagetune.recipe.sections.model import ModelConfig

DINOV2 = TransformerArchitecture(width=12, depth=1, heads=3, patch=4, grid=4, epsilon=1e-6, layer_scale=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model with the layer scales of DINOv2, and positions that are interpolated."""
    row = Backbone("small_dinov2", TRANSFORMER, "torch", 16, 8, 1, size_step=4, architecture=DINOV2)
    monkeypatch.setitem(table._BACKBONES, row.name, row)
    config, image = ModelConfig(backbone=row.name, weights="random"), ImageSettings(height=12, width=12)
    model = build_model(config, num_classes=3, image_size=(12, 12))
    save_model(model, tmp_path / "model", config=config, class_names=("a", "b", "c"), image=image)
    return tmp_path


def test_a_vision_transformer_with_layer_scales_runs_with_fixed_shapes(folder):
    loaded, out = load_model(folder / "model"), folder / "out"
    out.mkdir()
    write_export(loaded, read_manifest(folder / "model"), Target("litert"), out, np.zeros((0, 12, 12, 3), np.uint8))
    image = np.random.default_rng(0).integers(0, 256, (1, 12, 12, 3), np.uint8)
    interpreter = Interpreter(str(out / "model.tflite"))
    found = interpreter.get_signature_runner()(images=image)["probabilities"]
    np.testing.assert_allclose(found, loaded.model.predict(image, verbose=0), atol=1e-5)
    assert all(-1 not in tensor["shape_signature"] for tensor in interpreter.get_tensor_details())
