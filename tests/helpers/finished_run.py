"""A finished run's folder as a fit leaves it, and fixtures of it: real images, a simple classifier, learning curves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import f1_score, log_loss, precision_score, recall_score

from imagetune.core.files import append_json_line, write_json, write_text
from imagetune.data.loading.decode import load_image
from imagetune.evaluation.document import build_evaluation_document
from imagetune.evaluation.metrics.classification import evaluate_predictions
from imagetune.evaluation.predictions import Predictions, write_predictions
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.printing import format_recipe
from imagetune.recipe.sections.data import ImageSettings

CLIPART = Path(__file__).parents[2] / "recipes" / "clipart"
RECIPE = """
name: clipart
seed: 7
data: {source: %s, image_size: 32}
model: {backbone: efficientnet_lite0, weights: random}
train:
  stages:
    - {name: head, unfreeze: none, epochs: 8, learning_rate: 1e-3}
    - {name: top, unfreeze: last 3 blocks, epochs: 6, learning_rate: 1e-4}
evaluate: {bootstrap_samples: 200, require: [{metric: balanced_accuracy, lower_bound: 0.8}]}
tracking: {enabled: false}
"""


def make_run(folder: Path) -> Path:
    """Write a finished run of a linear classifier on shrunk clipart into ``folder``."""
    folder.mkdir(parents=True)
    write_text(folder / "source.yaml", RECIPE % CLIPART)
    recipe = load_recipe(folder / "source.yaml").recipe
    write_text(folder / "recipe.yaml", format_recipe(recipe))
    (folder / "source.yaml").unlink()
    images = sorted(CLIPART.glob("*/*.png"))
    classes = tuple(sorted({path.parent.name for path in images}))
    split = np.random.default_rng(7).choice(["train", "val", "test"], len(images), p=[0.65, 0.15, 0.2])
    labels = np.array([classes.index(path.parent.name) for path in images])
    rows = [
        f"{path.relative_to(CLIPART)},{path.parent.name},{side},\n" for path, side in zip(images, split, strict=True)
    ]
    write_text(folder / "splits.csv", "path,label,split,group\n" + "".join(rows))
    features = _features(images)
    model = _train(folder, features, labels, split)
    evaluations = {}
    for side in ("train", "val", "test"):
        chosen = split == side
        paths = tuple(str(path) for path, take in zip(images, chosen, strict=True) if take)
        probabilities = model.predict_proba(features[chosen])
        predictions = Predictions(paths, labels[chosen], probabilities, classes)
        write_predictions(predictions, folder / "predictions" / f"{side}.csv", root=CLIPART)
        evaluations[side] = evaluate_predictions(predictions, config=recipe.evaluate, seed=recipe.seed)
    write_json(folder / "evaluation.json", build_evaluation_document(evaluations, config=recipe.evaluate))
    write_json(folder / "status.json", {"state": "finished", "stage": "top", "epoch": 14, "step": 126, "error": None})
    write_json(folder / "lock.json", _lock())
    write_json(folder / "audit.json", _audit())
    return folder


def _features(images: list[Path]) -> np.ndarray:
    image = ImageSettings(height=16, width=16)
    return np.stack([load_image(str(path), image, max_pixels=10**7).ravel() for path in images]) / 127.5 - 1


def _train(folder: Path, features: np.ndarray, labels: np.ndarray, split: np.ndarray) -> SGDClassifier:
    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=3e-4, alpha=1e-3, random_state=0)
    classes = np.unique(labels)
    for epoch in range(1, 15):
        model.eta0 = 3e-4 if epoch <= 8 else 3e-5
        model.partial_fit(features[split == "train"], labels[split == "train"], classes=classes)
        line: dict[str, Any] = {"stage": "head" if epoch <= 8 else "top", "epoch": epoch, "step": 9 * epoch}
        for side in ("train", "val"):
            line[side] = _metrics(labels[split == side], model.predict_proba(features[split == side]))
        append_json_line(folder / "metrics.jsonl", {**line, "learning_rate": model.eta0, "images_per_second": 410.0})
    return model


def _metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    predictions = probabilities.argmax(axis=1)
    averaged = {"average": "macro", "zero_division": 0.0}
    return {
        "loss": float(log_loss(labels, probabilities, labels=range(probabilities.shape[1]))),
        "accuracy": float((predictions == labels).mean()),
        "precision": float(precision_score(labels, predictions, **averaged)),
        "recall": float(recall_score(labels, predictions, **averaged)),
        "f1": float(f1_score(labels, predictions, **averaged)),
    }


def _lock() -> dict[str, Any]:
    return {
        "versions": {"imagetune-keras": "0.1.0", "keras": "3.15.1"},
        "platform": {"python": "3.11.9", "system": "Linux", "cores": 2, "memory_bytes": 8 * 2**30},
        "seeds": {"seed": 7},
        "weights": {"source": "random", "sha256": None, "matched": 0, "unmatched": [], "note": "new random weights"},
        "images": {"birds/a.png": "0" * 64},
    }


def _audit() -> dict[str, Any]:
    finding = {
        "code": "near-duplicates",
        "severity": "warning",
        "title": "2 families of nearly the same image",
        "explanation": "each family is kept on one side of the split",
        "hint": "remove copies that teach nothing",
        "paths": [f"birds/bird-{number}.png" for number in range(7)],
        "groups": [],
        "reasons": {},
    }
    return {"source": str(CLIPART), "ok": True, "findings": [finding]}


@pytest.fixture(scope="session")
def _finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "runs" / "clipart-20261121-101500-3f2a")


@pytest.fixture
def run_folder(_finished_run: Path, tmp_path: Path) -> Path:
    """A finished run that the test may change."""
    folder = tmp_path / "runs" / _finished_run.name
    shutil.copytree(_finished_run, folder)
    return folder


@pytest.fixture
def evaluation(run_folder: Path) -> dict[str, Any]:
    """The content of its evaluation.json."""
    document: dict[str, Any] = json.loads((run_folder / "evaluation.json").read_text())
    return document
