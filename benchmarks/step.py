"""Speed of training a backbone against a bare `model.fit`.

    python -m benchmarks.step [--backbones efficientnet_lite0 mobilenet_v3_small resnet50] [--size 96] [--rounds 2]

Images a second of an epoch of `imagetune fit` (pipeline, callback, run folder; from the second epoch on, when the
images are decoded) against a bare `model.fit` with the same model, optimizer, batch size and number of images on
tensors in memory. Augmenting takes its share of the same cores. Required: 0.97.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import Comparison, Measure, machine_line, markdown_table, measure_in_turn, save_json
from imagetune.core.messages import say_nothing
from imagetune.core.quiet import quiet_start

REQUIRED_RATIO = 0.97
# An epoch of each takes some seconds: what begins and ends an epoch must not count for more than in a real one.
IMAGES = {"efficientnet_lite0": 256, "mobilenet_v3_small": 1024, "resnet50": 128}
BARE = "bare model.fit"


def main() -> None:
    """Measure and print a table for each backbone."""
    arguments = parse_arguments()
    with quiet_start():
        from benchmarks import rates
    print(f"JPEGs of 640 x 480 at {arguments.size} pixels, batches of {arguments.batch}, {arguments.epochs} epochs of "
          "which the first doesn't count")  # fmt: skip
    print(machine_line(), flush=True)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["IMAGETUNE_CACHE"] = str(Path(folder) / "cache")
        for backbone in arguments.backbones:
            count = arguments.images or IMAGES.get(backbone, 256)
            source = rates.write_images(Path(folder) / f"images{count}", count)
            comparison = compare(backbone, arguments, source, Path(folder))
            print(f"\n{backbone}, {count} images:\n\n{markdown_table(comparison, base=BARE)}\n", flush=True)
            results[backbone] = {"images": count, **comparison.as_json(BARE)}
    print(f"Required: {REQUIRED_RATIO}.")
    save_json(arguments.json, {"command": sys.argv[1:], "results": results})


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    backbones = ["efficientnet_lite0", "mobilenet_v3_small", "resnet50"]
    parser.add_argument("--backbones", nargs="+", default=backbones)
    parser.add_argument("--augmentations", nargs="+", default=["none", "medium"], help="presets")
    parser.add_argument("--images", type=int, help=f"by default as many as are seconds of work: {IMAGES}")
    parser.add_argument("--size", type=int, default=96, help="side of the model's input in pixels")
    parser.add_argument("--batch", type=int, default=32, help="images a step")
    parser.add_argument("--epochs", type=int, default=4, help="of each measurement; at least 2")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    return parser.parse_args()


def compare(backbone: str, arguments: argparse.Namespace, source: Path, work: Path) -> Comparison:
    """Measure one backbone, bare and with each augmentation, in turn."""
    from benchmarks import rates
    from imagetune.runs.prepare import read_data

    sides: dict[str, Measure] = {}
    for augmentation in arguments.augmentations:
        recipe = rates.build_recipe(
            source,
            backbone=backbone,
            size=arguments.size,
            batch=arguments.batch,
            epochs=arguments.epochs,
            augmentation=augmentation,
        )
        data = read_data(recipe, say=say_nothing)
        sides.setdefault(BARE, partial(rates.measure_bare_fit, recipe, data))
        sides[f"imagetune, augmentation {augmentation}"] = partial(rates.measure_imagetune, recipe, data, work)
    return measure_in_turn(sides, rounds=arguments.rounds, unit="images/s", lower_is_better=False)


if __name__ == "__main__":
    main()
