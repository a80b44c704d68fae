import json

import pytest
import yaml

# A random backbone gives all images the same features until its BatchNorm learns, too.
TOP = "{name: top, unfreeze: all, batch_norm: train, epochs: 1, learning_rate: %s, schedule: constant}"
SMALL = ("-o", "train.batch_size=8")
STAGES = "train.stages=[{name: head, epochs: 1, learning_rate: 0.01}, " + TOP % 0.01 + "]"


def test_a_range_test_prints_rates_for_the_recipe_and_writes_one_image(imagetune, recipe, workplace):
    before = set(workplace.rglob("*"))
    outcome = imagetune("lr-find", recipe, *SMALL, "-o", STAGES, "--stage", "top", "--out", "plots/top.png")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].endswith("# valley of stage top")
    assert lines[1].endswith("# steepest slope of stage top")
    assert lines[-1] == "plot        plots/top.png"
    for line in lines[:2]:
        assert 1e-7 < float(yaml.safe_load(line)["learning_rate"]) < 10
    assert set(workplace.rglob("*")) - before == {workplace / "plots", workplace / "plots" / "top.png"}
    assert (workplace / "plots" / "top.png").read_bytes().startswith(b"\x89PNG")


def test_a_stage_that_is_not_there_is_named_with_those_that_are(imagetune, recipe):
    outcome = imagetune("lr-find", recipe, "--stage", "roof")
    assert outcome.code == 2
    assert outcome.err.splitlines() == ["error[recipe] --stage: no stage is called 'roof'; available: head, top"]


@pytest.mark.slow
def test_auto_measures_the_rate_at_the_start_of_the_stage(imagetune, recipe, workplace):
    top = f"train.stages=[{TOP % 'auto'}]"
    outcome = imagetune("fit", recipe, *SMALL, "-o", top, "--run-dir", "run")
    assert outcome.code == 0, outcome.err
    (said,) = (line for line in outcome.err.splitlines() if line.startswith("range test "))
    assert said.startswith("range test  learning rate ")
    (epoch,) = map(json.loads, (workplace / "run" / "metrics.jsonl").read_text().splitlines())
    assert float(said.split()[-1]) == pytest.approx(epoch["learning_rate"], rel=0.05)
    assert f"auto: {said.split()[-1]}, constant" in (workplace / "run" / "report.html").read_text()


def test_a_dry_run_measures_no_rate(imagetune, recipe):
    top = "train.stages=[{name: top, unfreeze: last 1 blocks, epochs: 1, learning_rate: auto, layer_decay: 0.5}]"
    outcome = imagetune("fit", recipe, *SMALL, "-o", top, "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "learning rate auto x 0.5 (cosine)" in outcome.out
    assert "learning rate auto (cosine)" in outcome.out


@pytest.mark.slow
def test_a_batch_size_that_fits_is_written_into_the_runs_recipe(imagetune, real_recipe, workplace):
    auto = ("-o", "train.batch_size=auto", "-o", "train.effective_batch=16", "-o", "train.stages=linear_probe")
    outcome = imagetune("fit", real_recipe, *SMALL, *auto, "-o", "train.epochs=1", "--run-dir", "run")
    assert outcome.code == 0, outcome.err
    assert "batch       16 of 16 fits" in outcome.err.splitlines()
    train = yaml.safe_load((workplace / "run" / "recipe.yaml").read_text())["train"]
    assert (train["batch_size"], train["effective_batch"]) == (16, 16)


def test_without_a_place_for_the_plot_nothing_is_written_and_the_effort_is_said(imagetune, recipe, workplace):
    before = set(workplace.rglob("*"))
    outcome = imagetune("lr-find", recipe, *SMALL, "-o", STAGES)
    assert outcome.code == 0, outcome.err
    assert set(workplace.rglob("*")) == before
    assert not [line for line in outcome.out.splitlines() if line.startswith("plot")]
    assert "100 steps of 8 images at a rising learning rate, as much as" in outcome.err
