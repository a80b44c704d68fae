"""Nothing of the test split is used for a choice: with its labels mixed up, all that is settled stays the same."""

import csv
import json

import numpy as np
import pytest

from tests.conftest import draw_images

RECIPE = """\
name: poison
seed: 3
data: {{source: {source}, image_size: 32, workers: 0, audit: {{on_conflict: ignore}}}}
model: {{backbone: efficientnet_lite0, weights: imagenet}}
train:
  batch_size: 16
  stages: [{{name: head, unfreeze: none, epochs: 3, learning_rate: 1e-2}}]
evaluate:
  bootstrap_samples: 100
  label_errors: false
  explain: 0
  operating_point: {{positive: red, min_recall: 0.8}}
  costs: [[0, 1, 1], [2, 0, 1], [5, 1, 0]]
tracking: {{enabled: false}}
"""

SPLITS = ("train", "val", "val", "test")


def write_tables(folder):
    """Write the images of three classes as two tables; in the second the test labels are mixed up."""
    draw_images(folder / "images", count=36)
    random = np.random.default_rng(0)
    rows = [
        # Some wrong labels, so that there are mistakes to learn from how sure to be.
        [str(path.relative_to(folder)), path.parent.name if place % 5 else "red", SPLITS[place % 4]]
        for place, path in enumerate(sorted(folder.glob("images/*/*.png")))
    ]
    mixed = iter(random.permutation([label for _, label, split in rows if split == "test"]))
    poisoned = [[path, next(mixed) if split == "test" else label, split] for path, label, split in rows]
    for name, table in (("clean", rows), ("poisoned", poisoned)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["path", "label", "split"], *table])
        (folder / f"{name}.yaml").write_text(RECIPE.format(source=f"{name}.csv"), encoding="utf-8")


@pytest.mark.slow
def test_a_poisoned_test_split_changes_nothing_that_is_settled(workplace, imagetune):
    write_tables(workplace)
    manifests, predictions, documents = [], [], []
    for name in ("clean", "poisoned"):
        outcome = imagetune("fit", f"{name}.yaml", "--run-dir", name)
        assert outcome.code == 0, outcome.err
        manifests.append(json.loads((workplace / name / "model/manifest.json").read_text()))
        documents.append(json.loads((workplace / name / "evaluation.json").read_text()))
        told = imagetune("predict", name, "images", "--json", "--calibrated", "--sets", "--operating-point")
        predictions.append(told.out)
    assert manifests[0] == manifests[1]
    assert manifests[0]["temperature"] is not None, documents[0]["calibration"]["temperature"]["reason"]
    assert manifests[0]["conformal"]["threshold"] is not None
    assert manifests[0]["operating_point"]["positive"] == "red"
    assert manifests[0]["costs"] == [[0, 1, 1], [2, 0, 1], [5, 1, 0]]
    assert imagetune("predict", "clean", "images", "--json", "--min-cost").code == 0
    assert predictions[0] == predictions[1]
    clean, poisoned = documents
    for point, other in zip(
        clean["selective_prediction"]["points"], poisoned["selective_prediction"]["points"], strict=True
    ):
        assert point["threshold"] == other["threshold"]
    assert clean["splits"]["val"] == poisoned["splits"]["val"]
    assert clean["splits"]["test"]["metrics"] != poisoned["splits"]["test"]["metrics"]
