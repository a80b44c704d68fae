"""The label-errors section: images whose label is suspected to be wrong, with the likely one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagetune.data.sources.labels import build_label_rule
from imagetune.reports.thumbnails import view_thumbnail
from imagetune.run_folder.reader import SPLITS, RunFiles

MAX_SHOWN = 24
MAX_TESTED = 12
PIXELS = 144


def view_label_errors(run: RunFiles) -> Mapping[str, Any] | None:
    """Return what the section shows; None where evaluation.json lacks it."""
    found = run.evaluation.get("label_errors")
    if not found:
        return None
    limits = [("learned", MAX_SHOWN), ("test", MAX_TESTED)]
    return {
        **found,
        "numbers": run.recipe.data.task == "regression",
        # Without a test split its side is null.
        "sides": {name: _view_side(run, found[name], most) for name, most in limits if found.get(name)},
    }


def _view_side(run: RunFiles, part: Mapping[str, Any], most: int) -> dict[str, Any]:
    rule, root = build_label_rule(run.recipe.data), run.images_root
    images = [
        {
            **suspect,
            **view_thumbnail(suspect["path"], root=root, config=run.recipe.data, pixels=PIXELS),
            "label": rule.describe(suspect["label"]),
            "likely": rule.describe(suspect["likely"]),
            "split": SPLITS[suspect["split"]],
        }
        for suspect in part["suspects"][:most]
    ]
    names = " and ".join(SPLITS[name] for name in part["splits"])
    return {**part, "names": names, "shown": images}
