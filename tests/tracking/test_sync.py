from __future__ import annotations

import base64
import io
import json
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from tracking_helpers import CLASSES, add_epoch, end_run, evaluation, set_state, start_run

from imagetune.errors import TrackingError
from imagetune.tracking.state import read_state
from imagetune.tracking.sync import Syncer, plan_state, sync_run


def run_of(store: str, run_dir: Path):
    return MlflowClient(store).get_run(read_state(run_dir).run_id)


def rows_of(store: str) -> dict[str, int]:
    """Return the number of rows of every table: nothing can be added unseen."""
    with sqlite3.connect(store.removeprefix("sqlite:///")) as database:
        names = [name for (name,) in database.execute("select name from sqlite_master where type='table'")]
        return {name: database.execute(f'select count(*) from "{name}"').fetchone()[0] for name in names}


def artifacts_of(store: str, run_dir: Path, folder: str | None = None) -> set[str]:
    found = set()
    for item in MlflowClient(store).list_artifacts(read_state(run_dir).run_id, folder):
        found |= artifacts_of(store, run_dir, item.path) if item.is_dir else {item.path}
    return found


def test_a_finished_run_is_in_mlflow_completely(store, run_dir):
    result = sync_run(run_dir)
    run = run_of(store, run_dir)
    assert result.message().startswith(f"MLflow run {run.info.run_id} in experiment clipart at {store}: sent ")
    assert run.info.run_name == run_dir.name
    assert run.info.status == "FINISHED"
    assert run.info.end_time == int((run_dir / "status.json").stat().st_mtime * 1000)
    assert run.data.params["train.stages.1.unfreeze"] == "last 3 blocks"
    assert run.data.tags["imagetune.run_folder"] == str(run_dir)
    assert "**0.875**" in run.data.tags["mlflow.note.content"]
    assert run.data.metrics["test_interval/accuracy_low"] == 0.775
    history = MlflowClient(store).get_metric_history(run.info.run_id, "val/f1")
    assert [(metric.step, round(metric.value, 3)) for metric in history] == [(1, 0.5), (2, 0.6), (3, 0.7)]
    assert {"learning_rate", "images_per_second", "train/loss"} <= set(run.data.metrics)
    assert run.inputs.dataset_inputs[0].dataset.name == "images"
    assert artifacts_of(store, run_dir) == {
        "recipe.yaml",
        "lock.json",
        "splits.csv",
        "audit.json",
        "metrics.jsonl",
        "evaluation.json",
        "report.html",
        "predictions/test.csv",
        "plots/learning_curves.png",
    }


def test_an_epoch_that_ends_during_a_copy_goes_with_the_next(store, run_dir):
    added = []

    def tick():
        if not added:
            added.append(4)
            add_epoch(run_dir, 4)

    syncer = Syncer(run_dir, store, plan_state(run_dir, uri=store), tick)
    syncer.sync()
    syncer.sync()
    history = MlflowClient(store).get_metric_history(syncer.state.run_id, "val/f1")
    assert [metric.step for metric in history] == [1, 2, 3, 4]


def test_artifacts_of_a_sqlite_store_lie_beside_it(store, run_dir, tmp_path):
    sync_run(run_dir)
    assert run_of(store, run_dir).info.artifact_uri.startswith(f"file://{tmp_path}/mlruns/clipart/")


def test_a_new_experiment_is_set_up_for_reviewers(store, run_dir):
    sync_run(run_dir)
    experiment = MlflowClient(store).get_experiment_by_name("clipart")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert f"#/experiments/{experiment.experiment_id}/runs?" in experiment.tags["mlflow.note.content"]
    assert (
        "metrics.`test/accuracy`" in json.loads(experiment.tags["mlflow.sharedViewState.imagetune"])["selectedColumns"]
    )


def test_a_second_sync_changes_nothing(store, run_with_model):
    sync_run(run_with_model)
    before, memory = rows_of(store), (run_with_model / "tracking.json").read_text()
    again = sync_run(run_with_model)
    assert again.sent == 0
    assert again.message().endswith("everything was there already")
    assert rows_of(store) == before
    assert (run_with_model / "tracking.json").read_text() == memory


@pytest.mark.parametrize(
    "kept", [("key", "uri", "experiment", "line_times"), ("key", "uri", "experiment", "line_times", "run_id")]
)
def test_a_memory_lost_after_sending_makes_nothing_twice(store, run_with_model, kept):
    """A process that dies between the sending and the note of it sends again."""
    sync_run(run_with_model)
    before = rows_of(store)
    memory = json.loads((run_with_model / "tracking.json").read_text())
    (run_with_model / "tracking.json").write_text(json.dumps({key: memory[key] for key in kept}))
    assert sync_run(run_with_model).run_id == memory["run_id"]
    assert rows_of(store) == before
    assert read_state(run_with_model).sent == memory["sent"]


def test_a_run_grows_with_its_folder(store, tmp_path):
    run_dir = start_run(tmp_path / "run")
    sync_run(run_dir)
    assert run_of(store, run_dir).info.status == "RUNNING"
    assert "metrics.jsonl" not in artifacts_of(store, run_dir)
    add_epoch(run_dir, 1)
    assert sync_run(run_dir).sent == 1
    add_epoch(run_dir, 2)
    end_run(run_dir)
    sync_run(run_dir)
    run = run_of(store, run_dir)
    assert run.info.status == "FINISHED"
    assert len(MlflowClient(store).get_metric_history(run.info.run_id, "train/loss")) == 2


def test_a_changed_file_is_sent_again_and_the_others_are_not(store, run_dir):
    sync_run(run_dir)
    (run_dir / "report.html").write_text("<h1>better</h1>")
    assert sync_run(run_dir).sent == 1
    folder = Path(run_of(store, run_dir).info.artifact_uri.removeprefix("file://"))
    assert (folder / "report.html").read_text() == "<h1>better</h1>"


def test_a_new_evaluation_replaces_the_metrics(store, run_dir):
    sync_run(run_dir)
    (run_dir / "evaluation.json").write_text(json.dumps(evaluation(0.6)))
    sync_run(run_dir)
    run = run_of(store, run_dir)
    assert run.data.metrics["test/accuracy"] == 0.6
    assert "**0.600**" in run.data.tags["mlflow.note.content"]


def test_a_clock_that_is_set_back_does_not_turn_epochs_around(store, run_dir, monkeypatch):
    sync_run(run_dir)
    before = time.time()
    monkeypatch.setattr(time, "time", lambda: before - 3600)
    add_epoch(run_dir, 4)
    sync_run(run_dir)
    history = MlflowClient(store).get_metric_history(read_state(run_dir).run_id, "val/f1")
    assert [metric.step for metric in sorted(history, key=lambda metric: metric.timestamp)] == [1, 2, 3, 4]
    assert read_state(run_dir).line_times == sorted(read_state(run_dir).line_times)


@pytest.mark.parametrize(("state", "status"), [("failed", "FAILED"), ("killed", "KILLED"), ("running", "RUNNING")])
def test_the_state_of_the_folder_is_the_state_in_mlflow(store, run_dir, state, status):
    set_state(run_dir, state, error="the loss is NaN" if state == "failed" else None)
    sync_run(run_dir)
    run = run_of(store, run_dir)
    assert run.info.status == status
    assert run.data.tags.get("imagetune.error") == ("the loss is NaN" if state == "failed" else None)


def test_a_run_whose_process_is_gone_was_killed(store, run_dir):
    set_state(run_dir, "running", pid=2**22 + 1)
    sync_run(run_dir)
    assert run_of(store, run_dir).info.status == "KILLED"


def encode_pictures(count: int) -> tuple[np.ndarray, list[bytes]]:
    """Return images of the model's size, and the same as PNG files."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    files = []
    for image in pixels:
        content = io.BytesIO()
        Image.fromarray(image).save(content, "PNG")
        files.append(content.getvalue())
    return pixels, files


def test_the_logged_model_takes_image_files_and_answers_by_name(store, run_with_model):
    import keras
    import mlflow
    import pandas as pd

    sync_run(run_with_model)
    mlflow.set_tracking_uri(store)
    state = read_state(run_with_model)
    pixels, files = encode_pictures(4)
    expected = keras.saving.load_model(run_with_model / "model.keras").predict(pixels, verbose=0)
    loaded = mlflow.pyfunc.load_model(f"models:/{state.sent['model id']}")
    # Bytes and base64, side by side.
    images = [*files[:2], *(base64.b64encode(file).decode() for file in files[2:])]
    answers = loaded.predict(pd.DataFrame({"image": images}))
    assert [answer["label"] for answer in answers] == [CLASSES[index] for index in expected.argmax(axis=1)]
    for answer, row in zip(answers, expected, strict=True):
        assert answer["probabilities"] == pytest.approx(dict(zip(CLASSES, row.tolist(), strict=True)), abs=1e-6)
    assert loaded.metadata.metadata["class_names"] == CLASSES
    # For training on, or for arrays of pixels.
    model = mlflow.keras.load_model(f"runs:/{state.run_id}/clipart-efficientnet_lite0")
    np.testing.assert_array_equal(model.predict(pixels, verbose=0), expected)


def test_a_server_answers_the_example_of_the_logged_model(store, run_with_model):
    import mlflow
    from mlflow.pyfunc import scoring_server

    sync_run(run_with_model)
    logged = MlflowClient(store).get_logged_model(read_state(run_with_model).sent["model id"])
    place = Path(logged.artifact_location.removeprefix("file://"))
    loaded = mlflow.pyfunc.load_model(str(place))
    # As `mlflow models serve` does with a request.
    example = (place / "serving_input_example.json").read_text()
    sent = scoring_server.invocations(example, "application/json", loaded, loaded.metadata.get_input_schema())
    (answer,) = json.loads(sent.response)["predictions"]
    assert answer["label"] in CLASSES
    assert sum(answer["probabilities"].values()) == pytest.approx(1)


def test_a_logged_model_has_a_name_and_the_metrics_of_the_test(store, run_with_model):
    sync_run(run_with_model)
    logged = MlflowClient(store).get_logged_model(read_state(run_with_model).sent["model id"])
    assert (logged.name, str(logged.status)) == ("clipart-efficientnet_lite0", "READY")
    assert {metric.key: metric.value for metric in logged.metrics}["test/accuracy"] == 0.875


def test_a_store_on_this_machine_keeps_no_second_copy_of_the_weights(store, run_with_model):
    sync_run(run_with_model)
    logged = MlflowClient(store).get_logged_model(read_state(run_with_model).sent["model id"])
    place = Path(logged.artifact_location.removeprefix("file://"))
    for ours, theirs in (("model.keras", "artifacts/model.keras"), ("model/model.weights.h5", "imagetune_model/*.h5")):
        (found,) = place.glob(theirs)
        assert found.samefile(run_with_model / ours)


def test_an_interrupted_upload_of_the_model_goes_on_with_the_same_model(store, run_with_model):
    sync_run(run_with_model)
    state = read_state(run_with_model)
    client = MlflowClient(store)
    client.finalize_logged_model(state.sent["model id"], "FAILED")
    memory = json.loads((run_with_model / "tracking.json").read_text())
    del memory["sent"]["model"]
    (run_with_model / "tracking.json").write_text(json.dumps(memory))
    sync_run(run_with_model)
    models = client.search_logged_models([state.experiment_id])
    assert [(model.model_id, str(model.status)) for model in models] == [(state.sent["model id"], "READY")]


def test_no_model_goes_when_the_recipe_says_so(store, run_with_model):
    recipe = run_with_model / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("required: false", "required: false, log_model: false"))
    sync_run(run_with_model)
    assert run_of(store, run_with_model).outputs.model_outputs == []


def test_a_deleted_database_gets_the_run_again(store, run_dir, empty_store, tmp_path):
    first = sync_run(run_dir).run_id
    (tmp_path / "fresh").mkdir()
    other = f"sqlite:///{tmp_path}/fresh/other.db"
    (tmp_path / "fresh" / "other.db").write_bytes(empty_store.read_bytes())
    again = sync_run(run_dir, uri=other)
    assert again.run_id != first
    assert len(MlflowClient(other).get_metric_history(again.run_id, "val/loss")) == 3
    assert read_state(run_dir).uri == other


def test_a_deleted_run_is_named(store, run_dir):
    run_id = sync_run(run_dir).run_id
    MlflowClient(store).delete_run(run_id)
    add_epoch(run_dir, 4)
    with pytest.raises(TrackingError, match=f"run {run_id} was deleted in MLflow; restore it"):
        sync_run(run_dir)


def test_a_deleted_experiment_is_named(store, run_dir):
    client = MlflowClient(store)
    client.delete_experiment(client.create_experiment("clipart"))
    with pytest.raises(TrackingError, match="experiment 'clipart' was deleted in MLflow; restore it in MLflow's UI"):
        sync_run(run_dir)


def test_user_tags_and_experiment_of_the_recipe_are_used(store, run_dir):
    recipe = run_dir / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("experiment: null", "experiment: trials, tags: {team: vision}"))
    sync_run(run_dir)
    run = run_of(store, run_dir)
    assert run.data.tags["team"] == "vision"
    assert MlflowClient(store).get_experiment(run.info.experiment_id).name == "trials"


def test_an_old_style_file_store_is_refused_in_words(run_dir):
    with pytest.raises(TrackingError) as caught:
        sync_run(run_dir, uri=f"file://{run_dir}/mlruns")
    assert caught.value.exit_code == 7


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(TrackingError, match="is not a run folder"):
        sync_run(tmp_path)


def test_a_corrupted_memory_is_named(store, run_dir):
    (run_dir / "tracking.json").write_text("{")
    with pytest.raises(TrackingError, match=r"tracking.json: is corrupted: .*; delete it"):
        sync_run(run_dir)
