"""`imagetune verify`: what differs from a run's records is named, and the exit code says of what kind it is."""

import json
import random
import shutil

import pytest

import imagetune as api
from imagetune.core.files import write_json, write_text
from imagetune.run_folder.receipt import check_files, renew_receipt


@pytest.fixture
def run(workplace, fitted):
    """A copy of a finished run that the test may change."""
    return shutil.copytree(fitted[1], workplace / "run")


def test_a_healthy_run_verifies(imagetune, run):
    told = imagetune("verify", run, "--json")
    assert told.code == 0, told.out + told.err
    found = told.json()
    assert found["holds"]
    assert not (found["differences"] or found["changed_inputs"] or found["unchecked"])
    splits = [line.split(",")[2] for line in (run / "splits.csv").read_text().splitlines()[1:]]
    assert found["verified"]["images"] == found["verified"]["predictions"] == len(splits)
    assert found["verified"]["metrics"] > 100
    assert "holds" in imagetune("verify", run).out


def test_the_example_of_the_help_stands_there_and_python_has_it_too(imagetune, run):
    assert "Example: imagetune verify runs/" in imagetune("verify", "--help").out
    assert api.verify(run).holds
    assert api.verify(api.load(run)).folder == run


def corrupt(path, chance):
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= chance.randrange(1, 256)
    path.write_bytes(content)


def list_corruptible(run):
    return sorted(path for path in run.rglob("*") if path.is_file() and path.stat().st_size)


@pytest.mark.parametrize("name", ["recipe.yaml", "evaluation.json", "model/model.weights.h5", "status.json"])
def test_a_corrupted_file_is_named_whatever_else_it_breaks(imagetune, run, name):
    corrupt(run / name, random.Random(1))
    told = imagetune("verify", run, "--json")
    assert told.code == 9, told.err
    assert name in [one["where"] for one in told.json()["differences"]]
    assert name in told.err


@pytest.mark.slow
def test_a_hundred_corruptions_of_one_byte_are_all_named(imagetune, run):
    chance = random.Random(11)
    files = list_corruptible(run)
    chosen = [*files, *chance.choices(files, k=max(0, 100 - len(files)))][:100]
    for path in chosen:
        before = path.read_bytes()
        corrupt(path, chance)
        told = imagetune("verify", run, "--json")
        assert told.code == 9, (path, told.err)
        assert path.relative_to(run).as_posix() in [one["where"] for one in told.json()["differences"]], path
        path.write_bytes(before)
    assert imagetune("verify", run).code == 0


def test_a_metric_that_does_not_follow_from_the_predictions_is_named(imagetune, run):
    document = json.loads((run / "evaluation.json").read_text())
    document["splits"]["test"]["metrics"]["log_loss"]["high"] += 0.01
    # By whoever has the receipt, too: only computing it again shows this.
    with renew_receipt(run):
        write_json(run / "evaluation.json", document)
    told = imagetune("verify", run, "--json")
    assert told.code == 9
    (named,) = told.json()["differences"]
    assert named["where"] == "evaluation.json: splits.test.metrics.log_loss.high"


def test_a_prediction_that_the_model_does_not_make_is_named(imagetune, run):
    path = run / "predictions" / "train.csv"
    lines = path.read_text().splitlines()
    image, label, predicted, *outputs = lines[1].split(",")
    lines[1] = ",".join([image, label, predicted, *outputs[1:], outputs[0]])
    with renew_receipt(run):
        write_text(path, "\n".join(lines) + "\n")
    told = imagetune("verify", run, "--json")
    assert told.code == 9
    assert f"predictions/train.csv: {image}" in [one["where"] for one in told.json()["differences"]]


@pytest.fixture
def moved(run, workplace, images):
    """The same run, whose images are not where they were but in the folder ``moved``."""
    shutil.copytree(images, workplace / "moved")
    for name in ("recipe.yaml", "lock.json"):
        with renew_receipt(run):
            write_text(run / name, (run / name).read_text().replace(str(images), str(workplace / "gone")))
    return run


def test_images_that_are_gone_are_said_and_the_rest_is_verified(imagetune, moved):
    told = imagetune("verify", moved, "--json")
    assert told.code == 3
    found = told.json()
    assert not (found["differences"] or found["changed_inputs"] or found["holds"])
    assert "images not found" in found["unchecked"][0]
    assert "--data" in found["unchecked"][0]
    assert found["verified"]["metrics"] > 100
    assert found["verified"]["files"] > 20
    assert "everything else holds" in told.err


def test_images_that_have_moved_are_found_where_the_user_says(imagetune, moved):
    assert imagetune("verify", moved, "--data", "moved").code == 0


def test_an_image_that_changed_is_named_and_not_blamed_on_the_run(imagetune, moved, workplace):
    changed = next((workplace / "moved").rglob("*.png"))
    corrupt(changed, random.Random(2))
    told = imagetune("verify", moved, "--data", "moved", "--json")
    assert told.code == 3
    assert [one["where"] for one in told.json()["changed_inputs"]] == [str(changed)]
    assert not told.json()["differences"]


def test_a_run_that_was_pruned_and_reported_again_still_verifies(imagetune, run):
    (run / "tracking.json").unlink()
    assert imagetune("runs", "prune", run, "--yes").code == 0
    assert not (run / "checkpoints").exists()
    assert imagetune("report", run).code == 0
    assert imagetune("verify", run).code == 0
    assert check_files(run).unrecorded == ()


def test_a_run_without_its_model_is_verified_as_far_as_that_goes(imagetune, run):
    assert imagetune("runs", "prune", run, "--models", "--yes").code == 0
    told = imagetune("verify", run, "--json")
    assert told.code == 3
    assert "model was removed" in told.json()["unchecked"][0]
    assert told.json()["verified"]["metrics"] > 100


def test_a_file_of_the_users_is_only_mentioned(imagetune, run):
    (run / "note.txt").write_text("mine")
    told = imagetune("verify", run)
    assert told.code == 0
    assert "note.txt" in told.out


def test_a_copy_from_mlflow_is_verified(imagetune, fitted, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{fitted[0] / 'mlflow.db'}")
    monkeypatch.chdir(fitted[0])
    run_id = json.loads((fitted[1] / "tracking.json").read_text())["run_id"]
    told = imagetune("verify", f"runs:/{run_id}", "--json")
    assert told.code == 0, told.out + told.err
    assert any("not in MLflow" in note for note in told.json()["notes"])


def test_a_run_that_did_not_finish_has_nothing_to_verify(imagetune, run):
    (run / "receipt.json").unlink()
    write_json(run / "status.json", {"state": "killed"})
    told = imagetune("verify", run)
    assert told.code == 9
    assert "its state is killed" in told.err
    assert imagetune("verify", run.parent).code == 9
