"""A sweep and a bake-off from the command line."""

import csv
import json
import shutil
import subprocess
import sys
from statistics import fmean

import pytest
from small_search import RATES, RECIPE

from imagetune.recipe.loading import load_recipe

MODELS = (
    "model={search: choice, values: [{backbone: mobilenet_v3_small, weights: random}, "
    "{backbone: efficientnet_lite0, weights: random}, {backbone: mobilenet_v2, weights: gone.weights.h5}]}"
)
SWEEP = ("-o", RATES, "-o", "search={algorithm: sweep, repeats: 2, objective: accuracy}")
BAKEOFF = ("-o", MODELS, "-o", "search={algorithm: bakeoff, finalists: 1, repeats: 2, objective: loss}")


def searched(place, images, arguments):
    """Search in a process of its own, on a copy of the images."""
    source = shutil.copytree(images, place / "images")
    (place / "colours.yaml").write_text(RECIPE.format(source=source, tracked="false"), encoding="utf-8")
    command = [sys.executable, "-m", "imagetune", "search", "colours.yaml", "--run-dir", "found", *arguments]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place / "found", done.stdout + done.stderr


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, images):
    return searched(tmp_path_factory.mktemp("sweep"), images, SWEEP)


@pytest.fixture(scope="module")
def bakeoff(tmp_path_factory, images):
    return searched(tmp_path_factory.mktemp("bakeoff"), images, BAKEOFF)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_sweep_trains_each_setting_with_each_seed(sweep):
    folder, printed = sweep
    rows = rows_of(folder / "search.csv")
    # They are written as they end, and may run beside each other.
    assert sorted((row["trial"], row["seed"], row["train.stages[0].learning_rate"]) for row in rows) == [
        *(("001", "", "0.01"), ("002", "", "1e-05")),
        *(("003", "4", "0.01"), ("004", "4", "1e-05")),
    ]
    assert "4 trainings: 2 settings x 2 seeds" in printed
    splits = {
        (folder / "trials" / f"trial-{row['trial']}" / "recipe.yaml").read_text().count("seed: 4") for row in rows
    }
    assert splits == {0, 1}


@pytest.mark.slow
def test_the_effect_of_a_sweep_is_that_of_its_trials(sweep):
    folder, printed = sweep
    metrics = {row["trial"]: float(row["objective"]) for row in rows_of(folder / "search.csv")}
    default, changed = rows_of(folder / "sweep.csv")
    gaps = [metrics["002"] - metrics["001"], metrics["004"] - metrics["003"]]
    assert float(changed["difference"]) == pytest.approx(fmean(gaps))
    assert (changed["key"], changed["value"], changed["default"]) == ("train.stages[0].learning_rate", "1e-05", "0.01")
    assert float(default["mean"]) == pytest.approx(fmean([metrics["001"], metrics["003"]]))
    assert "train.stages[0].learning_rate, default 0.01" in printed
    assert "Sweep: effect of each key alone" in (folder / "report.html").read_text()
    # With weights that are random, either may win, and both can be equal.
    means = {0.01: fmean([metrics["001"], metrics["003"]]), 1e-5: fmean([metrics["002"], metrics["004"]])}
    best = load_recipe(folder / "best.yaml").recipe.train.stages[0].learning_rate
    assert means[best] == max(means.values())


@pytest.mark.slow
def test_a_bake_off_goes_on_without_a_backbone_whose_weights_are_missing(bakeoff):
    folder, printed = bakeoff
    rows = {row["trial"]: row for row in rows_of(folder / "search.csv")}
    assert [rows[name]["status"] for name in ("001", "002", "003")] == ["completed", "completed", "failed"]
    assert "gone.weights.h5" in rows["003"]["error"]
    table = rows_of(folder / "bakeoff.csv")
    assert {row["backbone"] for row in table[:2]} == {"mobilenet_v3_small", "efficientnet_lite0"}
    assert all(float(row["ms_alone"]) > 0 and float(row["megabytes"]) > 0 for row in table[:2])
    assert "3 probes of backbones, then 2 trainings: the best 1 fine-tuned with 2 seeds" in printed
    assert "Backbone comparison (bake-off)" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_the_best_probe_of_a_bake_off_is_fine_tuned_and_tested(bakeoff):
    folder, _ = bakeoff
    rows = {row["trial"]: row for row in rows_of(folder / "search.csv")}
    # The objective is a loss.
    best = min(("001", "002"), key=lambda name: float(rows[name]["objective"]))
    assert [name for name, row in rows.items() if row["phase"] == "final"] == [f"{best}-1", f"{best}-2"]
    assert load_recipe(folder / "best.yaml").recipe.model.backbone == rows_of(folder / "bakeoff.csv")[0]["backbone"]
    assert json.loads((folder / "best" / "evaluation.json").read_text())["splits"]["test"]["images"] > 0
    assert not list((folder / "trials").rglob("test.csv"))


def test_a_bake_off_of_anything_but_backbones_is_refused(recipe, workplace, imagetune):
    outcome = imagetune("search", recipe, "-o", RATES, "-o", "search.algorithm=bakeoff")
    assert outcome.code == 2
    assert "compares backbones" in outcome.err
    assert not (workplace / "runs").exists()
