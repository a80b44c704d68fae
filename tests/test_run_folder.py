import pytest

from imagetune.errors import TrackingError
from imagetune.files import read_json_lines
from imagetune.recipe.schema import Recipe
from imagetune.run_folder import RunFolder, RunRecorder, failure_noted, write_recipe
from imagetune.training.events import SilentListener, StageStarted


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
    with pytest.raises(TrackingError), failure_noted(folder):
        raise TrackingError("no answer", where="https://mlflow.example")
    status = folder.read_status()
    assert (status["state"], status["error"]) == ("failed", "https://mlflow.example: no answer")


def test_the_rate_of_every_block_is_stored(tmp_path):
    recorder = RunRecorder(RunFolder(tmp_path), SilentListener(), lambda record: None)
    rates = {"block7": 5e-4, "head": 1e-3}
    recorder.stage_started(StageStarted("top", 1, 2, 8, 9, 12, rates, trainable_parameters=10, parameters=90))
    (line,) = read_json_lines(tmp_path / "stages.jsonl")
    assert (line["name"], line["rates"]) == ("top", rates)
