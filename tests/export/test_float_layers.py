"""An int8 export whose activations don't fit into 256 steps: the layers that cost it stay float32."""

import json
import shutil

import pytest
from tiny_backbones import tiny_backbones

from imagetune.commands.export import export
from imagetune.model.manifest import load_model, save_model

OUTLIER = 3000


@pytest.fixture
def outlier_run(wide_run, tmp_path):
    """The run with one channel that is thousands of times larger than its neighbours, as outliers of real networks are.

    The next convolution takes as much less of it: the predictions are the same.
    """
    run = shutil.copytree(wide_run, tmp_path / "run")
    with tiny_backbones():
        loaded = load_model(run)
    backbone = loaded.model.get_layer("tiny")
    gamma, beta, *statistics = backbone.get_layer("block2_bn").get_weights()
    kernel, *bias = backbone.get_layer("block3_conv").get_weights()
    largest = (abs(gamma) + abs(beta)).argmax()
    gamma[largest] *= OUTLIER
    beta[largest] *= OUTLIER
    kernel[:, :, largest] /= OUTLIER
    backbone.get_layer("block2_bn").set_weights([gamma, beta, *statistics])
    backbone.get_layer("block3_conv").set_weights([kernel, *bias])
    save_model(loaded.model, run / "model", config=loaded.config, class_names=loaded.class_names, image=loaded.image)
    return run


@pytest.mark.slow
def test_a_refused_int8_export_is_tried_again_with_its_costliest_layers_in_float32(outlier_run, tmp_path):
    out, told = tmp_path / "out", []
    with tiny_backbones():
        document = export(
            str(outlier_run),
            format="litert",
            quantize="int8",
            out=out,
            max_drop=20,
            say=lambda _, text: told.append(text),
        )
    assert "refused; looking for the layers whose int8 costs most" in told
    assert document["verdict"] in ("equal", "non-inferior")
    assert any("block2" in name for name in document["float_layers"])
    assert json.loads((out / "manifest.json").read_text())["float_layers"] == document["float_layers"]
    assert f"Of its layers {len(document['float_layers'])} compute with float32" in (out / "README.md").read_text()
    assert document["int8_throughout"]["reasons"]
    assert "With int8 throughout it was refused (" in (out / "parity.html").read_text()
