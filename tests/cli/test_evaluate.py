import shutil

import cv2
import pytest


def test_other_labelled_images_can_be_tested(fitted, new_images, imagetune):
    outcome = imagetune("evaluate", fitted[1], "--data", new_images, "--json")
    assert outcome.code == 0, outcome.err
    document = outcome.json()
    assert document["splits"]["test"]["images"] == 15
    assert document["seen"] == {"images": 0, "near_duplicates": 0, "paths": [], "notes": []}


def test_intervals_of_near_duplicates_count_their_groups(fitted, new_images, workplace, imagetune):
    many = shutil.copytree(new_images, workplace / "many")
    for path in sorted((many / "red").iterdir()):
        for side in (30, 40, 50):
            small = cv2.resize(cv2.imread(str(path)), (side, side), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(path.with_name(f"{path.stem}-{side}.png")), small)
    alone = imagetune("evaluate", fitted[1], "--data", new_images, "--json").json()["splits"]["test"]
    test = imagetune("evaluate", fitted[1], "--data", many, "--json").json()["splits"]["test"]
    assert (test["images"], test["groups"]) == (30, 15)
    assert "near-duplicate groups; intervals count groups, not images" in test["notes"][-1]
    widths = [one["metrics"]["accuracy"]["high"] - one["metrics"]["accuracy"]["low"] for one in (alone, test)]
    assert widths[1] > 0.9 * widths[0]
    assert "30 images in 15 groups" in imagetune("evaluate", fitted[1], "--data", many).out


class TestImagesOfTheTraining:
    """Images that the run was trained or selected with, as copies, and some only in another size."""

    @pytest.fixture
    def seen(self, images, workplace):
        copied = shutil.copytree(images, workplace / "copied")
        for path in (copied / "red").glob("*.png"):
            cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (48, 48), interpolation=cv2.INTER_CUBIC))
        return copied

    @pytest.fixture
    def learned(self, fitted):
        table = (fitted[1] / "splits.csv").read_text()
        return table.count(",train,") + table.count(",val,")

    def test_are_refused_with_their_number(self, fitted, seen, learned, imagetune):
        outcome = imagetune("evaluate", fitted[1], "--data", seen)
        assert outcome.code == 3
        assert f"{learned} of 30 test images are among its training or validation images" in outcome.err
        assert "of them as near-duplicates" in outcome.err

    def test_are_tested_where_that_is_asked_for_and_counted(self, fitted, seen, learned, imagetune):
        found = imagetune("evaluate", fitted[1], "--data", seen, "--allow-seen", "--json").json()["seen"]
        assert found["images"] == len(found["paths"]) == learned
        assert 0 < found["near_duplicates"] == sum("/red/" in path for path in found["paths"])
        told = imagetune("evaluate", fitted[1], "--data", seen, "--allow-seen")
        assert told.code == 0, told.err
        assert f"seen        {learned} images" in told.out

    def test_are_left_out_where_that_is_asked_for_and_the_others_meet_requirements(
        self, fitted, seen, learned, imagetune
    ):
        words = ("evaluate", fitted[1], "--data", seen, "--skip-seen", "--require", "accuracy:value=0.0")
        document = imagetune(*words, "--json").json()
        assert document["splits"]["test"]["images"] == 30 - learned
        assert (document["seen"]["images"], document["seen"]["left_out"]["images"]) == (0, learned)
        outcome = imagetune(*words)
        assert outcome.code == 0, outcome.err
        assert f"left out    {learned} images" in outcome.out

    def test_meet_no_requirement(self, fitted, seen, learned, imagetune):
        words = ("evaluate", fitted[1], "--data", seen, "--allow-seen", "--require", "accuracy:value=0.0")
        outcome = imagetune(*words)
        assert outcome.code == 10
        assert f"accuracy meets no requirement: {learned} of 30 test images" in outcome.err
        assert "required" not in outcome.out

    def test_are_unknown_of_a_run_without_its_splits(self, fitted, new_images, workplace, imagetune):
        run = shutil.copytree(fitted[1], workplace / "run")
        (run / "splits.csv").unlink()
        outcome = imagetune("evaluate", run, "--data", new_images)
        assert (outcome.code, "has no splits.csv" in outcome.err) == (3, True)
        words = ("evaluate", run, "--data", new_images, "--allow-seen", "--json")
        assert imagetune(*words).json()["seen"]["images"] is None
        assert imagetune(*words, "--require", "accuracy:value=0.0").code == 10


def test_the_metrics_are_shown_with_their_intervals(fitted, imagetune):
    outcome = imagetune("evaluate", fitted[1])
    assert "balanced accuracy" in outcome.out
    assert "[" in outcome.out


def test_a_run_can_be_used_by_its_mlflow_address(fitted, images, workplace, imagetune, monkeypatch):
    import json

    place, run = fitted
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place / 'mlflow.db'}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(workplace / "cache"))
    run_id = json.loads((run / "tracking.json").read_text())["run_id"]
    by_address = imagetune("predict", f"runs:/{run_id}", images / "red", "--json")
    by_folder = imagetune("predict", run, images / "red", "--json")
    assert by_address.code == 0, by_address.err
    assert by_address.out == by_folder.out


def test_the_report_can_be_written_again(fitted, workplace, imagetune):
    copy = workplace / "copy"
    shutil.copytree(fitted[1], copy)
    (copy / "report.html").unlink()
    assert imagetune("report", copy).code == 0
    assert "<html" in (copy / "report.html").read_text()


def test_other_images_that_cannot_be_used_are_left_out_and_named(fitted, new_images, workplace, imagetune):
    shutil.copytree(new_images, workplace / "other")
    (workplace / "other" / "red" / "empty.png").touch()
    told = imagetune("evaluate", fitted[1], "--data", "other")
    assert told.code == 0, told.err
    assert "left out    1 image that can't be used:" in told.out
    document = imagetune("evaluate", fitted[1], "--data", "other", "--json").json()
    assert document["splits"]["test"]["images"] == 15
    assert document["unusable"] == {str(workplace / "other" / "red" / "empty.png"): "the file is empty"}
    for image in (workplace / "other").rglob("*.png"):
        image.write_bytes(b"")
    outcome = imagetune("evaluate", fitted[1], "--data", "other")
    assert outcome.code == 3
    assert "16 of 16 images can't be used" in outcome.err


def test_images_of_classes_that_the_model_does_not_know_are_named(fitted, new_images, workplace, imagetune):
    shutil.copytree(new_images, workplace / "other")
    shutil.copytree(new_images / "red", workplace / "other" / "wolf")
    document = imagetune("evaluate", fitted[1], "--data", "other", "--json").json()
    assert document["splits"]["test"]["images"] == 15
    assert len(document["unusable"]) == 5
    assert set(document["unusable"].values()) == {"the model doesn't know the class 'wolf'"}


def test_corrupted_files_of_a_run_are_named(fitted, workplace, imagetune):
    run = workplace / "run"
    shutil.copytree(fitted[1], run)
    (run / "metrics.jsonl").write_text("nonsense\n")
    (run / "splits.csv").write_text("nonsense\n")
    report, test = imagetune("report", run), imagetune("evaluate", run)
    assert (report.code, test.code) == (9, 3)
    assert "metrics.jsonl: can't be read: line 1" in report.err
    assert "splits.csv: is not a table of splits: expected the columns path, label, split, group" in test.err
