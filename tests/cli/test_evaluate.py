import shutil


def test_other_labelled_pictures_can_be_tested(fitted, pictures, imagetune):
    outcome = imagetune("evaluate", fitted[1], "--data", pictures, "--json")
    assert outcome.code == 0
    assert outcome.json()["splits"]["test"]["pictures"] == 30


def test_the_figures_are_told_with_their_intervals(fitted, imagetune):
    outcome = imagetune("evaluate", fitted[1])
    assert "balanced accuracy" in outcome.out
    assert "[" in outcome.out


def test_a_run_can_be_used_by_its_mlflow_address(fitted, pictures, workplace, imagetune, monkeypatch):
    import json

    place, run = fitted
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place / 'mlflow.db'}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(workplace / "cache"))
    run_id = json.loads((run / "tracking.json").read_text())["run_id"]
    by_address = imagetune("predict", f"runs:/{run_id}", pictures / "red", "--json")
    by_folder = imagetune("predict", run, pictures / "red", "--json")
    assert by_address.code == 0, by_address.err
    assert by_address.out == by_folder.out


def test_the_report_can_be_written_again(fitted, workplace, imagetune):
    copy = workplace / "copy"
    shutil.copytree(fitted[1], copy)
    (copy / "report.html").unlink()
    assert imagetune("report", copy).code == 0
    assert "<html" in (copy / "report.html").read_text()
