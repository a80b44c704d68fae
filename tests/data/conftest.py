from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagetune.recipe.sections.data import DataConfig

MakeImage = Callable[..., Path]


def drawing(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    """A smooth random pattern: unlike every other seed, and it survives JPEG."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def jpeg_bytes(seed: int = 0, width: int = 320, height: int = 240, **options: object) -> bytes:
    stream = io.BytesIO()
    drawing(seed, width, height).save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


@pytest.fixture
def make_image(tmp_path: Path) -> MakeImage:
    def make(name: str, seed: int = 0, **options: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing(seed, **options).save(path)
        return path

    return make


@pytest.fixture
def class_folders(tmp_path: Path, make_image: MakeImage) -> Path:
    """Three classes of twelve different images."""
    for place, label in enumerate(("cat", "dog", "owl")):
        for number in range(12):
            make_image(f"set/{label}/{number:02}.png", 100 * place + number)
    return tmp_path / "set"


@pytest.fixture
def config_for() -> Callable[..., DataConfig]:
    def make(source: Path, **values: object) -> DataConfig:
        return DataConfig.model_validate({"source": str(source), "image_size": 32, **values})

    return make
