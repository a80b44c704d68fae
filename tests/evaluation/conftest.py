"""Runs of made-up features and predictions, and features of real images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examined import examined_of
from finished_run import CLIPART, _finished_run, evaluation, run_folder  # noqa: F401 - fixtures

from imagetune.core.files import write_text
from imagetune.data.loading.decode import load_image
from imagetune.data.sources.labels import build_label_rule
from imagetune.data.sources.records import Record
from imagetune.evaluation.context import EvaluatedSplit, EvaluationContext
from imagetune.evaluation.predictions import Predictions, build_predictions
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.sections.data import ImageSettings

Examiner = Callable[..., EvaluationContext]
FEATURES_RECIPE = """
name: features
seed: 3
data: {source: %s, image_size: 32, task: %s%s}
model: {backbone: efficientnet_lite0, weights: random}
train: {stages: [{name: head, unfreeze: %s, epochs: 1, learning_rate: 1e-3}]}
evaluate: {bootstrap_samples: 200%s}
"""


@pytest.fixture
def examined(tmp_path: Path) -> Examiner:
    """Make a run of made-up features, with what its model predicts."""

    def make(
        labels: dict[str, list[str]],
        features: dict[str, np.ndarray],
        outputs: dict[str, np.ndarray],
        *,
        task: str = "single_label",
        classes: tuple[str, ...] = (),
        unfreeze: str = "none",
        evaluate: str = "",
        model: Any = None,
        groups: dict[str, list[str | None]] | None = None,
    ) -> EvaluationContext:
        root, folder = tmp_path / "images", tmp_path / "run"
        root.mkdir(exist_ok=True)
        folder.mkdir(exist_ok=True)
        order = f", classes: [{', '.join(classes)}]" if task == "ordinal" else ""
        write_text(tmp_path / "recipe.yaml", FEATURES_RECIPE % (root, task, order, unfreeze, evaluate))
        recipe = load_recipe(tmp_path / "recipe.yaml").recipe
        splits = {}
        for name, texts in labels.items():
            grouped = groups[name] if groups else [None] * len(texts)
            records = [
                Record(str(root / f"{name}-{place}.png"), text, name, group)
                for place, (text, group) in enumerate(zip(texts, grouped, strict=True))
            ]
            paths = [record.path for record in records]
            probabilities = np.asarray(outputs[name], np.float64)
            predictions = build_predictions(paths, texts, probabilities, classes, rule=build_label_rule(recipe.data))
            splits[name] = EvaluatedSplit(records, predictions, features[name].astype(np.float32))
        return examined_of(model, recipe, splits, root, folder)

    return make


@pytest.fixture(scope="session")
def real_features() -> dict[str, np.ndarray]:
    """What the pretrained backbone says of all shipped images, of noise, and of crops of two photographs.

    By ``paths`` (relative to the shipped set), ``clipart``, ``noise`` and ``photographs``; (n, 1280) float32.
    """
    from sklearn.datasets import load_sample_images

    from imagetune.model.backbones.table import get_backbone
    from imagetune.model.build import POOLING, build_model
    from imagetune.model.load_weights import load_weights
    from imagetune.model.split_model import split_model_at
    from imagetune.recipe.sections.model import ModelConfig

    side = 160
    config = ModelConfig(backbone="efficientnet_lite0", weights="imagenet")
    model = build_model(config, num_classes=2, image_size=(side, side))
    load_weights(model, config)
    halves = split_model_at(model, get_backbone("efficientnet_lite0"), POOLING)
    assert halves is not None
    paths = sorted(CLIPART.glob("*/*.png"))
    image = ImageSettings(height=side, width=side)
    clipart = np.stack([load_image(str(path), image, max_pixels=10**8) for path in paths])
    noise = np.random.default_rng(0).integers(0, 256, (40, side, side, 3), np.uint8)
    corners = [(row, column) for row in range(0, 297, 99) for column in range(0, 500, 100)]
    photographs = np.stack(
        [
            one[row : row + side, column : column + side]
            for one in load_sample_images().images
            for row, column in corners
        ]
    )
    seen = {"clipart": clipart, "noise": noise, "photographs": photographs}
    features = {name: halves.lower.predict(pixels, verbose=0) for name, pixels in seen.items()}
    return {**features, "paths": np.array([str(path.relative_to(CLIPART)) for path in paths])}


Maker = Callable[..., Predictions]


@pytest.fixture
def made_up() -> Maker:
    """Make predictions of a classifier whose sharpness is given: n images, k classes."""

    def make(n: int, k: int, *, seed: int = 0, sharpness: float = 2.0) -> Predictions:
        generator = np.random.default_rng(seed)
        labels = np.concatenate([np.arange(k), generator.integers(0, k, n - k)])
        scores = generator.normal(size=(n, k))
        scores[np.arange(n), labels] += sharpness
        probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        names = tuple(f"class {index}" for index in range(k))
        return Predictions(tuple(f"{index}.png" for index in range(n)), labels, probabilities, names)

    return make
