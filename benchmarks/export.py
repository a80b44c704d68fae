"""Exports of the quickstart's model: how often each agrees with the Keras model, and how long an image takes.

    python -m benchmarks.export [--run RUN] [--rounds 5] [--targets litert litert-int8 onnx saved_model ...]

Labels are compared by `imagetune export`, on images that the model has not learned from. Times are those of single
images, by the export's own runtime and example.py in a process of its own, a round of each export in turn; decoding is
not counted. Required of LiteRT's int8: 0.97 of the labels, and at most 0.4 of float32's time.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.side_by_side import Comparison, Measure, machine_line, markdown_table, measure_in_turn, save_json, show
from imagetune.core.quiet import quiet_start
from imagetune.errors import ModelFileError
from imagetune.export.formats import FORMATS, QUANTIZATIONS, Target

RECIPE = Path("recipes/quickstart.yaml")
IMAGES = Path("recipes/clipart")
TARGETS = {target.name: target for target in (Target(one, two) for one in FORMATS for two in QUANTIZATIONS)}
DEFAULT_TARGETS = ("litert", "litert-fp16", "litert-dynamic", "litert-int8", "onnx", "onnx-int8", "saved_model")
FLOAT, INT8 = "litert", "litert-int8"
REQUIRED_AGREEMENT = 0.97
REQUIRED_SHARE = 0.4


def main() -> None:
    """Export, measure, and print a table and whether the requirements are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="a finished run; by default the quickstart is fitted first")
    parser.add_argument("--targets", nargs="+", default=DEFAULT_TARGETS, choices=TARGETS, metavar="TARGET")
    parser.add_argument("--rounds", type=int, default=5, help="of 100 images each; the median is shown")
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    arguments = parser.parse_args()
    print(machine_line(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["IMAGETUNE_CACHE"] = str(Path(folder) / "cache")
        run = arguments.run or fit_quickstart(Path(folder) / "run")
        targets = list(dict.fromkeys([FLOAT, INT8, *arguments.targets]))
        exported = {name: export_target(run, name, Path(folder) / name) for name in targets}
        slow: dict[str, list[float]] = {name: [] for name in targets}
        sides = {name: build_measure(place, slow[name]) for name, (place, _) in exported.items()}
        comparison = measure_in_turn(sides, rounds=arguments.rounds, unit="ms")
    documents = {name: document for name, (_, document) in exported.items()}
    print(f"\n{markdown_table(comparison, base=FLOAT)}\n\n{format_agreement(documents, slow)}\n")
    print(judge(documents[INT8]["label_agreement"], comparison))
    save_json(arguments.json, {"parity": documents, "p95": slow, **comparison.as_json(FLOAT)})


def fit_quickstart(folder: Path) -> str:
    """Fit the quickstart into a folder and return its path."""
    with quiet_start():
        from imagetune.commands.fit import fit
    fit(RECIPE, {"tracking.enabled": False}, run_dir=folder)
    return str(folder)


def export_target(run: str, name: str, out: Path) -> tuple[Path, dict[str, Any]]:
    """Return the folder of an export, refused or not, with the content of its parity.json."""
    with quiet_start():
        from imagetune.commands.export import REFUSED, export
    try:
        # So few images rule out no small drop: what is asked here is how many labels agree.
        export(run, format=TARGETS[name].format, quantize=TARGETS[name].quantization, out=out, max_drop=100)
        place = out
    except ModelFileError:
        place = out / REFUSED
    return place, json.loads((place / "parity.json").read_text(encoding="utf-8"))


def build_measure(place: Path, slow: list[float]) -> Measure:
    """Return a measure of an export's median milliseconds an image; the 95th percentile is added to ``slow``."""
    from imagetune.export.folder import measure_export

    paths = [str(path) for path in sorted(IMAGES.glob("*/*.png"))[:103]]

    def measure(images: Sequence[str]) -> float:
        milliseconds = measure_export(place, images).milliseconds
        slow.append(float(np.quantile(milliseconds, 0.95)))
        return float(np.median(milliseconds))

    return partial(measure, paths)


def format_agreement(documents: dict[str, dict[str, Any]], slow: dict[str, list[float]]) -> str:
    """Return a row of Markdown for each export: labels, differences, the 95th percentile of the time, size, memory."""
    rows = ["| | verdict | same label | largest difference | p95, ms | MB | MB of memory |", f"|{' --- |' * 7}"]
    for name, found in documents.items():
        cells = [f"{found['label_agreement']:.1%} of {found['images']}", show(found["max_difference"])]
        # The first round, like any other, may have had a neighbour: the median of the rounds is shown.
        cells += [show(float(np.median(slow[name]))), show(found["size_bytes"] / 1e6)]
        rows.append(f"| {name} | {found['verdict']} | {' | '.join(cells)} | {found['peak_memory_bytes'] / 1e6:.0f} |")
    return "\n".join(rows)


def judge(agreement: float, comparison: Comparison) -> str:
    """Return whether int8 meets the requirements, in a sentence each."""
    share = comparison.spread(INT8).median / comparison.spread(FLOAT).median
    met = {True: "met", False: "MISSED"}
    return (
        f"int8 agrees on {agreement:.3f} of the labels; required are {REQUIRED_AGREEMENT}: "
        f"{met[agreement >= REQUIRED_AGREEMENT]}.\n"
        f"int8 takes {share:.2f} of float32's time; required are at most {REQUIRED_SHARE}: "
        f"{met[share <= REQUIRED_SHARE]}."
    )


if __name__ == "__main__":
    main()
