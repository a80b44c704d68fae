"""The slices section: subgroups of the test images, the worst first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagetune.run_folder.reader import RunFiles

# The worst slices that are always shown; those that are significantly worse are shown as well.
FEW_ROWS = 5
# Further rows are in evaluation.json: nobody reads more than this.
MAX_ROWS = 25


def view_slices(run: RunFiles) -> Mapping[str, Any] | None:
    """Return what the section is drawn from; None where the run has no slices."""
    found = run.evaluation.get("slices")
    if not found:
        return None
    rows = found["slices"]
    # Slices by one attribute are all listed; of those by two attributes, the worst.
    singles = [row for row in rows if len(row["attributes"]) == 1][:MAX_ROWS]
    pairs = [row for row in rows if len(row["attributes"]) > 1][: max(0, MAX_ROWS - len(singles))]
    shown = [row for place, row in enumerate(rows) if _is_worse(row) or place < FEW_ROWS]
    folded = [row for row in rows if row not in shown and (row in singles or row in pairs)]
    return {**found, "rows": shown, "folded": folded, "left_out": len(rows) - len(shown) - len(folded)}


def _is_worse(row: Mapping[str, Any]) -> bool:
    """Return whether a slice is significantly worse than all images, or than those of its classes or numbers."""
    return bool(row["worse"] or row.get("worse_classes") or row.get("worse_ranges"))
