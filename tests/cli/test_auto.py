"""`imagetune auto`: from a folder of images to a tested model."""

import csv
import json

import pytest

from imagetune.recipe.loading import load_recipe

# Small images and one small network, so that it takes seconds.
SMALL = (
    *("-o", "data.image_size={search: choice, values: [32, 48]}"),
    *("-o", "model={backbone: {search: choice, values: [mobilenet_v3_small]}, weights: random}"),
    *("-o", "data.workers=0", "-o", "tracking.enabled=false"),
)


@pytest.mark.slow
def test_a_folder_becomes_a_tested_model_whose_recipe_can_be_repeated(images, workplace, imagetune):
    outcome = imagetune("auto", images, "--time", "2m", "--run-dir", "found", *SMALL)
    assert outcome.code == 0, outcome.err
    found = workplace / "found"
    rows = list(csv.DictReader((found / "search.csv").open(newline="")))
    assert [row["phase"] for row in rows] == ["search", "search", "final", "final"]
    assert json.loads((found / "best" / "evaluation.json").read_text())["splits"]["test"]["images"] > 0
    assert load_recipe(found / "best.yaml").recipe.model.backbone == "mobilenet_v3_small"
    # A second one has nothing left to do, and finds its recipe by itself.
    again = imagetune("auto", images, "--run-dir", "found", "--resume")
    assert again.code == 0, again.err
    assert "nothing was left to do" in again.out


@pytest.mark.slow
def test_without_time_for_a_fine_tuning_the_best_probe_is_trained_and_tested(images, workplace, imagetune):
    outcome = imagetune("auto", images, "--time", "1s", "--run-dir", "found", *SMALL)
    assert outcome.code == 0, outcome.err
    assert "there was no time for 1 probe and 1 fine-tuning" in outcome.err + outcome.out
    rows = list(csv.DictReader((workplace / "found" / "search.csv").open(newline="")))
    assert [row["phase"] for row in rows] == ["search"]
    assert (workplace / "found" / "best" / "model.keras").is_file()


def test_a_run_of_other_images_is_not_gone_on_with(images, workplace, imagetune):
    (workplace / "begun").mkdir()
    (workplace / "begun" / "recipe.yaml").write_text("data: {source: elsewhere}")
    outcome = imagetune("auto", images, "--run-dir", "begun", "--resume")
    assert outcome.code == 6
    assert "was begun with the images of" in outcome.err


def test_resuming_needs_a_run_folder_and_a_source_that_exists(images, imagetune):
    assert "--resume needs a run folder" in imagetune("auto", images, "--resume").err
    assert "no such file or folder" in imagetune("auto", "nosuch").err


@pytest.mark.parametrize(("options", "said"), [(("--time", "soon"), "30m"), (("--latency", "5"), "5ms")])
def test_a_time_or_latency_without_its_unit_is_refused(options, said, images, imagetune):
    outcome = imagetune("auto", images, *options)
    assert outcome.code == 2
    assert said in outcome.err
