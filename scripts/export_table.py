"""Export each backbone to each format, and print the table of docs/export.md.

    python -m scripts.export_table [BACKBONE...] [--targets saved_model,litert,litert-int8,onnx] [--again] [--table]

What is measured is kept in export_table.json beside this file, cell by cell: a second call goes on where the first one
ended, `--again` measures the cells anew, and `--table` only prints. Each backbone has a process of its own, so that one
that needs too much memory or time costs nothing but its cell.

The weights are random, but the networks behave as trained ones: statistics of BatchNorm are those of images, layer
scales are no millionths, and the head spreads the predictions, so that a difference can be seen. A model that has
learned nothing has no accuracy to lose: int8 is judged on trained models by `imagetune export`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.core.files import write_json
from imagetune.core.quiet import quiet_start
from imagetune.errors import ImagetuneError
from imagetune.export.formats import FORMATS, QUANTIZATIONS, Target
from imagetune.model.backbones.table import Backbone, get_backbone, list_backbones

ROWS = Path(__file__).with_name("export_table.json")
TARGETS = {
    target.name: target
    for target in (Target(one, two) for one in FORMATS for two in QUANTIZATIONS)
    if (target.format, target.quantization != "none") != ("saved_model", True)
}
DEFAULT_TARGETS = "saved_model,litert,onnx,litert-int8"
PIXELS = 64
CLASSES = 5
CALIBRATION = 32
COMPARED = 32
LOGIT_DEVIATION = 2.0
MAX_SECONDS = 3600
Images = NDArray[np.uint8]
Rows = dict[str, dict[str, Any]]


def main() -> None:
    """Measure the cells that are missing, each backbone in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m scripts.export_table", description=__doc__)
    parser.add_argument("backbones", nargs="*", help="names of backbones; all that need no plug-in by default")
    parser.add_argument("--targets", default=DEFAULT_TARGETS, help="formats with number types, separated by commas")
    parser.add_argument("--again", action="store_true", help="measure again what has been measured")
    parser.add_argument("--table", action="store_true", help="only print what has been measured")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    targets = options.targets.split(",")
    if options.measure:
        measure(get_backbone(*options.backbones), targets)
        return
    rows = [get_backbone(name) for name in options.backbones] or list_backbones()
    for backbone in () if options.table else sorted(rows, key=lambda one: one.parameters):
        _measure_missing(backbone.name, targets, again=options.again)
    print_table(targets)


def _measure_missing(name: str, targets: Sequence[str], *, again: bool) -> None:
    """Start a process for the cells of a backbone that are missing, and another one behind a cell that ended it."""
    missing = [target for target in targets if again or target not in read_rows().get(name, {})]
    while missing:
        command = [sys.executable, "-m", "scripts.export_table", name, "--measure", "--targets", ",".join(missing)]
        began = time.time()
        try:
            subprocess.run(command, check=True, timeout=MAX_SECONDS)
            return
        except subprocess.CalledProcessError as ended:
            why = f"the process ended with {ended.returncode}"
        except subprocess.TimeoutExpired:
            why = f"takes more than {MAX_SECONDS} s"
        found = read_rows().get(name, {})
        missing = [target for target in missing if found.get(target, {}).get("at", 0) < began]
        if missing:
            write_cell(name, missing.pop(0), {"error": why})


def read_rows() -> Rows:
    """Return what has been measured: by backbone and target."""
    rows: Rows = json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.is_file() else {}
    return rows


def write_cell(name: str, target: str, cell: dict[str, Any]) -> None:
    """Keep one measurement, and print it."""
    rows = read_rows()
    rows.setdefault(name, {})[target] = {**cell, "at": round(time.time())}
    write_json(ROWS, rows)
    print(name, target, format_cell(cell), f"{cell.get('seconds', 0):.0f} s", flush=True)


def print_table(targets: Sequence[str]) -> None:
    """Print a row of Markdown for each backbone that has been measured."""
    rows = read_rows()
    print(f"| backbone | pixels | {' | '.join(targets)} |")
    print(f"| --- | --- |{' --- |' * len(targets)}")
    for backbone in list_backbones():
        if cells := rows.get(backbone.name):
            shown = [format_cell(cells[target]) if target in cells else "not tried" for target in targets]
            print(f"| {backbone.name} | {choose_pixels(backbone)} | {' | '.join(shown)} |")


def format_cell(cell: dict[str, Any]) -> str:
    """Return a measurement in a few words: the largest difference, and the share of equal labels where it isn't 1."""
    if "error" in cell:
        return str(cell["error"])[:80].replace("|", "/")
    labels = "" if cell["labels"] == 1 else f", {cell['labels']:.0%} of the labels"
    return f"{cell['difference']:.0e}{labels}"


def choose_pixels(backbone: Backbone) -> int:
    """Return the smallest side from 64 pixels on that a backbone takes."""
    return -(-max(backbone.min_size, PIXELS) // backbone.size_step) * backbone.size_step


def measure(backbone: Backbone, targets: Sequence[str]) -> None:
    """Export one backbone to each target and keep how much its predictions differ."""
    with quiet_start():
        from imagetune.export.folder import measure_export, write_export
        from imagetune.model.manifest import load_model, read_manifest
    with tempfile.TemporaryDirectory(prefix="export-table-") as name:
        folder, images = Path(name), draw_images(choose_pixels(backbone))
        paths = write_images(folder, images[CALIBRATION:])
        save_spread_model(backbone, images[:CALIBRATION], folder / "model")
        loaded, manifest = load_model(folder / "model"), read_manifest(folder / "model")
        expected = loaded.model.predict(images[CALIBRATION:], verbose=0)
        for target in targets:
            place, began = folder / target, time.monotonic()
            place.mkdir()
            try:
                write_export(loaded, manifest, TARGETS[target], place, images[:CALIBRATION])
                cell = compare(measure_export(place, paths).outputs, expected)
            except ImagetuneError as error:
                cell = {"error": error.what.removeprefix("the model can't be converted: ")}
            write_cell(backbone.name, target, {**cell, "seconds": round(time.monotonic() - began, 1)})


def compare(outputs: NDArray[np.float64], expected: NDArray[np.float32]) -> dict[str, Any]:
    """Return the largest difference of a probability, and the share of equal labels."""
    labels = outputs.argmax(axis=1) == expected.argmax(axis=1)
    return {"difference": float(np.abs(outputs - expected).max()), "labels": float(labels.mean())}


def draw_images(pixels: int) -> Images:
    """Return (n, pixels, pixels, 3) images of a few coloured boxes, which differ as noise doesn't."""
    random = np.random.default_rng(0)
    images = np.empty((CALIBRATION + COMPARED, pixels, pixels, 3), np.uint8)
    for image in images:
        image[:] = random.integers(0, 256, 3)
        for _ in range(random.integers(2, 8)):
            top, left = random.integers(0, pixels, 2)
            high, wide = random.integers(pixels // 8, pixels, 2)
            image[top : top + high, left : left + wide] = random.integers(0, 256, 3)
    noise = random.integers(-12, 13, images.shape)
    return np.asarray(np.clip(images + noise, 0, 255), np.uint8)


def write_images(folder: Path, images: Images) -> list[str]:
    """Write images as PNG files and return their paths."""
    from PIL import Image

    paths = [str(folder / f"{index}.png") for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def save_spread_model(backbone: Backbone, images: Images, folder: Path) -> None:
    """Save a model with random weights whose predictions for the images differ from each other."""
    import keras

    from imagetune.model.build import build_model
    from imagetune.model.manifest import save_model
    from imagetune.recipe.sections.data import ImageSettings
    from imagetune.recipe.sections.model import ModelConfig

    keras.utils.set_random_seed(0)
    config = ModelConfig(backbone=backbone.name, weights="random")
    model = build_model(config, num_classes=CLASSES, image_size=images.shape[1:3])
    _fill_statistics(model, images)
    _spread_head(model, images)
    settings = ImageSettings(height=images.shape[1], width=images.shape[2])
    save_model(model, folder, config=config, class_names=tuple("abcde"), image=settings)


def _fill_statistics(model: Any, images: Images) -> None:
    """Give BatchNorm the statistics of the images, and ConvNeXt's layer scales the size that training gives them."""
    from imagetune.model.trainable import list_leaf_layers

    norms = []
    for layer in list_leaf_layers(model):
        if type(layer).__name__ == "BatchNormalization":
            norms.append(layer)
            layer.momentum = 0.0
        elif type(layer).__name__ == "LayerScale":
            layer.set_weights([np.full_like(layer.get_weights()[0], 0.2)])
    if norms:
        model(images.astype(np.float32), training=True)


def _spread_head(model: Any, images: Images) -> None:
    from imagetune.model.build import LOGITS, build_logits_model

    head = model.get_layer(LOGITS)
    logits = build_logits_model(model).predict(images, verbose=0)
    scale = LOGIT_DEVIATION / logits.std(axis=0)
    kernel, bias = head.get_weights()
    head.set_weights([kernel * scale, (bias - logits.mean(axis=0)) * scale])


if __name__ == "__main__":
    main()
