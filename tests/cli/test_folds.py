import csv
import json

import mlflow
import numpy as np
import pytest

HEAD_ONLY = (
    "-o",
    "train.stages=[{name: head, unfreeze: none, epochs: 2, learning_rate: 1e-2}]",
    "-o",
    "data.augmentation=none",
)


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def metrics_of(run):
    return json.loads((run / "evaluation.json").read_text())["splits"]


@pytest.mark.slow
def test_folds_are_runs_below_the_run(recipe, workplace, images, imagetune):
    outcome = imagetune("fit", recipe, "--run-dir", "run", *HEAD_ONLY, "-o", "evaluate.folds=3")
    assert outcome.code == 0, outcome.err
    run = workplace / "run"
    assert "folds       3 folds, " in outcome.out
    splits = rows_of(run / "splits.csv")
    learned = {str(images / row["path"]) for row in splits if row["split"] != "test"}
    sealed = {str(images / row["path"]) for row in splits if row["split"] == "test"}

    found = json.loads((run / "evaluation.json").read_text())["folds"]
    left_out = []
    for number in (1, 2, 3):
        fold = run / "folds" / f"fold-{number}"
        assert json.loads((fold / "status.json").read_text())["state"] == "finished"
        for name in ("recipe.yaml", "lock.json", "model.keras", "model/manifest.json", "report.html", "metrics.jsonl"):
            assert (fold / name).is_file(), name
        own = rows_of(fold / "splits.csv")
        assert not sealed & {row["path"] for row in own}
        assert {row["path"] for row in own} == learned
        tested = {row["path"] for row in rows_of(fold / "predictions" / "test.csv")}
        assert tested == {row["path"] for row in own if row["split"] == "test"}
        left_out += tested
        tested_metrics = json.loads((fold / "evaluation.json").read_text())["splits"]["test"]["metrics"]
        assert found["by_fold"][number - 1]["metrics"]["accuracy"] == tested_metrics["accuracy"]["value"]
    assert sorted(left_out) == sorted(learned)

    pooled = rows_of(run / "predictions" / "folds.csv")
    assert {str(images / row["path"]) for row in pooled} == learned
    assert not any(row["path"].startswith("/") for row in pooled)
    accuracy = np.mean([row["label"] == row["predicted"] for row in pooled])
    assert found["pooled"]["metrics"]["accuracy"]["value"] == pytest.approx(accuracy)
    page = (run / "report.html").read_text()
    assert "Cross-validation" in page
    assert "Nadeau and Bengio" in page

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{workplace / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("colours").experiment_id])
    parent = json.loads((run / "tracking.json").read_text())["run_id"]
    children = [one for one in runs if one.data.tags.get("mlflow.parentRunId") == parent]
    assert sorted(one.info.run_name for one in children) == ["fold-1", "fold-2", "fold-3"]
    assert len(runs) == 4
    assert all(one.info.status == "FINISHED" for one in runs)
    metrics = client.get_run(parent).data.metrics
    assert metrics["folds/accuracy"] == pytest.approx(found["metrics"]["accuracy"]["mean"])
    assert metrics["folds_interval/accuracy_low"] == pytest.approx(found["metrics"]["accuracy"]["low"])
    history = client.get_metric_history(parent, "fold/accuracy")
    told = {entry.step: entry.value for entry in history}
    assert told == {one["fold"]: pytest.approx(one["metrics"]["accuracy"]) for one in found["by_fold"]}

    verified = imagetune("verify", run, "--json")
    assert verified.code == 0, verified.out
    assert imagetune("verify", run / "folds" / "fold-2").code == 0
    (run / "folds" / "fold-3" / "splits.csv").unlink()
    assert "folds/fold-3/splits.csv" in imagetune("verify", run).err


@pytest.mark.slow
def test_a_folds_recipe_repeats_the_fold(recipe, workplace, images, imagetune):
    rows = ["file,species,patient,camera"]
    for place, path in enumerate(sorted(images.glob("*/*.png"))):
        rows.append(f"{path},{path.parent.name},p{place // 2},{'ab'[place % 2]}")
    table = workplace / "t.csv"
    table.write_text("\n".join(rows) + "\n")
    columns = "data.columns={path: file, label: species, group: patient, slices: [camera]}"
    off = ("-o", f"data.source={table}", "-o", columns, "-o", "tracking.enabled=false", *HEAD_ONLY)
    outcome = imagetune("fit", recipe, "--run-dir", "run", *off, "-o", "evaluate.folds=2")
    assert outcome.code == 0, outcome.err
    fold = workplace / "run" / "folds" / "fold-2"
    outcome = imagetune("fit", fold / "recipe.yaml", "--run-dir", "again")
    assert outcome.code == 0, outcome.err
    again = workplace / "again"
    assert metrics_of(again) == metrics_of(fold)
    for name in ("splits.csv", "metrics.jsonl", "predictions/val.csv", "predictions/test.csv"):
        if name == "metrics.jsonl":
            pairs = zip(*(lines_of(folder / name) for folder in (again, fold)), strict=True)
            assert all((one["train"], one["val"]) == (two["train"], two["val"]) for one, two in pairs)
        else:
            assert (again / name).read_bytes() == (fold / name).read_bytes(), name
    assert {row["group"] for row in rows_of(fold / "splits.csv")} >= {"p1"}
    assert {row["camera"] for row in rows_of(fold / "splits.csv")} == {"a", "b"}


@pytest.mark.slow
def test_the_run_itself_is_the_same_without_folds(recipe, workplace, imagetune):
    off = ("-o", "tracking.enabled=false", *HEAD_ONLY)
    assert imagetune("fit", recipe, "--run-dir", "plain", *off).code == 0
    assert imagetune("fit", recipe, "--run-dir", "folded", *off, "-o", "evaluate.folds=2").code == 0
    plain, folded = (workplace / name / "predictions" / "test.csv" for name in ("plain", "folded"))
    assert plain.read_bytes() == folded.read_bytes()


def test_impossible_folds_are_refused_before_anything_is_trained(workplace, images, imagetune):
    files = sorted(path for path in images.glob("*/*.png"))
    lines = [f"{path},{path.parent.name},one patient" for path in files if path.parent.name == "blue"]
    lines += [f"{path},{path.parent.name},{path.stem}" for path in files if path.parent.name != "blue"]
    table = workplace / "t.csv"
    table.write_text("path,label,split,group\n" + "\n".join(_with_split(lines)) + "\n")
    recipe = workplace / "r.yaml"
    recipe.write_text(
        f"name: r\ndata: {{source: {table}, image_size: 32, workers: 0, split: {{val: 0}}}}\n"
        "model: {backbone: efficientnet_lite0, weights: random}\n"
        "train: {stages: [{name: head, unfreeze: none, epochs: 1, learning_rate: 1e-2}]}\n"
        "evaluate: {folds: 2}\ntracking: {enabled: false}\n"
    )
    outcome = imagetune("fit", recipe)
    assert outcome.code == 3
    assert "the class 'blue' can't be cross-validated" in outcome.err
    assert not (workplace / "runs").exists()


def _with_split(lines):
    for place, line in enumerate(lines):
        path, label, group = line.split(",")
        side = "test" if label != "blue" and place % 10 == 0 else "train"
        yield f"{path},{label},{side},{group}"


def test_a_dry_run_shows_the_folds(recipe, imagetune):
    outcome = imagetune("fit", recipe, "--dry-run", *HEAD_ONLY, "-o", "evaluate.folds=4")
    assert outcome.code == 0, outcome.err
    assert "4 more trainings" in outcome.out


def test_a_search_does_not_cross_validate(recipe, imagetune):
    space = "train.stages.0.learning_rate={search: log_uniform, low: 1e-4, high: 1e-1}"
    outcome = imagetune("search", recipe, "-o", space, "-o", "evaluate.folds=3")
    assert outcome.code == 2
    assert "a search doesn't cross-validate" in outcome.err
