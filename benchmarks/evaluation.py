"""Speed of predicting test images, against the bare forward pass of the model.

    python -m benchmarks.evaluation [--backbones efficientnet_lite0 mobilenet_v3_small] [--images 512] [--rounds 5]

A round is all images once. The forward pass has its batches in memory, ready; imagetune predicts the JPEGs of
640 x 480 as every evaluation does, from the files to the predictions with their labels, while later batches are loaded.
On the CPU both want the same cores, so loading can't be hidden whole: its time is
shown beside, with the rest that is left.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

import keras
import numpy as np

from benchmarks.sets import write_jpegs
from benchmarks.side_by_side import (
    Comparison,
    machine_line,
    markdown_table,
    measure_in_turn,
    save_json,
    show,
    timed,
)
from imagetune.core.processes import count_usable_cores
from imagetune.data.loading.decode import load_image
from imagetune.data.loading.image_cache import ImageCaches
from imagetune.data.loading.pipeline import load_evaluation_batches
from imagetune.data.loading.timing import time_loading
from imagetune.data.sources.records import Record
from imagetune.model.build import build_model
from imagetune.recipe.schema import Recipe
from imagetune.runs.test import predict_labelled
from imagetune.training.setup.job import TrainingImages

BACKBONES = ("efficientnet_lite0", "mobilenet_v3_small")
CLASSES = 10
FORWARD, OURS, KEPT = "forward pass", "imagetune", "imagetune, images kept decoded"


def main() -> None:
    """Measure and print a Markdown table a backbone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--images", type=int, default=512, help="JPEGs of 640 x 480 pixels to generate")
    parser.add_argument("--size", type=int, default=224, help="side of the model's input in pixels")
    parser.add_argument("--batch", type=int, default=32, help="images a forward pass")
    parser.add_argument("--rounds", type=int, default=5, help="the median is shown")
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        # What imagetune keeps of decoded images belongs to this benchmark alone.
        os.environ["IMAGETUNE_CACHE"] = str(Path(folder) / "cache")
        records = write_jpegs(Path(folder) / "images", classes=CLASSES, count=arguments.images)
        print(f"{len(records)} JPEGs of 640 x 480 to {arguments.size} x {arguments.size}, batches of {arguments.batch}")
        print(f"{machine_line()}\n")
        for backbone in arguments.backbones:
            recipe = build_recipe(backbone, folder, arguments.size, arguments.batch)
            comparison = compare(recipe, records, arguments.rounds)
            print(f"{backbone}\n\n{markdown_table(comparison, base=FORWARD)}\n")
            print(f"{explain_ratio(comparison, recipe, records)}\n", flush=True)
            results[backbone] = comparison.as_json(FORWARD)
    save_json(arguments.json, {"backbones": results})


def build_recipe(backbone: str, source: str, size: int, batch: int) -> Recipe:
    """Return a recipe whose model is tested."""
    return Recipe.model_validate(
        {
            "data": {"source": source, "image_size": size},
            "model": {"backbone": backbone, "weights": "random"},
            "train": {"batch_size": batch, "stages": "linear_probe", "epochs": 1},
        }
    )


def compare(recipe: Recipe, records: Sequence[Record], rounds: int) -> Comparison:
    """Measure the forward pass and the evaluation of the same images with the same model, in images a second."""
    names = tuple(sorted({record.label for record in records}))
    image = recipe.data.image
    keras.utils.set_random_seed(recipe.seed)
    model = build_model(recipe.model, num_classes=len(names), image_size=(image.height, image.width))
    ready = decode_batches(recipe, records, names)

    def forward() -> None:
        for images in ready:
            model.predict_on_batch(images)

    # As in a run, whose training and validation images are kept decoded, and whose test images are not.
    kept = ImageCaches({record.path: sha256(Path(record.path).read_bytes()).hexdigest() for record in records})

    def ours(caches: ImageCaches | None) -> None:
        images = TrainingImages((), (), names, recipe.data, caches=caches) if caches else None
        found = predict_labelled(model, records, names, recipe, images=images)
        if len(found.paths) != len(records):
            raise SystemExit(f"{len(found.paths)} predictions for {len(records)} images")

    sides = {FORWARD: timed(forward), OURS: timed(partial(ours, None)), KEPT: timed(partial(ours, kept))}
    rates = {name: (lambda seconds=seconds: len(records) / seconds()) for name, seconds in sides.items()}
    return measure_in_turn(rates, rounds=rounds, warmups=1, unit="images/s", lower_is_better=False)


def decode_batches(recipe: Recipe, records: Sequence[Record], names: Sequence[str]) -> list[np.ndarray]:
    """Return every batch, decoded."""
    data = recipe.data
    with load_evaluation_batches(
        records,
        names,
        image=data.image,
        batch_size=recipe.train.pass_size,
        workers=0,
        max_pixels=data.max_pixels,
    ) as batches:
        return [batch.images for batch in batches]


def explain_ratio(comparison: Comparison, recipe: Recipe, records: Sequence[Record]) -> str:
    """Say what loading takes of the cores, and what would be left for the forward pass if it took nothing else."""
    data = recipe.data
    load_image(records[0].path, data.image, max_pixels=data.max_pixels)
    loading = time_loading(records, data.image, "none", max_pixels=data.max_pixels).seconds / count_usable_cores()
    forward = 1 / comparison.spread(FORWARD).median
    most = forward / (forward + loading)
    found = comparison.ratio(OURS, FORWARD)
    return (
        f"Loading takes {show(1e3 * loading)} ms an image of all cores, the forward pass {show(1e3 * forward)} ms: at "
        f"most {most:.3f} of its rate is left where they share them; measured {found}."
    )


if __name__ == "__main__":
    main()
