from __future__ import annotations

import subprocess
import sys

import pytest

from imagetune.errors import RecipeError
from imagetune.model.describe import list_layer_rows, list_model_rows


def test_the_list_has_every_backbone_with_its_metrics(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    rows = {row.name: row for row in list_model_rows()}
    assert len(rows) == 49
    assert rows["efficientnet_lite0"].weights == "packaged"
    vgg = rows["vgg16"]
    assert (vgg.parameters, vgg.megabytes, vgg.top1, vgg.image_size, vgg.weights) == (
        14_714_688,
        58.9,
        71.3,
        224,
        "absent",
    )


def test_the_list_needs_no_keras():
    code = f"import sys, imagetune.model.describe as d; d.{list_model_rows.__name__}(); print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_layers_show_blocks_and_what_would_train():
    rows = list_layer_rows("vgg16", "last 2 blocks")
    assert [row.block for row in rows] == ["block1", "block2", "block3", "block4", "block5"]
    assert rows[4].layers == rows[4].trainable_layers == ("block5_conv1", "block5_conv2", "block5_conv3")
    assert rows[4].trainable_parameters == rows[4].parameters == 7_079_424
    assert (rows[0].trainable_layers, rows[0].trainable_parameters) == ((), 0)


def test_layers_of_nothing_are_an_error():
    with pytest.raises(RecipeError, match="vgg16 has 5"):
        list_layer_rows("vgg16", "last 6 blocks")
