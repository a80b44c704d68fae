"""The learning rates that a range test suggests, as lines of text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from imagetune.cli.render.lines import format_line
from imagetune.cli.render.tables import format_table

if TYPE_CHECKING:
    from imagetune.training.measure.lr_find import RangeTest


def format_learning_rates(found: RangeTest, plot: Path | None) -> list[str]:
    """Return each suggestion as a line of YAML for the recipe, and where the plot is, if there is one.

    Args:
        found: The result of the range test.
        plot: The PNG file that was written; None for none.
    """
    suggestions = {"valley": found.valley, "steepest slope": found.steepest}
    rows = [
        (f"learning_rate: {rate:.2g}", f"# {name} of stage {found.stage}")
        for name, rate in suggestions.items()
        if rate is not None
    ]
    lines = [] if plot is None else [format_line("plot", str(plot))]
    return [*format_table(rows, align="<<", indent=0), *lines]
