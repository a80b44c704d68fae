import shutil


def test_other_labelled_images_can_be_tested(fitted, images, imagetune):
    outcome = imagetune("evaluate", fitted[1], "--data", images, "--json")
    assert outcome.code == 0
    assert outcome.json()["splits"]["test"]["images"] == 30


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


def test_other_images_that_cannot_be_used_are_left_out_and_named(fitted, images, workplace, imagetune):
    shutil.copytree(images, workplace / "other")
    (workplace / "other" / "red" / "empty.png").touch()
    told = imagetune("evaluate", fitted[1], "--data", "other")
    assert told.code == 0, told.err
    assert "left out    1 image that can't be used:" in told.out
    document = imagetune("evaluate", fitted[1], "--data", "other", "--json").json()
    assert document["splits"]["test"]["images"] == 30
    assert document["unusable"] == {str(workplace / "other" / "red" / "empty.png"): "the file is empty"}
    for image in (workplace / "other").rglob("*.png"):
        image.write_bytes(b"")
    outcome = imagetune("evaluate", fitted[1], "--data", "other")
    assert outcome.code == 3
    assert "31 of 31 images can't be used" in outcome.err


def test_images_of_classes_that_the_model_does_not_know_are_named(fitted, images, workplace, imagetune):
    shutil.copytree(images, workplace / "other")
    shutil.copytree(images / "red", workplace / "other" / "wolf")
    document = imagetune("evaluate", fitted[1], "--data", "other", "--json").json()
    assert document["splits"]["test"]["images"] == 30
    assert len(document["unusable"]) == 10
    assert set(document["unusable"].values()) == {"the model doesn't know the class 'wolf'"}


def test_corrupted_files_of_a_run_are_named(fitted, workplace, imagetune):
    run = workplace / "run"
    shutil.copytree(fitted[1], run)
    (run / "metrics.jsonl").write_text("nonsense\n")
    (run / "splits.csv").write_text("nonsense\n")
    report, test = imagetune("report", run), imagetune("evaluate", run)
    assert (report.code, test.code) == (9, 3)
    assert "metrics.jsonl: has a line that is not JSON" in report.err
    assert "splits.csv: is not a table of splits, expected the columns path, label, split, group" in test.err
