"""The saliency-maps section: Grad-CAM and occlusion maps of the worst mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagetune.reports.tiles import tile_address
from imagetune.run_folder.reader import RunFiles

MAX_SHOWN = 24
"""Further maps are in the run folder only: the report stays small enough to be sent."""


def view_saliency_maps(run: RunFiles) -> dict[str, Any] | None:
    """Return what the report shows; None where nothing was explained."""
    document: Mapping[str, Any] | None = run.evaluation.get("explanations")
    if not document:
        return None
    shown = [_view_image(run.folder, image) for image in document["images"][:MAX_SHOWN]]
    return {**document, "shown": shown, "task": run.recipe.data.task}


def _view_image(folder: Path, image: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry with the addresses of its tiles in the place of their names."""
    saliency_maps = [
        {**saliency, **{method: tile_address(folder, saliency[method]) for method in ("grad_cam", "occlusion")}}
        for saliency in image["saliency"]
    ]
    return {**image, "image": tile_address(folder, image["file"]), "saliency": saliency_maps}
