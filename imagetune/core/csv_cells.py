"""Cells of CSV tables that spreadsheets would take for formulas: written as text, and read as they were.

A class or a file may be called ``=HYPERLINK(...)``, and tables of ours are opened in spreadsheets. An apostrophe in
front makes a text of such a cell for all of them. In the column ``path`` it is ``./`` instead, so that the path still
names its file for every program that reads the table. Numbers stay numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

PATH = "path"

_SIGNS = r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
_FORMULA = re.compile(f"'*{_SIGNS}")
_FORMULA_PATH = re.compile(rf"(\./)*{_SIGNS}")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def quote_row(header: Sequence[object], row: Iterable[object]) -> list[object]:
    """Return the cells of a row as they are written below a header."""
    return [
        cell if not isinstance(cell, str) else _quote_path(cell) if name == PATH else quote_cell(cell)
        for name, cell in zip(header, row, strict=True)
    ]


def unquote_row(header: Sequence[str], row: Sequence[str]) -> list[str]:
    """Return the cells that `quote_row` wrote, as they were; a row may be longer or shorter than its header."""
    names = [*header, *[""] * (len(row) - len(header))]
    return [_unquote_path(cell) if name == PATH else unquote_cell(cell) for name, cell in zip(names, row, strict=False)]


def quote_cell(cell: str) -> str:
    """Return a text as a cell that spreadsheets show as it is."""
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell


def unquote_cell(cell: str) -> str:
    """Return the text that `quote_cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _quote_path(path: str) -> str:
    return f"./{path}" if _FORMULA_PATH.match(path) else path


def _unquote_path(path: str) -> str:
    return path[2:] if path.startswith("./") and _FORMULA_PATH.match(path) else path
