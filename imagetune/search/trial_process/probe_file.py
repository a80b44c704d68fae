"""``probe.json``, the result of a bake-off's probe: its metrics, fold by fold, and the model's latency and size.

The document::

    {"format_version": 1, "backbone": "resnet50", "weights": "imagenet", "weights_note": "...",
     "image_size": [160, 160], "default_size": 224, "features": 2048, "images": 344,
     "objective": "f1", "value": 0.8, "low": 0.75, "high": 0.85, "method": "nadeau-bengio", "confidence": 0.95,
     "left_out_ratio": 0.25,                  images left out for each one that a fold's probe was given
     "folds": [{"train": 230, "val": 48, "left_out": 66, "strength": 0.01, "metrics": {"accuracy": 0.8, ...}}],
     "cost": {                                of the whole model; value: the fastest round
              "milliseconds_one": {"value": 12.1, "median": 12.8, "max": 14.0, "rounds": 7},
              "milliseconds_batch": {...}, "batch": 32, "parameters": 23587712, "megabytes": 94.4, "device": "cpu:0",
              "cores": 8}}                    that the process might use
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagetune.core import run_files
from imagetune.core.documents import CURRENT_FORMAT, FORMAT_VERSION
from imagetune.core.files import read_json_or_empty, write_json


def write_probe(folder: Path, document: Mapping[str, Any]) -> None:
    """Write the result of a probe to ``probe.json`` in its folder, with the format's number.

    Raises:
        ResourceError: The disk is full.
    """
    write_json(folder / run_files.PROBE, {FORMAT_VERSION: CURRENT_FORMAT, **document})


def read_probe(folder: Path) -> dict[str, Any] | None:
    """Return the result of a probe from its folder; None where there is none that can be read."""
    document = read_json_or_empty(folder / run_files.PROBE)
    return document if document.get(FORMAT_VERSION) == CURRENT_FORMAT else None
