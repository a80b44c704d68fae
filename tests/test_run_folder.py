import pytest

from imagetune.errors import TrackingError
from imagetune.recipe.schema import Recipe
from imagetune.run_folder import RunFolder, failure_noted, write_recipe


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
