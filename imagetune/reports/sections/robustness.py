"""The section of the report about corrupted images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagetune.evaluation.robustness.corruptions import JPEG_QUALITIES, RESOLUTIONS, ROTATION_DEGREES
from imagetune.recipe.metrics import METRICS
from imagetune.reports.tiles import tile_address
from imagetune.run_folder.reader import RunFiles


def robustness_view(run: RunFiles) -> dict[str, Any] | None:
    """Return what the report shows; None where the model was not tested on corrupted images."""
    found: Mapping[str, Any] | None = run.evaluation.get("robustness")
    if not found:
        return None
    clean = found["clean"]["value"]
    metric = METRICS[found["measure"]]
    rows = [
        {
            **row,
            "title": title_of(row["name"]),
            "cells": [
                {
                    **row["by_severity"][str(severity)],
                    "heat": heat_of(row["by_severity"][str(severity)]["value"], clean),
                }
                for severity in found["severities"]
            ],
            "mean": {**row["mean"], "heat": heat_of(row["mean"]["value"], clean)},
        }
        for row in found["corruptions"]
    ]
    return {
        **found,
        "told": metric.in_words,
        "lower_is_better": not metric.higher_is_better,
        "rows": rows,
        "common": sum(row["common"] for row in rows),
        "sheets": [_sheet(run.folder, image) for image in found["sheet"]["images"]],
        "extras": {"degrees": ROTATION_DEGREES, "qualities": JPEG_QUALITIES, "resolutions": RESOLUTIONS},
    }


def title_of(name: str) -> str:
    """Return a corruption's name as the report shows it."""
    return name.replace("_", " ").replace("jpeg", "JPEG")


def heat_of(value: float, clean: float) -> int:
    """Return how much of the clean metric is lost, in percent 0 to 100; for errors, how much is added to it."""
    return round(100 * min(1.0, max(0.0, abs(value - clean) / clean))) if clean else 0


def _sheet(folder: Path, image: Mapping[str, Any]) -> dict[str, Any]:
    tiles = [image["clean"], *image["corrupted"]]
    shown = [
        {
            **tile,
            "title": "as it is" if tile is image["clean"] else title_of(tile["name"]),
            "image": tile_address(folder, tile["file"]),
            "changed": tile["prediction"] != image["clean"]["prediction"],
        }
        for tile in tiles
    ]
    return {**image, "tiles": shown}
