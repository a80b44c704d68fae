import csv
import json
import shutil

import mlflow
import numpy as np
import pytest

from imagetune.model.manifest import load_model


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def fit(recipe, workplace, imagetune):
    """Fit the small recipe with other settings."""

    def fit(name, *settings):
        options = [word for setting in settings for word in ("-o", setting)]
        outcome = imagetune("fit", recipe, "--run-dir", name, "-o", "tracking.enabled=false", *options)
        assert outcome.code == 0, outcome.err
        return workplace / name

    return fit


def probabilities(run, split="test"):
    with (run / f"predictions/{split}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row[name]) for name in ("blue", "green", "red")] for row in rows])


@pytest.mark.slow
def test_a_soup_of_a_run_with_itself_is_that_run_in_a_folder_like_any_other(fitted, workplace, imagetune):
    run, soup = fitted[1], workplace / "soup"
    outcome = imagetune("soup", run, run, "--run-dir", soup)
    assert outcome.code == 0, outcome.err
    np.testing.assert_allclose(probabilities(soup), probabilities(run), atol=1e-6)
    for one, other in zip(*(load_model(folder).model.get_weights() for folder in (run, soup)), strict=True):
        np.testing.assert_array_equal(one, other)

    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    made = {path.relative_to(soup).as_posix() for path in soup.rglob("*") if path.is_file()}
    missing = {name for name in names - made if not name.startswith(("checkpoints/", "plots/"))}
    assert missing == {"metrics.jsonl", "stages.jsonl"}
    assert made - names == {"soup.json"}
    assert (soup / "splits.csv").read_text() == (run / "splits.csv").read_text()
    assert json.loads((soup / "status.json").read_text())["state"] == "finished"
    document = json.loads((soup / "soup.json").read_text())
    assert [member["kept"] for member in document["members"]] == [True, True]
    assert document["batch_norm"] == "averaged"

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{workplace / 'mlflow.db'}")
    (recorded,) = client.search_runs([client.get_experiment_by_name("colours").experiment_id])
    assert recorded.info.status == "FINISHED"
    assert "soup.json" in {item.path for item in client.list_artifacts(recorded.info.run_id)}
    assert "Model soup" in (soup / "report.html").read_text()
    assert imagetune("evaluate", soup, "--with", run).code == 0
    assert imagetune("verify", soup).code == 0


@pytest.mark.slow
def test_members_are_tried_in_order_and_kept_while_validation_gets_no_worse(fit, fitted, workplace, imagetune):
    run = fitted[1]
    other = fit("other", "train.stages.0.learning_rate=3e-2", "train.stages.1.batch_norm=train", "model.head.dropout=0")
    outcome = imagetune("soup", other, run, run, "--run-dir", "soup")
    assert outcome.code == 0, outcome.err
    document = json.loads((workplace / "soup/soup.json").read_text())
    key = {"accuracy": 1, "loss": -1}
    ranks = [[sign * step["val"][name] for name, sign in key.items()] for step in document["steps"]]
    singles = [[sign * member["val"][name] for name, sign in key.items()] for member in document["members"]]
    assert ranks[0] == max(singles)
    standing = ranks[0]
    for step, found in zip(document["steps"][1:], ranks[1:], strict=True):
        assert step["kept"] == (found >= standing)
        standing = max(standing, found)
    kept = [member["run"] for member in document["members"] if member["kept"]]
    assert document["batch_norm"] == ("reestimated" if len(set(kept)) == 2 else "averaged")
    # What was chosen by is what the soup's own evaluation finds.
    evaluation = json.loads((workplace / "soup/evaluation.json").read_text())
    metric = evaluation["splits"]["val"]["metrics"]["log_loss"]["value"]
    assert metric == pytest.approx(-standing[1], abs=1e-5)


@pytest.mark.parametrize(
    ("values", "code", "message"),
    [
        ({"class_names": ["green", "blue", "red"]}, 9, "its class_names is ['green', 'blue', 'red']"),
        ({"config": {"backbone": "vgg16"}}, 9, "its config.backbone is 'vgg16', that of"),
        ({"image": {"height": 64, "width": 64}}, 9, "its image.height is 64"),
    ],
)
def test_other_architectures_are_refused(fitted, workplace, imagetune, values, code, message):
    other = shutil.copytree(fitted[1], workplace / "other")
    change_json(other / "model/manifest.json", **values)
    outcome = imagetune("soup", fitted[1], other, "--run-dir", "soup")
    assert (outcome.code, message in outcome.err) == (code, True), outcome.err
    assert not (workplace / "soup").exists()


def test_other_validation_images_are_refused(fitted, workplace, imagetune):
    other = shutil.copytree(fitted[1], workplace / "other")
    table = (other / "splits.csv").read_text()
    (other / "splits.csv").write_text(table.replace(",val,", ",train,", 1))
    outcome = imagetune("soup", fitted[1], other, "--run-dir", "soup")
    assert outcome.code == 3
    assert "its validation images are not those of" in outcome.err
    assert "1 difference;" in outcome.err
    (other / "splits.csv").write_text(table.replace(",val,", ",test,"))
    (shutil.copytree(other, workplace / "third") / "lock.json").unlink()
    outcome = imagetune("soup", other, "third")
    assert outcome.code == 3
    assert "no validation images" in outcome.err or "test images are not those" in outcome.err


def test_one_run_is_no_soup(fitted, imagetune):
    outcome = imagetune("soup", fitted[1])
    assert (outcome.code, "at least two runs" in outcome.err) == (2, True)
