"""Reader of CSV tables that others may have written."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from imagetune.core.csv_cells import unquote_cell, unquote_row
from imagetune.core.files import open_regular_file

_MAX_CSV_LINE = 1 << 20


def read_csv_rows(path: Path, *, max_rows: int) -> Iterator[list[str]]:
    """Yield the rows of a CSV table as texts, the heading first; bytes that are not UTF-8 become surrogates.

    Cells are as they were before `write_csv` kept spreadsheets from taking them for formulas.

    Raises:
        OSError: As `open_regular_file`.
        ValueError: It is no CSV table, has more rows, or a line of over a megabyte.
    """
    with open_regular_file(path) as content:
        # A path on Linux need not be UTF-8; surrogates bring its bytes through unchanged.
        file = io.TextIOWrapper(content, encoding="utf-8", errors="surrogateescape", newline="")
        # Lines are cut: one without an end would be read into memory as a whole.
        lines = iter(lambda: file.readline(_MAX_CSV_LINE), "")
        try:
            header: list[str] = []
            for number, row in enumerate(csv.reader(lines)):
                if number > max_rows:
                    raise ValueError(f"has more than {max_rows:,} rows")
                if not number:
                    header = [unquote_cell(cell) for cell in row]
                yield unquote_row(header, row) if number else header
        except csv.Error as error:
            raise ValueError(f"is no CSV table: {error}") from error
