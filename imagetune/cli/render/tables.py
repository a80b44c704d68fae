"""Tables of text: columns as wide as their widest cell."""

from __future__ import annotations

from collections.abc import Sequence

GAP = "  "


def table_lines(rows: Sequence[Sequence[str]], *, align: str = "", indent: int = 2) -> list[str]:
    """Return rows as lines of one table.

    Args:
        rows: Cells from left to right; headings are rows like others, and a row may have fewer cells than another.
        align: A sign a column, ``<`` for left and ``>`` for right; without it the first is left, the others right.
        indent: Blanks before each line.
    """
    columns = max((len(row) for row in rows), default=0)
    signs = align or "<" + ">" * (columns - 1)
    widths = [max((len(row[place]) for row in rows if place < len(row)), default=0) for place in range(columns)]
    return [" " * indent + row_line(row, widths, signs) for row in rows]


def row_line(cells: Sequence[str], widths: Sequence[int], align: str) -> str:
    """Return one row with its cells in columns of these widths, without blanks at its end."""
    shown = (f"{cell:{sign}{width}}" for cell, width, sign in zip(cells, widths, align, strict=False))
    return GAP.join(shown).rstrip()
