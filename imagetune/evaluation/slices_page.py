"""The report's section on parts of the test on which the model is worse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagetune.evaluation.run_files import RunFiles

# More rows than this nobody reads; they are in evaluation.json.
MOST_ROWS = 25


def slices_view(run: RunFiles) -> Mapping[str, Any] | None:
    """Return what the section is drawn from; None where the run has no slices."""
    found = run.evaluation.get("slices")
    if not found:
        return None
    rows = found["slices"]
    # Every single attribute is told; of the pairs those that look worst.
    shown = [row for row in rows if len(row["attributes"]) == 1][:MOST_ROWS]
    pairs = [row for row in rows if len(row["attributes"]) > 1][: max(0, MOST_ROWS - len(shown))]
    kept = [row for row in rows if row in shown or row in pairs]
    return {**found, "rows": kept, "left_out": len(rows) - len(kept)}
