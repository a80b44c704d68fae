"""What checkpoints cost a training, and how soon a stopped run trains again.

    python -m benchmarks.commits [--backbone efficientnet_lite0] [--size 160] [--every 10] [--rounds 3]

**Commits**: seconds of an epoch that trains everything, with a checkpoint every ten seconds and without any but that of
its end, in turn. A checkpoint costs what the median epoch with them takes longer, divided by their number; required is
at most 2% of the time where one is committed every minute. What a step waits for, the copy in memory, is timed too.

**Resume**: seconds from the start of `imagetune fit` to the first committed step, of a new run and of one that was
killed within its second epoch and goes on with `--resume`, in turn, with warm caches. Required: at most 1.2.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.side_by_side import (
    Comparison,
    Measure,
    machine_line,
    markdown_table,
    measure_in_turn,
    save_json,
)
from imagetune.core.messages import say_nothing
from imagetune.core.quiet import quiet_start
from imagetune.recipe.schema import Recipe

REQUIRED_SHARE = 0.02
REQUIRED_START = 1.2
WITHOUT, FRESH = "no commits within the epoch", "a new run"
_START_RECIPE = """\
name: resume
data: {{source: {source}, image_size: {size}, augmentation: none}}
model: {{backbone: {backbone}, weights: random}}
train:
  batch_size: 16
  commit_minutes: 1e-9
  stages: [{{name: all, unfreeze: all, epochs: 50, learning_rate: 1e-4}}]
tracking: {{enabled: false}}
"""


def main() -> None:
    """Measure and print both tables."""
    arguments = parse_arguments()
    with quiet_start():
        from benchmarks import rates
    print(machine_line(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["IMAGETUNE_CACHE"] = str(work / "cache")
        source = rates.write_images(work / "images", arguments.images)
        waits: list[float] = []
        epochs = compare_epochs(arguments, source, work, waits)
        print(f"\nAn epoch of {arguments.images} images:\n\n{markdown_table(epochs, base=WITHOUT)}\n")
        print(describe_commits(epochs, waits, arguments), flush=True)
        starts = compare_starts(arguments, source, work)
        print(f"\nThe first step:\n\n{markdown_table(starts, base=FRESH)}\n\nRequired: {REQUIRED_START}.")
    metrics = {"epochs": epochs.as_json(WITHOUT), "waits": waits, "starts": starts.as_json(FRESH)}
    save_json(arguments.json, {"command": sys.argv[1:], **metrics})


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=160, help="side of the model's input in pixels")
    parser.add_argument("--images", type=int, default=512, help="of an epoch, which should take half a minute")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two commits")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    return parser.parse_args()


def compare_epochs(arguments: argparse.Namespace, source: Path, work: Path, waits: list[float]) -> Comparison:
    """Measure an epoch with commits and without, in turn; what each commit let a step wait for joins ``waits``."""
    from benchmarks import rates
    from imagetune.runs.prepare import read_data

    time_commits(waits)
    recipe = rates.build_recipe(
        source, backbone=arguments.backbone, size=arguments.size, batch=16, epochs=2, augmentation="none"
    )
    data = read_data(recipe, say=say_nothing)

    def seconds_with(minutes: float) -> float:
        train = recipe.train.model_copy(update={"commit_minutes": minutes})
        chosen: Recipe = recipe.model_copy(update={"train": train})
        seconds: float = arguments.images / rates.measure_imagetune(chosen, data, work)
        return seconds

    sides: dict[str, Measure] = {
        WITHOUT: partial(seconds_with, 1e6),
        f"one every {arguments.every:g} s": partial(seconds_with, arguments.every / 60.0),
    }
    return measure_in_turn(sides, rounds=arguments.rounds, warmups=1)


def time_commits(waits: list[float]) -> None:
    """Add the seconds of each commit, as the training sees them, to a list."""
    from imagetune.training.loop.callback import StageCallback

    commit = StageCallback.commit

    def timed(self: StageCallback) -> None:
        began = time.perf_counter()
        commit(self)
        waits.append(time.perf_counter() - began)

    # The only way in: the training has no need to know what its commits cost.
    StageCallback.commit = timed  # type: ignore[method-assign]


def describe_commits(epochs: Comparison, waits: list[float], arguments: argparse.Namespace) -> str:
    """Return what a commit costs, as a share of a minute."""
    with_commits = next(side for side in epochs.metrics if side != WITHOUT)
    pairs = zip(epochs.metrics[with_commits], epochs.metrics[WITHOUT], strict=True)
    costs = [(one - other) / max(one // arguments.every, 1.0) for one, other in pairs]
    waited = f"a step waits {1000 * statistics.median(waits):.0f} ms for its copy (at most {1000 * max(waits):.0f} ms)"
    cost = statistics.median(costs)
    spread = f"{1000 * min(costs):.0f} to {1000 * max(costs):.0f}"
    return (
        f"A commit costs {1000 * cost:.0f} ms ({spread} ms in the rounds), {cost / 60:.2%} of a minute; {waited}. "
        f"Required: at most {REQUIRED_SHARE:.0%}."
    )


def compare_starts(arguments: argparse.Namespace, source: Path, work: Path) -> Comparison:
    """Measure the time to the first step of new and of resumed runs, in turn."""
    recipe = work / "resume.yaml"
    text = _START_RECIPE.format(source=source, size=arguments.size, backbone=arguments.backbone)
    recipe.write_text(text, encoding="utf-8")
    killed, numbers = work / "killed", count()
    steps = arguments.images // 16
    seconds_to_step(recipe, killed, after=steps)

    def fresh() -> float:
        return seconds_to_step(recipe, work / f"fresh{next(numbers)}", after=0)

    def resumed() -> float:
        # A copy each time, as the killed run goes on otherwise.
        copy = work / f"resumed{next(numbers)}"
        shutil.copytree(killed, copy)
        return seconds_to_step(recipe, copy, after=newest_step(copy))

    return measure_in_turn({FRESH: fresh, "a killed run with --resume": resumed}, rounds=arguments.rounds, warmups=1)


def seconds_to_step(recipe: Path, run: Path, *, after: int) -> float:
    """Return the seconds until a fit has committed a step after a given one; the fit is killed there."""
    command = [sys.executable, "-m", "imagetune", "fit", str(recipe), "--run-dir", str(run), "--resume"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while newest_step(run) <= after and process.poll() is None:
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        process.kill()
        _, errors = process.communicate()
    if newest_step(run) <= after:
        raise SystemExit(f"{' '.join(command)} made no step:\n{errors}")
    return seconds


def newest_step(run: Path) -> int:
    """Return the step of the newest checkpoint; 0 where there is none."""
    return max((int(path.name.removeprefix("step-")) for path in run.glob("checkpoints/step-*")), default=0)


if __name__ == "__main__":
    main()
