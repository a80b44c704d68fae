"""Only exports that were shown to predict as their run are served, and their predictions are those of the run."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from served import serving

from imagetune.errors import ModelFileError
from imagetune.serving.certificate import describe_export, is_export, read_export
from imagetune.serving.drift.reference import build_drift_reference, read_exported_reference, write_exported_reference

OUT_OF_DISTRIBUTION = {
    "threshold": 2.0,
    "share": 0.05,
    "chosen_on": {"images": 100, "splits": ["val"]},
    "histogram": {"edges": [0.0, 1.0, 2.0, 3.0], "counts": {"val": [50, 45, 5]}},
}


@pytest.fixture
def export(tmp_path):
    """The folder of an export, with a stand-in for its model."""
    (tmp_path / "model.tflite").write_bytes(b"model")
    hashes = {"source": "ab" * 32, "model.tflite": hashlib.sha256(b"model").hexdigest()}
    about = {"format": "litert", "quantization": "int8", "sha256": hashes}
    (tmp_path / "manifest.json").write_text(json.dumps(about))
    (tmp_path / "parity.json").write_text(json.dumps({"verdict": "non-inferior", "label_agreement": 0.98}))
    return tmp_path


def test_an_export_that_was_accepted_is_described_with_its_certificate(export):
    described = describe_export(export)
    assert described["version"] == "abababababab-litert-int8"
    assert (described["export"]["verdict"], described["export"]["label_agreement"]) == ("non-inferior", 0.98)


@pytest.mark.parametrize("verdict", ["inferior", "unproven"])
def test_an_export_that_was_refused_is_not_served(export, verdict):
    (export / "parity.json").write_text(json.dumps({"verdict": verdict}))
    with pytest.raises(ModelFileError, match=f"its predictions are {verdict}"):
        read_export(export)


@pytest.mark.parametrize("content", [None, b"another model"])
def test_a_model_that_was_not_compared_is_not_served(export, content):
    (export / "model.tflite").unlink()
    if content is not None:
        (export / "model.tflite").write_bytes(content)
    with pytest.raises(ModelFileError, match="missing or was changed"):
        read_export(export)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"verdict": 3}'])
def test_a_certificate_that_cannot_be_read_is_no_certificate(export, text):
    (export / "parity.json").write_text(text)
    with pytest.raises(ModelFileError):
        read_export(export)


def test_a_graph_that_may_run_anything_is_not_served(export):
    about = json.loads((export / "manifest.json").read_text()) | {"format": "saved_model"}
    (export / "manifest.json").write_text(json.dumps(about))
    with pytest.raises(ModelFileError, match="their graph may run anything"):
        read_export(export)


def test_a_model_beside_the_certified_one_is_not_served(export):
    (export / "model.onnx").write_bytes(b"another")
    with pytest.raises(ModelFileError, match="another model, model.onnx, which was not compared"):
        read_export(export)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "saved_model/../../outside"])
def test_a_certificate_names_no_file_elsewhere(export, name):
    about = json.loads((export / "manifest.json").read_text())
    about["sha256"][name] = "ab" * 32
    (export / "manifest.json").write_text(json.dumps(about))
    with pytest.raises(ModelFileError, match="leads out of the folder"):
        read_export(export)


def test_a_run_is_no_export(untrained_run):
    assert not is_export(untrained_run)


@pytest.mark.slow
def test_an_export_is_served_with_the_predictions_of_its_run(untrained_run, files, served, tmp_path):
    from imagetune.export.folder import write_export
    from imagetune.export.formats import Target
    from imagetune.model.manifest import load_model, read_manifest

    folder = tmp_path / "export"
    folder.mkdir()
    manifest = read_manifest(untrained_run / "model")
    write_export(load_model(untrained_run), manifest, Target("litert"), folder, np.zeros((0, 32, 32, 3), np.uint8))
    (folder / "parity.json").write_text(json.dumps({"verdict": "equal"}))
    expected = served.send_files(files).json()["predictions"]
    with serving(folder, tmp_path) as server:
        found = server.send_files(files).json()["predictions"]
        assert server.send("/v1/model").json()["export"]["verdict"] == "equal"
    for one, other in zip(found, expected, strict=True):
        assert (one["label"], one["prediction_set"]) == (other["label"], other["prediction_set"])
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)
        assert one["out_of_distribution"] == other["out_of_distribution"]
        assert one["out_of_distribution_score"] == pytest.approx(other["out_of_distribution_score"], abs=1e-3)


def test_an_export_is_watched_for_drift_as_its_run_is(tmp_path):
    reference = build_drift_reference(None, OUT_OF_DISTRIBUTION)
    write_exported_reference(reference, tmp_path)
    assert read_exported_reference(tmp_path) == reference


@pytest.mark.parametrize("value", [-1, "many", None, 1e999])
def test_an_export_whose_expected_shares_cannot_be_counts_is_refused(tmp_path, value):
    write_exported_reference(build_drift_reference(None, OUT_OF_DISTRIBUTION), tmp_path)
    content = json.loads((tmp_path / "drift.json").read_text())
    content["shares"][0]["watched"]["hits"] = value
    (tmp_path / "drift.json").write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match=r"drift\.json"):
        read_exported_reference(tmp_path)


def test_the_process_that_serves_an_export_needs_no_keras():
    code = "import sys; import imagetune.serving.predictor; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
