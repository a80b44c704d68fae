"""Time of a stage that trains only the head on cached features, against a plain Keras script.

    python -m benchmarks.head_stage [--backbones efficientnet_lite0] [--epochs 10] [--rounds 1]

3,000 generated JPEGs of 640 x 480, 65% of them to train on. `imagetune fit` is a whole process with an empty cache, its
audit, tracking, test with intervals and report included. The plain script is `peers/keras_guide.py` with the same
images, size, head, epochs and batch, and no more than its own final test. Required: at least 0.7 x epochs times faster.
A second run of imagetune finds the features that the first has kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.sets import write_jpegs
from benchmarks.side_by_side import (
    Comparison,
    Measure,
    machine_line,
    markdown_table,
    measure_in_turn,
    run_process,
    save_json,
    show,
)

REQUIRED_SPEEDUP = 0.7
CLASSES = 10
SHARES = {"train": 0.65, "val": 0.15, "test": 0.2}
PLAIN, OURS, AGAIN, UNCACHED = "plain script", "imagetune", "imagetune again", "imagetune, train.cache=off"


@dataclass
class Contest:
    """One backbone trained for some epochs, by each side.

    Attributes:
        arguments: The command line.
        backbone: The backbone of both sides.
        epochs: The epochs of both sides.
        work: Images in ``images``, and the files of runs.
        accuracies: Test accuracy of each side's last run.
    """

    arguments: argparse.Namespace
    backbone: str
    epochs: int
    work: Path
    accuracies: dict[str, float] = field(default_factory=dict)

    def sides(self) -> dict[str, Measure]:
        """Return what is compared. ``AGAIN`` needs what ``OURS`` has left in its cache, so it comes after it."""
        sides: dict[str, Measure] = {
            PLAIN: self.plain,
            OURS: partial(self.ours, OURS),
            AGAIN: partial(self.ours, AGAIN),
        }
        if self.arguments.uncached:
            sides[UNCACHED] = partial(self.ours, UNCACHED, "train.cache=off")
        return sides

    def plain(self) -> float:
        """Return the seconds of the plain script, of which the later epochs may be counted instead of run."""
        run = min(self.epochs, self.arguments.longest_plain or self.epochs)
        script = Path(__file__).parent / "peers" / "keras_guide.py"
        options = {"backbone": self.backbone, "size": self.arguments.size, "batch": self.arguments.batch, "epochs": run}
        command = [sys.executable, str(script), str(self.work / "images")]
        command += [f"--{name}={value}" for name, value in options.items()]
        if self.arguments.plain_cache:
            command.append("--cache")
        finished = run_process(command)
        printed = json.loads(finished.output.splitlines()[-1])
        self.accuracies[PLAIN] = printed["test_accuracy"]
        return finished.seconds + (self.epochs - run) * float(printed["phases"][0]["later_epoch_seconds"])

    def ours(self, side: str, *overrides: str) -> float:
        """Return the seconds of `imagetune fit`."""
        cache, run = self.work / "cache", self.work / "run"
        if side != AGAIN:
            shutil.rmtree(cache, ignore_errors=True)
        shutil.rmtree(run, ignore_errors=True)
        recipe = self.work / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(self.recipe()), encoding="utf-8")
        command = [sys.executable, "-m", "imagetune", "fit", str(recipe), f"--run-dir={run}"]
        command += [f"-o{override}" for override in overrides]
        finished = run_process(command, env={"IMAGETUNE_CACHE": str(cache)}, cwd=self.work)
        self.accuracies[side] = _test_accuracy(run)
        return finished.seconds

    def recipe(self) -> dict[str, Any]:
        """Return the recipe of the same training."""
        weights = "imagenet" if self.backbone == "efficientnet_lite0" else "random"
        return {
            "name": "head-stage",
            "data": {
                "source": "images",
                "image_size": self.arguments.size,
                "resize": "squash",  # as image_dataset_from_directory does
                "augmentation": "none",
            },
            "model": {"backbone": self.backbone, "weights": weights, "head": {"pooling": "avg", "dropout": 0.2}},
            "train": {
                "stages": "linear_probe",
                "epochs": self.epochs,
                "learning_rate": 1e-3,
                "batch_size": self.arguments.batch,
                "optimizer": "adam",
            },
            "tracking": {"uri": "sqlite:///mlflow.db"},
        }


def main() -> None:
    """Measure and print a table for each backbone and number of epochs."""
    arguments = parse_arguments()
    print(f"{arguments.images} JPEGs of 640 x 480 at {arguments.size} pixels, batches of {arguments.batch}")
    print(machine_line(), flush=True)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_images(work / "images", arguments.images)
        for backbone in arguments.backbones:
            for epochs in arguments.epochs:
                contest = Contest(arguments, backbone, epochs, work)
                comparison = measure_in_turn(contest.sides(), rounds=arguments.rounds)
                print("\n" + page(contest, comparison), flush=True)
                results[f"{backbone}, {epochs} epochs"] = {
                    **comparison.as_json(PLAIN),
                    "test_accuracy": contest.accuracies,
                }
    save_json(arguments.json, {"command": sys.argv[1:], "results": results})


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["efficientnet_lite0"], help="also mobilenet_v3_small, "
                        "mobilenet_v3_large, resnet50, vgg16")  # fmt: skip
    parser.add_argument("--epochs", nargs="+", type=int, default=[10], help="numbers of epochs, each a table")
    parser.add_argument("--images", type=int, default=3000, help="to generate, of all splits together")
    parser.add_argument("--size", type=int, default=224, help="side of the model's input in pixels")
    parser.add_argument("--batch", type=int, default=32, help="images a step")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--longest-plain", type=int, help="run the plain script for no more epochs than this, and "
                        "count the rest as long as its later epochs; the table says so")  # fmt: skip
    parser.add_argument("--plain-cache", action="store_true", help="the plain script keeps decoded images in memory")
    parser.add_argument("--uncached", action="store_true", help="also imagetune without kept features")
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    return parser.parse_args()


def write_images(folder: Path, count: int) -> None:
    """Write the images of each split."""
    for seed, (split, share) in enumerate(SHARES.items()):
        write_jpegs(folder / split, classes=CLASSES, count=round(count * share), seed=seed)


def page(contest: Contest, comparison: Comparison) -> str:
    """Return a table with a line on the required speed-up and one with the test accuracies."""
    ratio, required = comparison.ratio(OURS, PLAIN), REQUIRED_SPEEDUP * contest.epochs
    lines = [f"{contest.backbone}, {contest.epochs} epochs:\n", markdown_table(comparison, base=PLAIN), ""]
    lines.append(f"{OURS}: {ratio} times faster; required are 0.7 x {contest.epochs} = {show(required)}, "
                 f"of which this is {show(ratio.median / required)}.")  # fmt: skip
    longest = contest.arguments.longest_plain
    if longest and longest < contest.epochs:
        lines.append(f"The plain script ran for {longest} epochs; the rest is counted from its later epochs.")
    right = ", ".join(f"{side} {accuracy:.3f}" for side, accuracy in contest.accuracies.items())
    return "\n".join([*lines, f"Test accuracy: {right}."])


def _test_accuracy(run: Path) -> float:
    document = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    return float(document["splits"]["test"]["metrics"]["accuracy"]["value"])


if __name__ == "__main__":
    main()
