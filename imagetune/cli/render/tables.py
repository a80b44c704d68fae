"""Tables of text whose columns are as wide as their widest cells."""

from __future__ import annotations

from collections.abc import Sequence

GAP = "  "


def format_table(rows: Sequence[Sequence[str]], *, align: str = "", indent: int = 2) -> list[str]:
    """Return the lines of a table.

    Args:
        rows: Cells from left to right; headings are rows like others, and a row may have fewer cells than another.
        align: A sign for each column, ``<`` for left and ``>`` for right; by default the first is left, the others
            right.
        indent: Blanks before each line.
    """
    columns = max((len(row) for row in rows), default=0)
    signs = align or "<" + ">" * (columns - 1)
    widths = [max((len(row[place]) for row in rows if place < len(row)), default=0) for place in range(columns)]
    return [" " * indent + format_row(row, widths, signs) for row in rows]


def format_row(cells: Sequence[str], widths: Sequence[int], align: str) -> str:
    """Return a row with its cells in columns of some widths, without blanks at its end."""
    shown = (f"{cell:{sign}{width}}" for cell, width, sign in zip(cells, widths, align, strict=False))
    return GAP.join(shown).rstrip()
