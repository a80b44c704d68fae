import subprocess
import sys

import pytest

from imagetune.core.files import read_json_lines, write_json
from imagetune.errors import CheckpointError, ModelFileError, TrackingError
from imagetune.recipe.schema import Recipe
from imagetune.run_folder.folder import RunFolder, check_run_place, open_run_folder, write_recipe
from imagetune.run_folder.recorder import RunRecorder, record_failure
from imagetune.training.setup.events import SilentListener, StageStarted


def test_the_password_of_a_tracking_address_is_not_written(tmp_path):
    tracking = {"uri": "https://ann:hunter2@mlflow.example/"}
    recipe = Recipe.model_validate({"data": {"source": "x"}, "tracking": tracking})
    write_recipe(recipe, tmp_path / "best.yaml")
    text = (tmp_path / "best.yaml").read_text()
    assert "hunter2" not in text
    assert "mlflow.example" in text
    assert recipe.tracking.uri == tracking["uri"]


def test_an_early_failure_is_in_the_status(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_status("running")
    with pytest.raises(TrackingError), record_failure(folder):
        raise TrackingError("no prediction", where="https://mlflow.example")
    status = folder.read_status()
    assert (status["state"], status["error"]) == ("failed", "https://mlflow.example: no prediction")


def test_the_rate_of_every_block_is_stored(tmp_path):
    recorder = RunRecorder(RunFolder(tmp_path), SilentListener(), lambda record: None)
    rates = {"block7": 5e-4, "head": 1e-3}
    recorder.stage_started(StageStarted("top", 1, 2, 8, 9, 12, rates, trainable_parameters=10, parameters=90))
    (line,) = read_json_lines(tmp_path / "stages.jsonl")
    assert (line["name"], line["learning_rates"]) == ("top", rates)


def test_a_run_whose_process_was_killed_is_not_called_running(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write_json(tmp_path / "status.json", {"state": "running", "pid": dead.pid})
    with pytest.raises(CheckpointError, match="a run whose process has died"):
        check_run_place(tmp_path)
    with pytest.raises(ModelFileError, match="no trained model .its process has died"):
        open_run_folder(tmp_path)
    assert open_run_folder(tmp_path, trained=False).path == tmp_path


def test_another_folder_is_no_run_folder(tmp_path):
    for trained in (True, False):
        with pytest.raises(ModelFileError, match="it is no run folder"):
            open_run_folder(tmp_path, trained=trained)


@pytest.mark.parametrize(
    "name",
    ["report.html", "plots", "predictions/test.csv", "checkpoints/step-4/state.json", "folds/fold-1/plots/a.png"],
)
def test_a_link_out_of_the_run_is_refused_as_writing_would_follow_it(tmp_path, name):
    run = RunFolder(tmp_path / "run")
    (run.path / "predictions").mkdir(parents=True)
    run.write_status("finished")
    (run.path / "model_card.md").symlink_to(run.path / "status.json")
    open_run_folder(run.path, trained=False)
    (run.path / name).parent.mkdir(parents=True, exist_ok=True)
    (run.path / name).symlink_to(tmp_path)
    with pytest.raises(ModelFileError, match="is a link out of the run folder") as caught:
        open_run_folder(run.path, trained=False)
    assert caught.value.where == str(run.path / name)


def test_a_status_that_is_not_ours_is_none(tmp_path):
    run = RunFolder(tmp_path)
    for content in ("[]", '{"state": 3}', '{"state": "running", "pid": 1e400}', "{" * 9):
        run.status.write_text(content)
        assert run.read_status() == {}
