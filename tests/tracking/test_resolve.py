from __future__ import annotations

import pytest
from mlflow import MlflowClient

from imagetune.errors import TrackingError
from imagetune.tracking.resolve import is_mlflow_uri, resolve_run
from imagetune.tracking.state import read_state
from imagetune.tracking.sync import sync_run

NOBODY = "0" * 32


@pytest.fixture
def registered(store, run_with_model):
    """The run's model as version 1 of `signs`, called `best`."""
    sync_run(run_with_model)
    client, state = MlflowClient(store), read_state(run_with_model)
    client.create_registered_model("signs")
    client.create_model_version("signs", f"models:/{state.sent['model id']}", state.run_id)
    client.set_registered_model_alias("signs", "best", "1")
    return state


@pytest.mark.parametrize(
    "address",
    [
        "runs:/{run}",
        "runs:/{run}/clipart-efficientnet_lite0",
        "models:/signs/1",
        "models:/signs@best",
        "models:/{model}",
    ],
)
def test_every_address_gives_a_run_folder(registered, run_with_model, address):
    folder = resolve_run(address.format(run=registered.run_id, model=registered.sent["model id"]))
    for name in ("model/manifest.json", "model/model.weights.h5", "model.keras", "recipe.yaml", "predictions/test.csv"):
        assert (folder / name).read_bytes() == (run_with_model / name).read_bytes()


def test_a_model_is_fetched_once_and_documents_are_fresh(registered, run_with_model, tmp_path):
    first = resolve_run(f"runs:/{registered.run_id}", cache=tmp_path / "fetched")
    (first / "model" / "manifest.json").write_text("ours")
    (run_with_model / "report.html").write_text("newer")
    sync_run(run_with_model)
    again = resolve_run("models:/signs@best", cache=tmp_path / "fetched")
    assert again == first
    assert (again / "model" / "manifest.json").read_text() == "ours"
    assert (again / "report.html").read_text() == "newer"


def test_a_server_gives_the_same_folder(server, run_with_model, tmp_path):
    run_id = sync_run(run_with_model, uri=server.uri, experiment="resolve").run_id
    folder = resolve_run(f"runs:/{run_id}", uri=server.uri, cache=tmp_path / "fetched")
    assert (folder / "model.keras").read_bytes() == (run_with_model / "model.keras").read_bytes()


def test_a_run_without_a_model_gives_its_documents(store, run_dir):
    folder = resolve_run(f"runs:/{sync_run(run_dir).run_id}")
    assert (folder / "evaluation.json").exists()
    assert not (folder / "model").exists()


@pytest.mark.parametrize(
    "address", ["runs:/" + "0" * 32, "models:/nothing/1", "models:/nothing@best", "models:/m-" + "0" * 32]
)
def test_what_is_not_there_is_named(store, address):
    with pytest.raises(TrackingError, match=f"{address} is not in MLflow"):
        resolve_run(address)


def test_an_unreadable_address_says_what_was_expected():
    with pytest.raises(TrackingError, match="models:/signs: is no address of a run or model; expected runs:/ID"):
        resolve_run("models:/signs")


def test_a_model_of_someone_else_is_refused(store, run_with_model):
    (run_with_model / "model" / "manifest.json").unlink()
    run_id = sync_run(run_with_model).run_id
    with pytest.raises(TrackingError, match="the model has no imagetune_model/manifest"):
        resolve_run(f"runs:/{run_id}")


def test_addresses_are_distinguished_from_folders():
    assert is_mlflow_uri("runs:/abc")
    assert is_mlflow_uri("models:/a@b")
    assert not is_mlflow_uri("runs/clipart-1")
