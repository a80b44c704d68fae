"""`imagetune export`, as a user would call it."""

import json
import shutil
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from imagetune.run_folder.receipt import check_files
from imagetune.tracking.state import read_state


@pytest.fixture
def run(fitted, workplace):
    """A finished run of this test alone: an export notes in it how it was compared."""
    _, finished = fitted
    return shutil.copytree(finished, workplace / "run")


@pytest.fixture
def champion(fitted, workplace, monkeypatch):
    """The address of the run's model, which is registered in a store of this test alone."""
    folder, finished = fitted
    store = f"sqlite:///{shutil.copyfile(folder / 'mlflow.db', workplace / 'mlflow.db')}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("XDG_CACHE_HOME", str(workplace / "cache"))
    client, state = MlflowClient(store), read_state(finished)
    client.create_registered_model("colours")
    client.create_model_version("colours", f"models:/{state.sent['model id']}", state.run_id)
    client.set_registered_model_alias("colours", "champion", "1")
    return "models:/colours@champion"


def call_example(folder, images):
    """Run the export's own example as its users would: without imagetune."""
    command = [sys.executable, "-I", folder / "example.py", *images]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_export_of_a_registered_model_predicts_as_it_does_without_imagetune(imagetune, champion, workplace, images):
    outcome = imagetune("export", champion, "--format", "litert", "--out", "out", "--json")
    assert outcome.code == 0, outcome.err
    document = outcome.json()
    assert (document["verdict"], document["label_agreement"]) == ("equal", 1.0)
    assert document["milliseconds"]["median"] > 0
    assert document["size_bytes"] > 1000
    assert json.loads((workplace / "out/parity.json").read_text()) == document
    assert "The same predictions" in (workplace / "out/parity.html").read_text()
    some = sorted(images.glob("*/*0.png"))[:3]
    told = call_example(workplace / "out", [*some, workplace / "nothing.png"])
    assert told.returncode == 1
    expected = [line.split("\t")[1] for line in imagetune("predict", champion, *some).out.splitlines()]
    assert [line.split("\t")[1] for line in told.stdout.splitlines()[:3]] == expected
    assert "nothing.png\terror:" in told.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "quantize", "name"),
    [("litert", "fp16", "litert-fp16"), ("onnx", "none", "onnx"), ("saved_model", "none", "saved_model")],
)
def test_each_format_is_accepted_noted_in_the_run_and_sent_to_mlflow(imagetune, run, workplace, kind, quantize, name):
    outcome = imagetune("export", run, "--format", kind, "--quantize", quantize, "--out", "out", "--json")
    assert outcome.code == 0, outcome.err
    assert (outcome.json()["verdict"], outcome.json()["label_agreement"]) == ("equal", 1.0)
    told = call_example(workplace / "out", [])
    assert "as recorded in manifest.json" in told.stdout, told.stderr
    noted = {f"exports/{name}/parity.html", f"exports/{name}/parity.json"}
    assert {path.relative_to(run).as_posix() for path in run.glob("exports/*/*")} == noted
    check = check_files(run)
    assert (check.differences, check.unrecorded) == ((), ())
    state = read_state(run)
    assert {file.path for file in MlflowClient(state.uri).list_artifacts(state.run_id, f"exports/{name}")} == noted


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
