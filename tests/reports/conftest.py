"""A finished run's folder, and the recipe section of a folder of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from finished_run import _finished_run, evaluation, run_folder  # noqa: F401 - fixtures

from imagetune.recipe.sections.data import DataConfig


@pytest.fixture
def config_for() -> Callable[..., DataConfig]:
    def make(source: Path, **values: object) -> DataConfig:
        return DataConfig.model_validate({"source": str(source), "image_size": 32, **values})

    return make
