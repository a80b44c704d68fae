"""Time of a search over the settings of a head, against one run of a plain Keras script.

    python -m benchmarks.search [--trials 24] [--epochs 10] [--rounds 1] [--parallel auto]

3,000 generated JPEGs of 640 x 480, 65% of them to train on, as in `benchmarks.head_stage`. `imagetune search` is a
whole process with an empty cache: the audit of the images, trials over learning rate, dropout, weight decay and batch
size, the finalists with two more seeds, the refit, its test with intervals and the report. Every trial may train
as many epochs as the plain script, `peers/keras_guide.py`, trains once. Required: no slower than that script.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.head_stage import PLAIN, Contest, write_images
from benchmarks.side_by_side import (
    Comparison,
    machine_line,
    markdown_table,
    measure_in_turn,
    run_process,
    save_json,
    show,
)

OURS = "imagetune search"
SPACES = {
    "dropout": {"search": "uniform", "low": 0.0, "high": 0.5, "default": 0.2},
    "batch_size": {"search": "choice", "values": [32, 64, 128], "default": 32},
    "learning_rate": {"search": "log_uniform", "low": 1e-4, "high": 1e-1, "default": 1e-3},
    "weight_decay": {"search": "log_uniform", "low": 1e-5, "high": 1e-1, "default": 1e-2},
}


@dataclass
class Search:
    """A search of heads on one backbone.

    Attributes:
        arguments: The command line.
        work: Images in ``images``, and the files of runs.
        rows: The rows of search.csv of the last run.
    """

    arguments: argparse.Namespace
    work: Path
    rows: list[dict[str, str]] = field(default_factory=list)

    def seconds(self) -> float:
        """Return the seconds of `imagetune search`."""
        cache, run = self.work / "cache", self.work / "search"
        for folder in (cache, run):
            shutil.rmtree(folder, ignore_errors=True)
        recipe = self.work / "search.yaml"
        recipe.write_text(yaml.safe_dump(self.recipe()), encoding="utf-8")
        command = [sys.executable, "-m", "imagetune", "search", str(recipe), f"--run-dir={run}"]
        finished = run_process(command, env={"IMAGETUNE_CACHE": str(cache)}, cwd=self.work)
        with (run / "search.csv").open(newline="", encoding="utf-8") as table:
            self.rows = list(csv.DictReader(table))
        return finished.seconds

    def recipe(self) -> dict[str, Any]:
        """Return the recipe with its spaces."""
        return {
            "name": "head-search",
            "data": {
                "source": "images",
                "image_size": self.arguments.size,
                "resize": "squash",  # as image_dataset_from_directory does
                "augmentation": "none",
            },
            "model": {
                "backbone": "efficientnet_lite0",
                "weights": "imagenet",
                "head": {"pooling": "avg", "dropout": SPACES["dropout"]},
            },
            "train": {
                "stages": "linear_probe",
                "epochs": self.arguments.epochs,
                "learning_rate": SPACES["learning_rate"],
                "batch_size": SPACES["batch_size"],
                "optimizer": {"name": "adamw", "weight_decay": SPACES["weight_decay"]},
            },
            "search": {
                "algorithm": self.arguments.algorithm,
                "trials": self.arguments.trials,
                "parallel": self.arguments.parallel,
                "early_stop": self.arguments.early_stop,
            },
            "tracking": {"uri": "sqlite:///mlflow.db"},
        }

    def as_json(self) -> list[dict[str, str]]:
        """Return the time and the epochs of each trial as JSON values."""
        names = ("trial", "phase", "status", "objective", "seconds", "epochs", "place")
        return [{name: row[name] for name in names} for row in self.rows]


def main() -> None:
    """Measure and print a table."""
    arguments = parse_arguments()
    print(f"{arguments.images} JPEGs of 640 x 480 at {arguments.size} pixels, {arguments.trials} trials")
    print(machine_line(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_images(work / "images", arguments.images)
        search = Search(arguments, work)
        plain = Contest(arguments, "efficientnet_lite0", arguments.epochs, work)
        comparison = measure_in_turn({PLAIN: plain.plain, OURS: search.seconds}, rounds=arguments.rounds)
    print("\n" + page(search, comparison), flush=True)
    save_json(arguments.json, {"command": sys.argv[1:], **comparison.as_json(PLAIN), "trials": search.as_json()})


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=10, help="of the plain script, and at most of each trial")
    parser.add_argument("--algorithm", default="bayesian", choices=["random", "bayesian", "hyperband"])
    parser.add_argument("--early-stop", default="median", choices=["median", "none"])
    parser.add_argument("--parallel", default="auto", type=_parse_count, help="trials at a time, or auto")
    parser.add_argument("--images", type=int, default=3000, help="to generate, of all splits together")
    parser.add_argument("--size", type=int, default=224, help="side of the model's input in pixels")
    parser.add_argument("--batch", type=int, default=32, help="images a step of the plain script")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--longest-plain", type=int, help="run the plain script for no more epochs than this, and "
                        "count the rest as long as its later epochs; the table says so")  # fmt: skip
    parser.add_argument("--plain-cache", action="store_true", help="the plain script keeps decoded images in memory")
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    return parser.parse_args()


def page(search: Search, comparison: Comparison) -> str:
    """Return a table, a line on the requirement, and the time of the trials."""
    arguments, ratio = search.arguments, comparison.ratio(OURS, PLAIN)
    lines = [markdown_table(comparison, base=PLAIN), ""]
    lines.append(f"{OURS}: {show(1 / ratio.median)} of the time of the plain script; required is 1, "
                 f"{'met' if ratio.median >= 1 else 'missed'}.")  # fmt: skip
    longest = arguments.longest_plain
    if longest and longest < arguments.epochs:
        lines.append(f"The plain script ran for {longest} epochs; the rest is counted from its later epochs.")
    ended = Counter(row["status"] for row in search.rows)
    seconds = [float(row["seconds"]) for row in search.rows if row["status"] != "repeated"]
    lines.append(f"Trials: {', '.join(f'{count} {status}' for status, count in ended.items())}; the first took "
                 f"{show(seconds[0])} s, the others {show(statistics.median(seconds[1:]))} s in the middle "
                 f"({show(min(seconds[1:]))} to {show(max(seconds[1:]))}), "
                 f"all together {show(sum(seconds))} s.")  # fmt: skip
    return "\n".join(lines)


def _parse_count(text: str) -> int | str:
    return text if text == "auto" else int(text)


if __name__ == "__main__":
    main()
