import csv
import json

import keras
import mlflow
import numpy as np
import pytest

from imagetune.core.files import read_json_lines
from imagetune.data.loading.decode import load_image
from imagetune.recipe.loading import load_recipe


def test_a_run_folder_holds_everything(fitted):
    _, run = fitted
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert names >= {
        "recipe.yaml",
        "lock.json",
        "splits.csv",
        "audit.json",
        "status.json",
        "metrics.jsonl",
        "model.keras",
        "model/manifest.json",
        "predictions/train.csv",
        "predictions/val.csv",
        "predictions/test.csv",
        "evaluation.json",
        "report.html",
        "tracking.json",
    }
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    assert not [name for name in names if ".tmp" in name]


@pytest.mark.slow
def test_a_process_of_its_own_fits_a_real_backbone_and_makes_the_store(workplace, real_recipe, start):
    (workplace / "mlflow.db").unlink()
    with start("fit", real_recipe, "--run-dir", "run", "-o", "train.stages.0.epochs=2") as process:
        _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads((workplace / "run/status.json").read_text())["state"] == "finished"
    assert "epoch   3" in err
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{workplace / 'mlflow.db'}")
    (recorded,) = client.search_runs([client.get_experiment_by_name("colours").experiment_id])
    assert recorded.info.status == "FINISHED"


def test_metrics_have_a_line_an_epoch_with_every_metric(fitted):
    lines = read_json_lines(fitted[1] / "metrics.jsonl")
    assert [(line["stage"], line["epoch"]) for line in lines] == [("head", 1), ("top", 2)]
    for line in lines:
        assert set(line["train"]) == set(line["val"]) == {"loss", "accuracy", "precision", "recall", "f1"}
        assert line["learning_rate"] > 0
        assert line["images_per_second"] > 0


def test_mlflow_has_the_run(fitted):
    place, run = fitted
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{place / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("colours")
    (recorded,) = client.search_runs([experiment.experiment_id])
    assert recorded.info.status == "FINISHED"
    assert recorded.data.params["train.batch_size"] == "16"
    last = read_json_lines(run / "metrics.jsonl")[-1]
    assert recorded.data.metrics["val/f1"] == pytest.approx(last["val"]["f1"])
    evaluation = json.loads((run / "evaluation.json").read_text())
    metrics = evaluation["splits"]["test"]["metrics"]
    assert recorded.data.metrics["test/accuracy"] == pytest.approx(metrics["accuracy"]["value"])
    artifacts = {item.path for item in client.list_artifacts(recorded.info.run_id)}
    assert {"recipe.yaml", "lock.json", "splits.csv", "report.html"} <= artifacts


def test_evaluate_predict_and_plain_keras_agree(fitted, imagetune):
    _, run = fitted
    with (run / "predictions" / "test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    source = load_recipe(run / "recipe.yaml").recipe.data
    paths = [f"{source.source}/{row['path']}" for row in rows]
    names = [name for name in rows[0] if name not in ("path", "label", "predicted")]
    from_fit = np.array([[float(row[name]) for name in names] for row in rows])

    outcome = imagetune("predict", run, *paths, "--json")
    lines = {line["path"]: line for line in map(json.loads, outcome.out.splitlines())}
    from_predict = np.array([[lines[path]["probabilities"][name] for name in names] for path in paths])
    np.testing.assert_allclose(from_predict, from_fit, atol=1e-5)

    plain = keras.models.load_model(run / "model.keras")
    images = np.stack([load_image(path, source.image, max_pixels=source.max_pixels) for path in paths])
    np.testing.assert_allclose(plain.predict(images, verbose=0), from_fit, atol=1e-5)

    again = imagetune("evaluate", run, "--json").json()["splits"]["test"]["metrics"]
    first = json.loads((run / "evaluation.json").read_text())["splits"]["test"]["metrics"]
    for name, metric in first.items():
        assert again[name]["value"] == pytest.approx(metric["value"], abs=1e-5), name


def test_the_resolved_recipe_repeats_the_run_exactly(fitted, imagetune, workplace):
    _, run = fitted
    assert imagetune("fit", run / "recipe.yaml", "--run-dir", "again").code == 0
    timing = {"images_per_second": 0}
    first, second = (
        [line | timing for line in read_json_lines(folder / "metrics.jsonl")] for folder in (run, workplace / "again")
    )
    assert first == second
    assert (run / "predictions/test.csv").read_text() == (workplace / "again/predictions/test.csv").read_text()


def test_a_dry_run_leaves_nothing_behind(recipe, workplace, imagetune):
    before = sorted(workplace.rglob("*"))
    outcome = imagetune("fit", recipe, "--dry-run")
    assert outcome.code == 0
    assert "stage 2/2   top: unfreeze last 1 blocks" in outcome.out
    assert "features of pooling" in outcome.out  # the head's stage computes them once, which its estimate knows
    assert " of it for features" in outcome.out
    assert "MB for the model, at most" in outcome.out
    assert "nothing was written" in outcome.out
    assert sorted(workplace.rglob("*")) == before


def test_a_mistake_in_the_recipe_costs_nothing(recipe, workplace, imagetune):
    before = sorted(workplace.rglob("*"))
    outcome = imagetune("fit", recipe, "-o", "train.batch_sise=4", "-o", "model.backbone=resnet51")
    assert outcome.code == 2
    assert "did you mean 'batch_size'" in outcome.err
    assert sorted(workplace.rglob("*")) == before


def test_names_that_only_the_real_things_know_are_checked_too(recipe, imagetune):
    outcome = imagetune(
        "fit", recipe, "-o", "model.backbone=resnet51", "-o", "data.augmentation=[{HorizontalFlop: {}}]"
    )
    assert outcome.code == 2
    assert "model.backbone" in outcome.err
    assert "of this family there are resnet50" in outcome.err
    assert "did you mean 'HorizontalFlip'" in outcome.err


def test_a_folder_that_holds_another_run_is_refused(fitted, recipe, imagetune):
    outcome = imagetune("fit", recipe, "--run-dir", fitted[1], "-o", "train.stages.0.epochs=2")
    assert outcome.code == 6
    assert "the recipe changed since: train.stages[0].epochs was 1, now it is 2" in outcome.err


def test_a_missed_requirement_has_its_own_exit_code(recipe, workplace, imagetune):
    bar = "evaluate.require=[{metric: accuracy, lower_bound: 1.1}]"
    outcome = imagetune("fit", recipe, "--run-dir", "run", "-o", bar)
    assert outcome.code == 10
    assert "accuracy" in outcome.err
    assert (workplace / "run/report.html").exists()


def test_layers_that_the_backbone_lacks_stop_before_anything_is_written(recipe, workplace, imagetune):
    before = sorted(workplace.rglob("*"))
    outcome = imagetune("fit", recipe, "-o", "train.stages.1.unfreeze=last 99 blocks")
    assert outcome.code == 2
    assert "train.stages[1].unfreeze" in outcome.err
    assert sorted(workplace.rglob("*")) == before


def test_a_class_weight_for_nobody_is_named(recipe, imagetune):
    outcome = imagetune("fit", recipe, "-o", "train.class_weights={rde: 2.0}")
    assert outcome.code == 3
    assert "did you mean 'red'" in outcome.err
