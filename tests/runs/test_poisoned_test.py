"""Nothing of the test split is used for a choice: with another test, everything but the test's metrics is the same."""

import csv
import json
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_backbones import TINY

from imagetune.cli.main import run
from imagetune.core.files import read_json_lines
from imagetune.model.manifest import load_model

RECIPE = """\
name: poisoned
seed: 5
data:
  source: {source}
  task: {task}
  image_size: 32
  workers: 0
  audit: {{on_leak: ignore, on_conflict: ignore, near_duplicates: false}}
  augmentation: light
model: {{backbone: {backbone}}}
train:
  batch_size: 8
  early_stopping: {{patience: 1}}
  stages: [{{name: head, unfreeze: none, epochs: 5, learning_rate: 2e-2}}{more}]
evaluate: {{bootstrap_samples: 100, mistakes: 2, {evaluate}}}
tracking: {{enabled: false}}
"""
COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}
COUNTS = {"train": 8, "val": 5, "test": 5}
EVALUATE = {"single_label": "operating_point: {positive: red}", "multi_label": "explain: 2"}
TOP = ", {name: top, unfreeze: last 1 blocks, epochs: 2, learning_rate: 1e-3}"
# What is chosen, and what is said of validation images, wherever it stands in evaluation.json.
CHOSEN = ("temperature", "threshold", "thresholds", "chosen", "strength", "train", "val", "train_val", "learned")


def draw(path: Path, colours: list[tuple[int, int, int]], generator: np.random.Generator) -> None:
    coarse = generator.integers(60, 195, (6, 6, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (32, 32), interpolation=cv2.INTER_CUBIC)
    for place, colour in enumerate(colours):
        image[8 * place : 8 * place + 12, 4:18] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])


def write_source(folder: Path, *, several: bool) -> Path:
    """Write images and their table, which gives the splits; with several labels an image or one."""
    generator, lines = np.random.default_rng(0), []
    for split, count in COUNTS.items():
        for name in COLOURS:
            for number in range(count):
                names = [name]
                if several:
                    names += [other for other in COLOURS if other != name and generator.random() < 0.4]
                path = f"{split}-{name}-{number}.png"
                # Some drawings lie, so that thresholds and the best epoch have something to decide.
                shown = [COLOURS[one] for one in names if generator.random() < 0.85]
                draw(folder / path, shown, generator)
                lines.append((path, ";".join(sorted(names)), split))
    return write_table(folder, lines)


def write_table(folder: Path, lines: list[tuple[str, str, str]]) -> Path:
    with (folder / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *lines])
    return folder / "t.csv"


def poison(table: Path) -> None:
    """Shuffle the labels of the test images, and replace the images by noise of other sizes."""
    with table.open(newline="") as file:
        rows = [(row["path"], row["label"], row["split"]) for row in csv.DictReader(file)]
    tested = [label for _, label, split in rows if split == "test"]
    shuffled = tested.copy()
    random.Random(1).shuffle(shuffled)
    assert shuffled != tested
    labels, generator = iter(shuffled), np.random.default_rng(9)
    lines = []
    for path, label, split in rows:
        if split == "test":
            size = tuple(generator.integers(20, 60, 2).tolist())
            cv2.imwrite(str(table.parent / path), generator.integers(0, 256, (*size, 3)).astype(np.uint8))
        lines.append((path, next(labels) if split == "test" else label, split))
    write_table(table.parent, lines)


def fit(recipe: Path, folder: Path) -> Path:
    assert run(["fit", str(recipe), "--run-dir", str(folder)]) == 0
    return folder


def weights_of(folder: Path) -> list[bytes]:
    return [np.asarray(weight).tobytes() for weight in load_model(folder / "model").model.get_weights()]


def epochs_of(folder: Path) -> list[dict]:
    return [line | {"images_per_second": 0} for line in read_json_lines(folder / "metrics.jsonl")]


def choices_of(document: object, place: str = "") -> dict[str, object]:
    """Return every choice in evaluation.json, and all that it says of training and validation, by its place."""
    if isinstance(document, list):
        document = dict(enumerate(document))
    found: dict[str, object] = {}
    for key, value in document.items() if isinstance(document, dict) else ():
        found |= {f"{place}/{key}": value} if key in CHOSEN else choices_of(value, f"{place}/{key}")
    return found


@pytest.mark.parametrize(
    ("task", "more", "backbone"),
    [
        ("single_label", "", f"{TINY}, weights: random"),
        pytest.param("multi_label", TOP, "efficientnet_lite0, weights: imagenet", marks=pytest.mark.slow),
    ],
)
def test_a_poisoned_test_split_changes_nothing_but_the_test(task, more, backbone, tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    table = write_source(tmp_path / "set", several=task == "multi_label")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(RECIPE.format(source=table, task=task, backbone=backbone, evaluate=EVALUATE[task], more=more))
    clean = fit(recipe, tmp_path / "clean")
    poison(table)
    poisoned = fit(recipe, tmp_path / "poisoned")

    assert weights_of(clean) == weights_of(poisoned)
    assert epochs_of(clean) == epochs_of(poisoned)
    manifests = [json.loads((folder / "model" / "manifest.json").read_text()) for folder in (clean, poisoned)]
    assert manifests[0] == manifests[1]
    if task == "multi_label":
        assert set(manifests[0]["thresholds"]) != {0.5}
    for split in ("train", "val"):
        first, second = (folder / "predictions" / f"{split}.csv" for folder in (clean, poisoned))
        assert first.read_bytes() == second.read_bytes()
    documents = [json.loads((folder / "evaluation.json").read_text()) for folder in (clean, poisoned)]
    choices = choices_of(documents[0])
    assert {"/splits/train", "/splits/val", "/gaps/train_val"} <= set(choices)
    if task == "single_label":
        assert {"/calibration/temperature", "/conformal/threshold", "/operating_point/threshold"} <= set(choices)
    assert choices == choices_of(documents[1])
    # The poison was there.
    assert documents[0]["splits"]["test"]["metrics"] != documents[1]["splits"]["test"]["metrics"]
