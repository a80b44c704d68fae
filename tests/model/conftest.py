from __future__ import annotations

import os

# Before Keras is imported anywhere: quiet, and one thread pool a test process.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Callable

import keras
import numpy as np
import pytest

from imagetune.model.build import build_model
from imagetune.recipe.sections.model import HeadConfig, ModelConfig

CLASSES = 3


@pytest.fixture
def random_images() -> Callable[..., np.ndarray]:
    def make(count: int = 2, size: int = 32) -> np.ndarray:
        return np.random.default_rng(5).integers(0, 256, (count, size, size, 3), np.uint8)

    return make


@pytest.fixture
def build() -> Callable[..., keras.Model]:
    def make(name: str = "efficientnet_lite0", size: int = 32, seed: int = 1, **head: object) -> keras.Model:
        keras.utils.set_random_seed(seed)
        config = ModelConfig(backbone=name, weights="random", head=HeadConfig(**head))
        return build_model(config, num_classes=CLASSES, image_size=(size, size))

    return make
