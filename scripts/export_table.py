"""Export each backbone, with random weights, to each format, and print the table of docs/export.md.

    python -m scripts.export_table [BACKBONE...] [--targets litert,litert-int8,onnx,saved_model]

Each cell is the largest difference of a probability from the Keras model over random images, or why there is no file.
A model with random weights has no accuracy that could be lost: int8 is judged on trained models by `imagetune export`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from imagetune.errors import ImagetuneError
from imagetune.export.folder import measure_export, write_export
from imagetune.export.formats import FORMATS, QUANTIZATIONS, Target
from imagetune.model.backbones.table import get_backbone, list_backbones
from imagetune.model.build import build_model
from imagetune.model.manifest import load_model, read_manifest, save_model
from imagetune.recipe.sections.data import ImageSettings
from imagetune.recipe.sections.model import ModelConfig

IMAGES = 8
CLASSES = 5
TARGETS = {target.name: target for target in (Target(one, two) for one in FORMATS for two in QUANTIZATIONS)}
DEFAULT_TARGETS = "saved_model,litert,litert-int8,onnx"


def main() -> None:
    """Print a row of Markdown for each backbone, as soon as it is measured."""
    parser = argparse.ArgumentParser(prog="python -m scripts.export_table", description=__doc__)
    parser.add_argument("backbones", nargs="*", help="names of backbones; all that need no plug-in by default")
    parser.add_argument("--targets", default=DEFAULT_TARGETS, help="formats with number types, separated by commas")
    options = parser.parse_args()
    targets = [TARGETS[name] for name in options.targets.split(",")]
    names = options.backbones or [row.name for row in list_backbones()]
    print(f"| backbone | size | {' | '.join(target.name for target in targets)} | seconds |")
    print(f"| --- | --- |{' --- |' * len(targets)} --- |", flush=True)
    for name in names:
        started = time.monotonic()
        size = max(get_backbone(name).min_size, 64)
        with tempfile.TemporaryDirectory(prefix="export-") as folder:
            cells = list(_measure(name, size, targets, Path(folder)))
        print(f"| {name} | {size} | {' | '.join(cells)} | {time.monotonic() - started:.0f} |", flush=True)
        keras.backend.clear_session()


def _measure(name: str, size: int, targets: list[Target], folder: Path) -> Iterator[str]:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (IMAGES, size, size, 3), np.uint8)
    paths = [str(folder / f"{index}.png") for index in range(IMAGES)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    keras.utils.set_random_seed(0)
    config, settings = ModelConfig(backbone=name, weights="random"), ImageSettings(height=size, width=size)
    model = build_model(config, num_classes=CLASSES, image_size=(size, size))
    save_model(model, folder / "model", config=config, class_names=tuple("abcde"), image=settings)
    loaded, manifest = load_model(folder / "model"), read_manifest(folder / "model")
    expected = loaded.model.predict(pixels, verbose=0)
    for target in targets:
        place = folder / target.name
        place.mkdir()
        try:
            write_export(loaded, manifest, target, place, pixels)
            yield f"{np.abs(measure_export(place, paths).outputs - expected).max():.0e}"
        except ImagetuneError as error:
            yield error.what.removeprefix("the model can't be converted: ")[:80].replace("|", "/")


if __name__ == "__main__":
    main()
