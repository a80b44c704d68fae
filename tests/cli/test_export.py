"""`imagetune export`, as a user would call it."""

import json
import shutil
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from imagetune.tracking.state import read_state

ACCEPTED = ("litert", "none"), ("litert", "fp16"), ("onnx", "none"), ("saved_model", "none")


@pytest.fixture
def run(fitted, workplace):
    """A finished run of this test alone: an export notes in it how it was compared."""
    _, finished = fitted
    return shutil.copytree(finished, workplace / "run")


def call_example(folder, images):
    """Run the export's own example as its users would: without imagetune."""
    command = [sys.executable, "-I", folder / "example.py", *images]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("kind", "quantize"), [ACCEPTED[0], *(pytest.param(*each, marks=pytest.mark.slow) for each in ACCEPTED[1:])]
)
def test_an_export_predicts_as_the_run_does_without_imagetune(imagetune, run, workplace, images, kind, quantize):
    outcome = imagetune("export", run, "--format", kind, "--quantize", quantize, "--out", "out", "--json")
    assert outcome.code == 0, outcome.err
    document = outcome.json()
    assert (document["verdict"], document["label_agreement"]) == ("equal", 1.0)
    assert document["milliseconds"]["median"] > 0
    assert document["size_bytes"] > 1000
    assert json.loads((workplace / "out/parity.json").read_text()) == document
    assert "The same predictions" in (workplace / "out/parity.html").read_text()
    assert {path.name for path in (run / "exports").glob("*/parity.json")} == {"parity.json"}
    some = sorted(images.glob("*/*0.png"))[:3]
    told = call_example(workplace / "out", [*some, workplace / "nothing.png"])
    assert told.returncode == 1
    expected = [line.split("\t")[1] for line in imagetune("predict", run, *some).out.splitlines()]
    assert [line.split("\t")[1] for line in told.stdout.splitlines()[:3]] == expected
    assert "nothing.png\terror:" in told.stdout


def test_a_registered_model_is_exported_by_its_alias(imagetune, fitted, workplace, monkeypatch):
    folder, run = fitted
    store = f"sqlite:///{shutil.copyfile(folder / 'mlflow.db', workplace / 'mlflow.db')}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("XDG_CACHE_HOME", str(workplace / "cache"))
    client, state = MlflowClient(store), read_state(run)
    client.create_registered_model("colours")
    client.create_model_version("colours", f"models:/{state.sent['model id']}", state.run_id)
    client.set_registered_model_alias("colours", "champion", "1")
    outcome = imagetune("export", "models:/colours@champion", "--format", "onnx", "--out", "out", "--json")
    assert outcome.code == 0, outcome.err
    assert (outcome.json()["verdict"], outcome.json()["label_agreement"]) == ("equal", 1.0)
    assert call_example(workplace / "out", []).returncode == 0


def test_a_folder_that_holds_something_is_left_alone(imagetune, run, workplace):
    (workplace / "out").mkdir()
    (workplace / "out/mine.txt").write_text("mine")
    outcome = imagetune("export", run, "--format", "litert", "--out", "out")
    assert outcome.code == 2
    assert "--out out: is there already; choose another folder, or remove it" in outcome.err
    assert [path.name for path in (workplace / "out").iterdir()] == ["mine.txt"]


def test_a_saved_model_has_no_int8(imagetune, workplace):
    outcome = imagetune("export", "nowhere", "--format", "saved_model", "--quantize", "int8", "--out", "out")
    assert outcome.code == 2
    assert "--quantize: a SavedModel has no int8" in outcome.err
