"""Each task from the recipe to the report, on drawn images, through the command line."""

import csv
import json
import re

import cv2
import numpy as np
import pytest

RECIPE = """\
name: {name}
seed: 3
data:
  source: {source}
  task: {task}
  image_size: 32
  workers: 0
  split: {{val: 0.25, test: 0.25}}
{data}
  augmentation: none
model: {{backbone: efficientnet_lite0, weights: imagenet, head: {{dropout: 0.0}}}}
train:
  batch_size: 8
  stages:
    - {{name: head, unfreeze: none, epochs: 4, learning_rate: 1e-2}}
evaluate: {{bootstrap_samples: 100, mistakes: 3}}
tracking: {{enabled: false}}
"""
COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}


def draw(path, patches, random):
    """Write an image of coarse noise with a coloured square for each patch."""
    coarse = random.integers(90, 165, (8, 8, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (32, 32), interpolation=cv2.INTER_CUBIC)
    for place, (colour, size) in enumerate(patches):
        left = place % 2 * 16
        top = place // 2 * 16
        image[top : top + size, left : left + size] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])


def write_recipe(workplace, name, source, task, data=""):
    path = workplace / f"{name}.yaml"
    path.write_text(RECIPE.format(name=name, source=source, task=task, data=data), encoding="utf-8")
    return path


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def epochs_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def tagged(workplace):
    """Forty images with none to three of the colours, and their table."""
    random = np.random.default_rng(0)
    lines = ["path,label"]
    for index in range(40):
        names = [name for name in COLOURS if random.random() < 0.5]
        draw(workplace / "set" / f"{index:02}.png", [(COLOURS[name], 16) for name in names], random)
        lines.append(f"{index:02}.png,{'; '.join(reversed(names))}")
    (workplace / "set" / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return workplace / "set" / "labels.csv"


def test_several_labels_an_image(tagged, workplace, imagetune, monkeypatch):
    from imagetune.runs import run, test

    paths, predict, from_features = [], run.predict_labelled, test.build_predictions

    def seen(model, records, *args, **more):
        paths.extend(record.path for record in records)
        return predict(model, records, *args, **more)

    def told(seen_paths, *args, **more):
        paths.extend(seen_paths)
        return from_features(seen_paths, *args, **more)

    monkeypatch.setattr(run, "predict_labelled", seen)
    monkeypatch.setattr(test, "build_predictions", told)
    recipe = write_recipe(workplace, "tags", tagged, "multi_label")
    folder = workplace / "run"
    outcome = imagetune("fit", recipe, "--run-dir", folder)
    assert outcome.code == 0, outcome.err
    # The thresholds are chosen from the predictions that are written, not from others.
    assert len(paths) == len(set(paths)) == 40
    verified = imagetune("verify", folder)
    assert verified.code == 0, verified.out
    assert "3 labels: blue, green, red" in outcome.err
    assert set(epochs_of(folder)[-1]["val"]) == {"loss", "accuracy", "precision", "recall", "f1"}

    manifest = json.loads((folder / "model" / "manifest.json").read_text())
    assert (manifest["task"], manifest["class_names"]) == ("multi_label", ["blue", "green", "red"])
    thresholds = dict(zip(manifest["class_names"], manifest["thresholds"], strict=True))
    evaluation = json.loads((folder / "evaluation.json").read_text())
    metrics = evaluation["splits"]["test"]["metrics"]
    assert {"mean_average_precision", "f1", "micro_f1", "subset_accuracy", "hamming_loss"} <= set(metrics)
    assert all(metric["low"] <= metric["value"] <= metric["high"] for metric in metrics.values())
    assert evaluation["splits"]["train"]["metrics"]["mean_average_precision"]["value"] > 0.7
    assert {row["class"]: row["threshold"] for row in evaluation["splits"]["test"]["per_class"]} == thresholds

    for row in rows_of(folder / "predictions" / "test.csv"):
        given = [name for name in thresholds if float(row[name]) >= thresholds[name]]
        assert row["predicted"] == ";".join(given)
    truth = {row["path"]: row["label"] for row in rows_of(folder / "splits.csv")}
    assert any(label == "" for label in truth.values())

    lines = imagetune("predict", folder, workplace / "set", "--json").out.splitlines()
    for line in map(json.loads, lines):
        assert set(line) == {"path", "label", "probabilities", "error"}
        given = [name for name in thresholds if line["probabilities"][name] >= thresholds[name]]
        assert line["label"] == ";".join(given)
    page = (folder / "report.html").read_text()
    assert "Metrics per label" in page
    assert "Mean average precision" in page
    assert "Confusion matrix" not in page
    assert "Worst mistakes" in page
    # Each wrong image says which label is wrong, and how clearly.
    assert re.search(r"\((blue|green|red) (predicted|missed): \d+%, threshold \d+%\)", page)
    confusions = evaluation.get("label_confusions")
    assert confusions is None or "Label confusions" in page


@pytest.mark.slow
def test_ordered_classes(workplace, imagetune):
    random = np.random.default_rng(1)
    sizes = {"small": 4, "medium": 10, "large": 16}
    for name, size in sizes.items():
        for index in range(12):
            draw(workplace / "set" / name / f"{index}.png", [(COLOURS["red"], size)], random)
    recipe = write_recipe(workplace, "sizes", workplace / "set", "ordinal")
    refused = imagetune("fit", recipe, "--run-dir", workplace / "none")
    assert refused.code == 2
    assert "data.classes" in refused.err
    assert not (workplace / "none").exists()

    recipe = write_recipe(workplace, "sizes", workplace / "set", "ordinal", "  classes: [small, medium, large]")
    run = workplace / "run"
    outcome = imagetune("fit", recipe, "-o", "train.early_stopping.metric=mae", "--run-dir", run)
    assert outcome.code == 0, outcome.err
    verified = imagetune("verify", run)
    assert verified.code == 0, verified.out
    assert {"accuracy", "mae"} <= set(epochs_of(run)[-1]["val"])
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["class_names"] == ["small", "medium", "large"]
    metrics = evaluation["splits"]["test"]["metrics"]
    assert {"accuracy", "mae", "quadratic_weighted_kappa", "within_one_rank"} <= set(metrics)

    assert evaluation["splits"]["train"]["metrics"]["quadratic_weighted_kappa"]["value"] > 0.2

    names = evaluation["class_names"]
    for row in rows_of(run / "predictions" / "test.csv"):
        reached = np.cumsum([float(row[name]) for name in names])
        assert row["predicted"] == names[int((reached < 0.5).sum())]
    lines = [json.loads(line) for line in imagetune("predict", run, workplace / "set", "--json").out.splitlines()]
    for line in lines:
        reached = np.cumsum([line["probabilities"][name] for name in names])
        assert line["label"] == names[int((reached < 0.5).sum())]
    again = imagetune("evaluate", run, "--data", workplace / "set", "--allow-seen", "--json").json()
    assert again["splits"]["test"]["images"] == 36
    assert "quadratic_weighted_kappa" in again["splits"]["test"]["metrics"]
    page = (run / "report.html").read_text()
    assert "Weighted kappa" in page
    assert "Rank errors" in page
    ranks = evaluation["rank_errors"]
    assert sum(row["images"] for row in ranks["distances"]) == ranks["images"]
    far = sum(abs(row["off"]) * row["images"] for row in ranks["distances"])
    assert metrics["mae"]["value"] == pytest.approx(far / ranks["images"])
    assert "Confusion matrix" in page


def explained_and_required(imagetune, run, image, *, prediction, mae):
    """A number is explained by what makes it higher or lower, and its error can be given a ceiling."""
    shown = imagetune("explain", run, image, "--out", run / "looks", "--json")
    (line,) = map(json.loads, shown.out.splitlines())
    assert (line["target"], line["probability"]) == ("higher", None)
    assert line["value"] == pytest.approx(prediction, rel=1e-4)
    lower = imagetune("explain", run, image, "--out", run / "low", "--class", "lower")
    assert "\tlower\t" in lower.out
    wrong = imagetune("explain", run, image, "--out", run / "low", "--class", "pink")
    assert wrong.code == 2
    assert "higher or lower" in wrong.err
    met = imagetune("evaluate", run, "--require", f"mae:value={1.01 * mae}")
    assert met.code == 0, met.err
    assert "required    mean absolute error: value" in met.out
    missed = imagetune("evaluate", run, "--require", f"mae:upper_bound={0.5 * mae}")
    assert missed.code == 10
    assert "above the required" in missed.err


@pytest.mark.slow
def test_numbers(workplace, imagetune):
    import keras

    random = np.random.default_rng(2)
    for index in range(40):
        size = int(random.integers(2, 32))
        draw(workplace / "set" / f"{index:02}.png", [(COLOURS["blue"], size)], random)
        (workplace / "set" / f"{index:02}.json").write_text(json.dumps({"value": 100 + 5 * size}))
    recipe = write_recipe(workplace, "numbers", workplace / "set", "regression")
    run = workplace / "run"
    outcome = imagetune("fit", recipe, "-o", "data.split.method=stratified", "--run-dir", run)
    assert outcome.code == 0, outcome.err
    verified = imagetune("verify", run)
    assert verified.code == 0, verified.out
    assert set(epochs_of(run)[-1]["train"]) == set(epochs_of(run)[-1]["val"]) == {"loss", "mae", "r2"}
    manifest = json.loads((run / "model" / "manifest.json").read_text())
    truth = {row["path"]: float(row["label"]) for row in rows_of(run / "splits.csv") if row["split"] == "train"}
    assert manifest["value_mean"] == pytest.approx(np.mean(list(truth.values())), rel=1e-6)
    assert manifest["value_std"] == pytest.approx(np.std(list(truth.values())), rel=1e-6)

    rows = rows_of(run / "predictions" / "test.csv")
    assert list(rows[0]) == ["path", "label", "predicted", "value"]
    metrics = json.loads((run / "evaluation.json").read_text())["splits"]["test"]["metrics"]
    assert set(metrics) == {"mae", "rmse", "r2", "spearman"}
    assert json.loads((run / "evaluation.json").read_text())["splits"]["train"]["metrics"]["r2"]["value"] > 0.2
    errors = [abs(float(row["predicted"]) - float(row["label"])) for row in rows]
    assert metrics["mae"]["value"] == pytest.approx(np.mean(errors), rel=1e-5)

    lines = [json.loads(line) for line in imagetune("predict", run, workplace / "set", "--json").out.splitlines()]
    assert len(lines) == 40
    assert set(lines[0]) == {"path", "label", "probabilities", "error", "value"}
    assert lines[0]["probabilities"] == {}
    assert float(lines[0]["label"]) == lines[0]["value"]
    by_name = {line["path"].rsplit("/", 1)[-1]: line["value"] for line in lines}
    told = by_name[rows[0]["path"]]
    assert told == pytest.approx(float(rows[0]["predicted"]), rel=1e-4)
    plain = keras.models.load_model(run / "model.keras")
    image = cv2.imread(str(workplace / "set" / rows[0]["path"]))[None, ..., ::-1]
    assert float(np.asarray(plain(image))[0, 0]) == pytest.approx(told, rel=1e-4)
    page = (run / "report.html").read_text()
    assert "Predicted and true" in page
    assert "R squared" in page
    for title in (
        "Residuals by prediction",
        "Suspected label errors",
        "Saliency maps",
        "Conformal prediction intervals",
    ):
        assert title in page
    evaluation = json.loads((run / "evaluation.json").read_text())
    told = [float(row["predicted"]) - float(row["label"]) for row in rows]
    assert evaluation["residuals"]["bias"]["value"] == pytest.approx(np.mean(told), rel=1e-4)
    card = (run / "model_card.md").read_text()
    assert evaluation["residuals"]["text"] in card
    explained_and_required(
        imagetune,
        run,
        workplace / "set" / rows[0]["path"],
        prediction=float(rows[0]["predicted"]),
        mae=metrics["mae"]["value"],
    )
