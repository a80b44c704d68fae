"""Every shipped recipe, shrunk: small images, random weights, one step an epoch."""

import json

import pytest

from imagetune.model.backbones.table import get_backbone
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.shipped import list_shipped_recipes

# These take over ten seconds even when shrunk.
QUICK = {"quickstart"}
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in sorted(list_shipped_recipes())
    if name != "search"
]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_runs_from_end_to_end(name, images, workplace, imagetune):
    path = list_shipped_recipes()[name]
    recipe = load_recipe(path).recipe
    size = max(32, get_backbone(recipe.model.backbone).min_size)
    shrunk = [f"data.source={images}", f"data.image_size={size}", "data.workers=0", "model.weights=random"]
    shrunk += ["train.batch_size=32", "evaluate.bootstrap_samples=100", "evaluate.explain=1"]
    shrunk += [f"train.stages.{index}.epochs=1" for index in range(len(recipe.train.stages))]
    overrides = [argument for value in shrunk for argument in ("-o", value)]
    outcome = imagetune("fit", path, "--run-dir", "run", *overrides)
    assert outcome.code == 0, outcome.err
    assert json.loads((workplace / "run" / "status.json").read_text())["state"] == "finished"
    lines = (workplace / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, len(recipe.train.stages) + 1))
