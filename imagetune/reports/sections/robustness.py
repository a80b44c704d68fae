"""The robustness section: metrics per corruption and severity, with examples of corrupted images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagetune.evaluation.robustness.corruptions import JPEG_QUALITIES, RESOLUTIONS, ROTATION_DEGREES
from imagetune.recipe.metrics import METRICS
from imagetune.reports.tiles import tile_address
from imagetune.run_folder.reader import RunFiles


def view_robustness(run: RunFiles) -> dict[str, Any] | None:
    """Return what the report shows; None where the model was not tested on corrupted images."""
    found: Mapping[str, Any] | None = run.evaluation.get("robustness")
    if not found:
        return None
    clean = found["clean"]["value"]
    metric = METRICS[found["measure"]]
    rows = [
        {
            **row,
            "title": _format_title(row["name"]),
            "cells": [
                {
                    **row["by_severity"][str(severity)],
                    "heat": _compute_heat(row["by_severity"][str(severity)]["value"], clean),
                }
                for severity in found["severities"]
            ],
            "mean": {**row["mean"], "heat": _compute_heat(row["mean"]["value"], clean)},
        }
        for row in found["corruptions"]
    ]
    return {
        **found,
        "metric_name": metric.in_words,
        "lower_is_better": not metric.higher_is_better,
        "rows": rows,
        "common": sum(row["common"] for row in rows),
        "sheets": [_view_sheet(run.folder, image) for image in found["sheet"]["images"]],
        "extras": {"degrees": ROTATION_DEGREES, "qualities": JPEG_QUALITIES, "resolutions": RESOLUTIONS},
    }


def _format_title(name: str) -> str:
    """Return a corruption's name as the report shows it."""
    return name.replace("_", " ").replace("jpeg", "JPEG")


def _compute_heat(value: float, clean: float) -> int:
    """Return the relative drop from the metric without corruption (for errors: the increase), in percent, 0 to 100."""
    # Of a metric of 0 there is no relative change.
    return round(100 * min(1.0, max(0.0, abs(value - clean) / clean))) if clean else 0


def _view_sheet(folder: Path, image: Mapping[str, Any]) -> dict[str, Any]:
    tiles = [image["clean"], *image["corrupted"]]
    shown = [
        {
            **tile,
            "title": "original" if tile is image["clean"] else _format_title(tile["name"]),
            "image": tile_address(folder, tile["file"]),
            "changed": tile["prediction"] != image["clean"]["prediction"],
        }
        for tile in tiles
    ]
    return {**image, "tiles": shown}
