"""Training speed on a GPU against the bare training step: JAX, bfloat16, a batch that fills the card.

    KERAS_BACKEND=jax python -m benchmarks.gpu [--backbones resnet50 convnext_tiny] [--trace FOLDER] [--timm PYTHON]
    KERAS_BACKEND=jax python -m benchmarks.gpu --tiny      # does it work? on any machine

Images a second of `imagetune fit` from decoded images, against the same step on one batch that lies on the card
already. Required: 0.9. `--timm` takes the Python of an environment with torch and timm, and compares with those on the
same images. `--trace` records an epoch with jax.profiler and prints where its time went; TensorBoard shows the whole.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

os.environ.setdefault("KERAS_BACKEND", "jax")

from benchmarks.side_by_side import (
    Measure,
    machine_line,
    markdown_table,
    measure_in_turn,
    run_process,
    save_json,
    show,
)
from imagetune.core.messages import say_nothing
from imagetune.core.quiet import quiet_start
from imagetune.recipe.schema import Recipe

if TYPE_CHECKING:
    from imagetune.runs.prepare import Data

REQUIRED_RATIO = 0.9
ON_CARD = "step on the card"
OURS = "imagetune"
TIMM = "timm, its loader"
TIMM_STEP = "timm, step on the card"
LARGEST_BATCH = 4096
# A batch twice as large has to be this much faster to be worth its memory.
MIN_SPEEDUP = 1.03
P = ParamSpec("P")
T = TypeVar("T")
TINY = {"images": 32, "size": 32, "batch": 8, "epochs": 2, "rounds": 1, "backbones": ["resnet50"]}


def main() -> None:
    """Measure and print a table for each backbone."""
    arguments = parse_arguments()
    with quiet_start():
        from benchmarks import rates
    device = run_in_process(get_device_name)
    print(f"{device}; {machine_line()}", flush=True)
    results: dict[str, Any] = {"device": device}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["IMAGETUNE_CACHE"] = str(Path(folder) / "cache")
        source = rates.write_images(Path(folder) / "images", arguments.images)
        for backbone in arguments.backbones:
            results[backbone] = measure(backbone, arguments, source, Path(folder))
    print(f"Required: {REQUIRED_RATIO} of the step on the card.")
    save_json(arguments.json, {"command": sys.argv[1:], "results": results})


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["resnet50", "convnext_tiny"])
    parser.add_argument("--images", type=int, default=8192, help="JPEGs of 640 x 480 to generate")
    parser.add_argument("--size", type=int, default=224, help="side of the model's input in pixels")
    parser.add_argument("--batch", type=int, help="images a step; by default the fastest one")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of each measurement; the first doesn't count")
    parser.add_argument("--augmentation", default="light", help="a preset")
    parser.add_argument("--cache", default="auto", help="data.cache of the recipe")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timm", metavar="PYTHON", help="the Python of an environment with torch and timm")
    parser.add_argument("--trace", type=Path, metavar="FOLDER", help="record an epoch of each backbone there")
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    parser.add_argument("--tiny", action="store_true", help=f"only to see whether it works: {TINY}")
    if parser.parse_known_args()[0].tiny:
        parser.set_defaults(**TINY)
    return parser.parse_args()


def measure(backbone: str, arguments: argparse.Namespace, source: Path, work: Path) -> dict[str, Any]:
    """Measure one backbone on all sides, print its table, and return its measurements as JSON values."""
    from benchmarks import rates
    from imagetune.runs.prepare import read_data

    batch = arguments.batch or find_fastest_batch(backbone, arguments, source)
    recipe = build_recipe(backbone, batch, arguments, source)
    data = read_data(recipe, say=say_nothing)
    sides: dict[str, Measure] = {
        ON_CARD: partial(run_in_process, rates.measure_bare_fit, recipe, data, one_batch=True),
        OURS: partial(run_in_process, rates.measure_imagetune, recipe, data, work),
    }
    if arguments.timm:
        sides[TIMM] = partial(measure_timm, arguments, backbone, batch, source)
        sides[TIMM_STEP] = partial(measure_timm, arguments, backbone, batch, source, "--one-batch")
    comparison = measure_in_turn(sides, rounds=arguments.rounds, unit="images/s", lower_is_better=False)
    print(
        f"\n{backbone} at {arguments.size} pixels, batches of {batch}, bfloat16, augmentation {arguments.augmentation}:"
    )
    print(f"\n{markdown_table(comparison, base=ON_CARD)}\n", flush=True)
    found = {"batch": batch, **comparison.as_json(ON_CARD)}
    if arguments.trace:
        found["trace"] = run_in_process(trace_epoch, recipe, data, work, arguments.trace / backbone)
        for lane, shares in found["trace"].items():
            print(f"- {lane}: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))
    return found


def build_recipe(backbone: str, batch: int, arguments: argparse.Namespace, source: Path) -> Recipe:
    """Return the recipe of a measurement."""
    from benchmarks import rates

    return rates.build_recipe(
        source,
        backbone=backbone,
        size=arguments.size,
        batch=batch,
        epochs=arguments.epochs,
        augmentation=arguments.augmentation,
        precision="mixed_bfloat16",
        cache=arguments.cache,
    )


def find_fastest_batch(backbone: str, arguments: argparse.Namespace, source: Path) -> int:
    """Return the fastest batch size: it is doubled until the step gets no faster, or the memory is full."""
    from imagetune.runs.prepare import read_data

    best, batch, rate = 0, 32, 0.0
    while batch <= min(LARGEST_BATCH, arguments.images // 2):
        recipe = build_recipe(backbone, batch, arguments, source)
        found = run_in_process(measure_if_it_fits, recipe, read_data(recipe, say=say_nothing))
        if found is None:
            print(f"  batch {batch}: the card's memory is full", file=sys.stderr)
            break
        print(f"  batch {batch}: {show(found)} images/s", file=sys.stderr)
        if found < rate * MIN_SPEEDUP:
            break
        best, batch, rate = batch, batch * 2, found
    if not best:
        raise SystemExit(f"not even {batch} images fit on the card; give --batch")
    return best


def run_in_process(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the result of work in a process of its own: JAX frees the card's memory only when its process ends."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args, **kwargs).result()


def get_device_name() -> str:
    """Return the device's name and kind."""
    import jax

    device = jax.devices()[0]
    return f"{device.device_kind} ({device.platform})"


def measure_if_it_fits(recipe: Recipe, data: Data) -> float | None:
    """Return the images a second of the step on the card, or None where its memory is too small."""
    import jax

    from benchmarks import rates

    try:
        return rates.measure_bare_fit(recipe, data, one_batch=True)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower():
            return None
        raise


def trace_epoch(recipe: Recipe, data: Data, work: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Train once more with an epoch recorded in ``folder``, and return the shares of its time by kind of work."""
    from benchmarks import rates
    from benchmarks.traces import EpochTrace, time_by_lane

    rates.measure_imagetune(recipe, data, work, EpochTrace(folder))
    return time_by_lane(folder)


def measure_timm(arguments: argparse.Namespace, backbone: str, batch: int, source: Path, *flags: str) -> float:
    """Return the images a second that timm reaches on the same images."""
    script = Path(__file__).parent / "peers" / "timm_script.py"
    options = {"backbone": backbone, "size": arguments.size, "batch": batch, "epochs": arguments.epochs}
    command = [arguments.timm, str(script), str(source), *(f"--{name}={value}" for name, value in options.items())]
    return float(json.loads(run_process([*command, *flags]).output.splitlines()[-1])["images_per_second"])


if __name__ == "__main__":
    main()
