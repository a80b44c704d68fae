"""A solved head on real pretrained weights is as good as the report's own linear probe on the same features."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

import imagetune

pytestmark = pytest.mark.slow

HALF_A_POINT = 0.005
DRAWINGS = Path(__file__).parents[3] / "recipes" / "clipart"


def write_table(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    """Write a table of images with their labels and splits."""
    with (folder / "images.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([("path", "label", "split"), *rows])
    return folder / "images.csv"


def make_digits(folder: Path) -> Path:
    """Return a table of handwritten digits, 8x8 enlarged to 64: 300 to learn from, 1,200 for the test."""
    images, labels = load_digits(return_X_y=True)
    rows = []
    for at, (image, label) in enumerate(zip(images[:1600], labels[:1600], strict=True)):
        pixels = (255 - image.reshape(8, 8) * 255 / 16).astype(np.uint8)
        name = f"{at}.png"
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).convert("RGB").save(folder / name)
        rows.append((name, f"digit {label}", "train" if at < 300 else "val" if at < 400 else "test"))
    return write_table(folder, rows)


def make_photograph_parts(folder: Path) -> Path:
    """Return a table of crops of two photographs, a class for each of ten parts of them."""
    random, rows = np.random.default_rng(5), []
    parts = [(name, left) for name in (0, 1) for left in range(0, 640, 128)]
    for label, (photograph, left) in enumerate(parts):
        photo = load_sample_images().images[photograph]
        for at in range(100):
            top, side = random.integers(0, 427 - 64), left + random.integers(0, 128 - 64)
            name = f"{label}-{at}.png"
            Image.fromarray(photo[top : top + 64, side : side + 64]).save(folder / name)
            rows.append((name, f"part {label}", "train" if at < 20 else "val" if at < 30 else "test"))
    return write_table(folder, rows)


def use_drawings(_folder: Path) -> Path:
    """Return the folder of the shipped drawings."""
    return DRAWINGS


@pytest.mark.parametrize(("make", "size"), [(use_drawings, 128), (make_digits, 64), (make_photograph_parts, 64)])
def test_a_solved_head_is_within_half_a_point_of_the_reports_own_probe(make, size, tmp_path) -> None:
    source = make(tmp_path)
    recipe = {
        "name": "probe",
        "seed": 7,
        "data": {"source": str(source), "image_size": size, "audit": {"near_duplicates": False}},
        "train": {"stages": "linear_probe", "refit": "off"},
        "evaluate": {"explain": 0},
        "tracking": {"enabled": False},
    }
    imagetune.fit(recipe, run_dir=tmp_path / "run")
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))
    probe = next(one for one in evaluation["baselines"]["models"] if one["name"] == "probe")
    own = evaluation["splits"]["test"]["metrics"]
    assert own["accuracy"]["value"] >= probe["metrics"]["accuracy"]["value"] - HALF_A_POINT
