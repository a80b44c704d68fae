"""Exports with a fault of the kinds that people report: each is found, whatever drop is tolerated."""

import shutil
import sys

import numpy as np
import pytest
from tiny_backbones import tiny_backbones

from imagetune.commands.export import export
from imagetune.errors import ModelFileError
from imagetune.evaluation.predictions import predict_records
from imagetune.export.folder import measure_export
from imagetune.export.parity import compare_outputs
from imagetune.recipe.loading import load_recipe
from imagetune.run_folder.plain_model import SCRIPT
from imagetune.runs.open import open_run, read_run_splits

# What is replaced in example.py by what.
FAULTS = {
    "channels swapped": ("    return framed", "    return framed[..., ::-1]"),
    "scaled to 1": ("predict(images=image[None])", "predict(images=image[None] // 255)"),
    "cropped instead of padded": ('labels["size"], labels["resize"]', 'labels["size"], "crop"'),
    "softmax twice": ("        return predict_each", "        return lambda images: soften(predict_each(images))"),
    "labels reordered": ("        return predict_each", "        return lambda images: reorder(predict_each(images))"),
}

CHANGES = """

def soften(outputs):
    shares = np.exp(outputs["probabilities"])
    return outputs | {"probabilities": shares / shares.sum(axis=1, keepdims=True)}


def reorder(outputs):
    return outputs | {"probabilities": outputs["probabilities"][:, [1, 2, 0]]}
"""


@pytest.fixture(scope="module")
def reference(wide_run):
    with tiny_backbones():
        folder, loaded = open_run(str(wide_run))
        splits = read_run_splits(folder, load_recipe(folder.recipe).recipe.data, loaded.class_names)
        return predict_records(
            loaded.model,
            splits.val,
            loaded.class_names,
            image=loaded.image,
            batch_size=16,
            workers=0,
            max_pixels=loaded.max_pixels,
        )


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(litert, reference, tmp_path, fault):
    shutil.copytree(litert, tmp_path / "export")
    example = tmp_path / "export/example.py"
    right, wrong = FAULTS[fault]
    text = example.read_text(encoding="utf-8")
    assert right in text
    example.write_text(text.replace(right, wrong) + CHANGES, encoding="utf-8")
    outputs = measure_export(tmp_path / "export", reference.paths).outputs
    parity = compare_outputs(reference, outputs, max_drop=100)
    assert parity.verdict == "inferior", parity


def test_calibration_on_noise_is_found(wide_run, reference, tmp_path):
    from imagetune.export.folder import write_export
    from imagetune.export.formats import Target
    from imagetune.model.manifest import read_manifest

    with tiny_backbones():
        folder, loaded = open_run(str(wide_run))
        # Images of one shade: activations of real ones lie far outside of what the scales were made for.
        shades = np.full((32, 32, 32, 3), 128, np.uint8)
        (tmp_path / "noise").mkdir()
        write_export(loaded, read_manifest(folder.model), Target("litert", "int8"), tmp_path / "noise", shades)
    outputs = measure_export(tmp_path / "noise", reference.paths).outputs
    assert compare_outputs(reference, outputs, max_drop=100).verdict == "inferior"


def test_a_refused_export_lies_apart_until_a_good_one_takes_its_place(wide_run, tmp_path, monkeypatch):
    swapped = tmp_path / "swapped.py"
    swapped.write_text(SCRIPT.read_text(encoding="utf-8").replace(*FAULTS["channels swapped"]), encoding="utf-8")
    out = tmp_path / "out"
    with tiny_backbones():
        with monkeypatch.context() as faulty, pytest.raises(ModelFileError) as caught:
            faulty.setattr(sys.modules["imagetune.export.folder"], "SCRIPT", swapped)
            export(str(wide_run), format="litert", out=out)
        assert caught.value.exit_code == 9
        assert "refused: its probabilities differ by" in str(caught.value)
        assert "parity.html, or choose another --quantize" in str(caught.value)
        assert [path.name for path in out.iterdir()] == ["refused"]
        page = (out / "refused/parity.html").read_text(encoding="utf-8")
        assert "Refused: worse than the Keras model" in page
        assert page.count("data:image/jpeg") > 10
        assert export(str(wide_run), format="litert", out=out)["verdict"] == "equal"
    assert not (out / "refused").exists()
    assert (out / "model.tflite").is_file()
